//! Events as they come from the log: the envelope is read, the content is not.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use service_kit::PROBE_TENANT;
use uuid::Uuid;

/// The event that asks for a user's counts to be removed.
pub const USER_DELETED: &str = "user.deleted";
/// Longest event type.
const TYPE_MAX: usize = 64;
/// Longest tenant.
const TENANT_MAX: usize = 128;

/// Whose events these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The tenant of the user.
    pub tenant: String,
    /// The user within the tenant.
    pub user_id: Uuid,
}

/// One event, as far as counting it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Identity of the event, the same in every delivery.
    pub id: Uuid,
    /// What happened, such as `product.updated`.
    pub event_type: String,
    /// To whom; `None` for what happened to no user.
    pub owner: Option<Owner>,
    /// When.
    pub at: Timestamp,
}

/// Why an event cannot be counted; trying again cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A field of the envelope is missing or of another kind.
    #[error("the envelope is unreadable: {0}")]
    Envelope(String),
    /// The type is no dotted word.
    #[error("the type must be words of a-z and _ joined by dots, at most {TYPE_MAX} characters")]
    Type,
    /// The tenant is empty or too long, or no database could keep it.
    #[error("the tenant must have 1 to {TENANT_MAX} characters, none of them a control character")]
    Tenant,
}

#[derive(Deserialize)]
struct Envelope {
    id: Uuid,
    #[serde(rename = "type")]
    event_type: String,
    tenant: String,
    #[serde(default)]
    user_id: Option<Uuid>,
    at: Timestamp,
}

impl Event {
    /// Reads the envelope of an event.
    ///
    /// # Errors
    /// [`Unreadable`] says which rule of the envelope is broken.
    pub fn read(payload: &Value) -> Result<Self, Unreadable> {
        let envelope =
            Envelope::deserialize(payload).map_err(|error| Unreadable::Envelope(error.to_string()))?;
        if !is_type(&envelope.event_type) {
            return Err(Unreadable::Type);
        }
        // PostgreSQL's text holds no NUL: such a tenant would fail its whole batch for ever.
        let tenant = &envelope.tenant;
        if tenant.is_empty() || tenant.len() > TENANT_MAX || tenant.chars().any(char::is_control) {
            return Err(Unreadable::Tenant);
        }
        let Envelope { id, event_type, tenant, user_id, at } = envelope;
        let owner = user_id.map(|user_id| Owner { tenant, user_id });
        Ok(Self { id, event_type, owner, at })
    }

    /// The owner for whom the event counts: none for what happened to no user, and none for verification traffic,
    /// which counts nowhere.
    #[must_use]
    pub fn counts_for(&self) -> Option<&Owner> {
        self.owner.as_ref().filter(|owner| owner.tenant != PROBE_TENANT)
    }

    /// The whole hour since 1970, UTC, in which it happened.
    #[must_use]
    pub fn hour(&self) -> i64 {
        self.at.as_second().div_euclid(3_600)
    }
}

/// Types become keys of answers and rows, so their alphabet is small.
fn is_type(text: &str) -> bool {
    let word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.len() <= TYPE_MAX && text.split('.').all(word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn envelope(changes: &Value) -> Value {
        let mut envelope = json!({
            "id": Uuid::from_u128(1), "type": "product.created", "tenant": "default", "user_id": Uuid::from_u128(2),
            "at": "2026-11-24T03:59:59.999Z", "data": {"anything": [1, 2]},
        });
        for (key, value) in changes.as_object().unwrap() {
            envelope[key] = value.clone();
        }
        envelope
    }

    #[test]
    fn an_envelope_is_read_whatever_it_carries() {
        let event = Event::read(&envelope(&json!({"another": true}))).unwrap();
        assert_eq!(event.event_type, "product.created");
        assert_eq!(event.hour(), "2026-11-24T03:00:00Z".parse::<Timestamp>().unwrap().as_second() / 3_600);
        assert_eq!(event.counts_for().unwrap().user_id, Uuid::from_u128(2));
    }

    #[test]
    fn probes_and_events_of_nobody_count_for_nobody() {
        assert_eq!(Event::read(&envelope(&json!({"tenant": PROBE_TENANT}))).unwrap().counts_for(), None);
        assert_eq!(Event::read(&envelope(&json!({"user_id": null}))).unwrap().counts_for(), None);
    }

    #[test]
    fn what_breaks_the_envelope_is_unreadable() {
        for changes in
            [json!({"id": "x"}), json!({"at": "yesterday"}), json!({"type": 1}), json!({"tenant": null})]
        {
            assert!(matches!(Event::read(&envelope(&changes)), Err(Unreadable::Envelope(_))));
        }
        for text in ["", ".", "a.", "A.b", "a b", "a-b", &"a".repeat(65)] {
            assert_eq!(Event::read(&envelope(&json!({"type": text}))), Err(Unreadable::Type), "{text:?}");
        }
        for tenant in ["", "a\0b", "a\nb", &"a".repeat(129)] {
            assert_eq!(
                Event::read(&envelope(&json!({"tenant": tenant}))),
                Err(Unreadable::Tenant),
                "{tenant:?}"
            );
        }
        assert!(matches!(Event::read(&json!("no object")), Err(Unreadable::Envelope(_))));
    }
}
