//! Faults that a test or a demonstration asks for: per endpoint, for a number of requests.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// 429 with a JSON, a plain text or an empty body: all three were seen.
    RateLimited {
        /// Which body.
        #[serde(default)]
        body: LimitBody,
        /// Seconds named in Retry-After; MercadoLibre documents none, so absent by default.
        #[serde(default)]
        retry_after: Option<u32>,
    },
    /// A 5xx status in place of the answer; nothing is carried out.
    ServerError {
        /// 500 to 599.
        #[serde(default = "default_server_error")]
        status: u16,
    },
    /// The right answer, late.
    Slow {
        /// Milliseconds.
        delay_ms: u64,
    },
    /// No answer at all until the client goes away; nothing is carried out.
    Hang,
    /// The request is carried out, then the connection is reset in the middle of the body.
    Reset,
    /// `POST /items` answers 206 with `X-Content-Missing` although the item exists.
    ContentMissing,
    /// 409 optimistic locking.
    Conflict,
    /// The scroll_id is dead before its time.
    DeadScroll,
}

/// Body of a 429.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitBody {
    /// MercadoLibre's error shape.
    #[default]
    Json,
    /// The bare word that a proxy's limiter sends.
    Text,
    /// Nothing.
    Empty,
}

fn default_server_error() -> u16 {
    500
}

impl Fault {
    /// The word that the ledger shows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::ServerError { .. } => "server_error",
            Self::Slow { .. } => "slow",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::ContentMissing => "content_missing",
            Self::Conflict => "conflict",
            Self::DeadScroll => "dead_scroll",
        }
    }
}

/// A fault, where it applies and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// An endpoint's name (`items.get`), or `*` for all.
    pub endpoint: String,
    /// Only requests of this seller.
    #[serde(default)]
    pub seller: Option<u64>,
    /// How many more requests it hits; absent = until cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
}

/// The rules in force; the first that matches wins.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
}

impl Faults {
    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().push(rule);
    }

    /// The rules in force, in order.
    pub fn list(&self) -> Vec<Rule> {
        self.rules.lock().clone()
    }

    /// Removes every rule.
    pub fn clear(&self) {
        self.rules.lock().clear();
    }

    /// The fault for one request, counted down.
    pub fn take(&self, endpoint: &str, seller: Option<u64>) -> Option<Fault> {
        let mut rules = self.rules.lock();
        let at = rules.iter().position(|rule| {
            (rule.endpoint == "*" || rule.endpoint == endpoint)
                && (rule.seller.is_none() || rule.seller == seller)
        })?;
        let fault = rules[at].fault.clone();
        if let Some(times) = &mut rules[at].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                rules.remove(at);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_its_endpoint_and_seller_and_runs_out() {
        let faults = Faults::default();
        let rule = r#"{"endpoint":"items.get","seller":7,"times":2,"kind":"rate_limited","body":"text"}"#;
        faults.add(serde_json::from_str(rule).unwrap());
        assert_eq!(faults.take("items.get", Some(8)), None);
        assert_eq!(faults.take("items.put", Some(7)), None);
        let expected = Fault::RateLimited { body: LimitBody::Text, retry_after: None };
        assert_eq!(faults.take("items.get", Some(7)), Some(expected.clone()));
        assert_eq!(faults.take("items.get", Some(7)), Some(expected));
        assert_eq!(faults.take("items.get", Some(7)), None);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn a_rule_without_times_stays_until_cleared() {
        let faults = Faults::default();
        faults.add(serde_json::from_str(r#"{"endpoint":"*","kind":"hang"}"#).unwrap());
        assert_eq!(faults.take("oauth.token", None), Some(Fault::Hang));
        assert_eq!(faults.take("items.get", Some(1)), Some(Fault::Hang));
        faults.clear();
        assert_eq!(faults.take("items.get", Some(1)), None);
    }
}
