//! What may become of a call to MercadoLibre.

use std::time::Duration;

use serde_json::Value;

use super::Group;
use crate::breaker::{Outcome, Rejected};
use crate::limiter::Denied;

/// A call did not lead to a success.
#[derive(Debug, thiserror::Error)]
pub enum MlError {
    /// Not sent: the breaker of these endpoints is open.
    #[error("call MercadoLibre ({}): breaker open", group.name())]
    BreakerOpen {
        /// Which endpoints.
        group: Group,
        /// When to try again.
        source: Rejected,
    },
    /// Not sent: a limit of ours has no room.
    #[error("call MercadoLibre: limited")]
    QuotaDenied(#[from] Denied),
    /// MercadoLibre asks to slow down, or did so a moment ago.
    #[error("call MercadoLibre: it asks to wait {} ms", retry_after.as_millis())]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// No connection: nothing was sent.
    #[error("connect to MercadoLibre")]
    Connect(#[source] reqwest::Error),
    /// No whole answer in time.
    #[error("call MercadoLibre: no answer in time")]
    Timeout,
    /// The connection broke after the request may have been sent.
    #[error("call MercadoLibre: the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// 5xx.
    #[error("call MercadoLibre: it answered {status}")]
    Server {
        /// The status.
        status: u16,
    },
    /// 401: the access token is not accepted.
    #[error("call MercadoLibre: it does not accept the token")]
    Unauthorized,
    /// Another 4xx.
    #[error("call MercadoLibre: it answered {status} {error}")]
    Refused {
        /// The status.
        status: u16,
        /// Its word, e.g. `invalid_grant`; empty when it gave none.
        error: String,
        /// Its sentence.
        message: String,
    },
    /// The answer is not what the endpoint promises.
    #[error("read MercadoLibre's answer: expected {expected}")]
    Unreadable {
        /// What was promised.
        expected: &'static str,
    },
}

impl MlError {
    /// The label of `ml_api_requests_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::BreakerOpen { .. } => "breaker_open",
            Self::QuotaDenied(_) => "quota_denied",
            Self::RateLimited { .. } => "rate_limited",
            Self::Timeout => "timeout",
            Self::Connect(_) | Self::Broken(_) | Self::Server { .. } | Self::Unreadable { .. } => {
                "server_error"
            }
            Self::Unauthorized => "auth",
            Self::Refused { status, .. } if *status == 403 => "auth",
            Self::Refused { .. } => "client_error",
        }
    }

    /// What the breaker learns from it: 4xx is an answer, 429 is the limiter's business.
    pub fn breaker_outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Broken(_) | Self::Server { .. } => Outcome::Failure,
            Self::Unauthorized
            | Self::Refused { .. }
            | Self::Unreadable { .. }
            | Self::RateLimited { .. } => Outcome::Success,
            Self::BreakerOpen { .. } | Self::QuotaDenied(_) => Outcome::Unknown,
        }
    }

    /// True when the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Unauthorized | Self::Refused { .. } | Self::Unreadable { .. })
    }

    /// True when MercadoLibre may have carried the call out all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Timeout | Self::Broken(_) | Self::Server { .. } | Self::Unreadable { .. })
    }

    /// Reads a refusal; every part of its body may be missing.
    pub(super) fn refused(status: u16, body: &Value) -> Self {
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let message =
            ["message", "error_description"].iter().map(|key| text(key)).find(|text| !text.is_empty());
        let causes = body.get("cause").and_then(Value::as_array).into_iter().flatten();
        let causes: Vec<&str> = causes.filter_map(|cause| cause.get("message")?.as_str()).collect();
        let mut message = message.unwrap_or("no reason given").to_owned();
        if !causes.is_empty() {
            message = format!("{message}: {}", causes.join("; "));
        }
        Self::Refused { status, error: text("error").to_owned(), message }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_read_from_whatever_is_there() {
        let table = [
            (json!({"error": "invalid_grant", "error_description": "used"}), "invalid_grant", "used"),
            (
                json!({"message": "Validation error", "cause": [{"message": "a"}, {"message": "b"}]}),
                "",
                "Validation error: a; b",
            ),
            (json!("local_rate_limited"), "", "no reason given"),
            (Value::Null, "", "no reason given"),
        ];
        for (body, word, sentence) in table {
            let MlError::Refused { error, message, .. } = MlError::refused(400, &body) else {
                panic!("not a refusal")
            };
            assert_eq!((error.as_str(), message.as_str()), (word, sentence), "{body}");
        }
    }
}
