//! The words of an account: e-mail, password, tenant, user. Each is parsed once, at the edge, and valid ever after.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use service_kit::PROBE_TENANT;
use uuid::Uuid;

/// The tenant of a registration that names none.
pub const DEFAULT_TENANT: &str = "default";

/// Tenants that begin so belong to the operator.
const RESERVED_PREFIX: &str = "mlctl-";

/// Why a word of a request is not acceptable. The text never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// Not one `local@domain`, or longer than 254 bytes (RFC 5321).
    #[error("`email` must be one address such as name@example.com, at most 254 bytes")]
    Email,
    /// Shorter than 8 characters or longer than 1,024 bytes.
    #[error("`password` must have at least 8 characters and at most 1024 bytes")]
    Password,
    /// Outside of the grammar of [`Tenant`].
    #[error("`tenant` must be 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit")]
    Tenant,
}

/// An e-mail address in the one spelling that is stored and compared: trimmed and lower case.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Parses an address; the check is deliberately loose, since only a delivered message proves one.
    ///
    /// # Errors
    /// [`AccountError::Email`].
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or(AccountError::Email)?;
        let plain = |part: &str| {
            !part.is_empty() && !part.chars().any(|c| c.is_whitespace() || c.is_control() || c == '@')
        };
        let dotted = !domain.starts_with('.') && !domain.ends_with('.') && !domain.contains("..");
        if text.len() > 254 || local.len() > 64 || !plain(local) || !plain(domain) || !dotted {
            return Err(AccountError::Email);
        }
        Ok(Self(text.to_lowercase()))
    }

    /// The address as stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Personal data stays out of logs, also by accident.
impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Email(***)")
    }
}

/// A password of acceptable size. It is hashed whole: never cut, never normalised.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// Shortest password in characters (OWASP authentication cheat sheet).
    const MIN_CHARS: usize = 8;
    /// Longest password in bytes: enough for any passphrase, and a bound on the work of one request.
    const MAX_BYTES: usize = 1024;

    /// Accepts a new password.
    ///
    /// # Errors
    /// [`AccountError::Password`].
    pub fn parse(text: String) -> Result<Self, AccountError> {
        if text.len() > Self::MAX_BYTES || text.chars().count() < Self::MIN_CHARS {
            return Err(AccountError::Password);
        }
        Ok(Self(text.into()))
    }

    /// Accepts a password to compare. Only the upper bound counts: rules may have been milder when it was chosen.
    ///
    /// # Errors
    /// [`AccountError::Password`].
    pub fn presented(text: String) -> Result<Self, AccountError> {
        if text.len() > Self::MAX_BYTES { Err(AccountError::Password) } else { Ok(Self(text.into())) }
    }

    /// The bytes that are hashed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }
}

/// The customer that a user belongs to: 1 to 63 of `a-z`, `0-9`, `-`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Tenant(String);

impl Tenant {
    /// Parses a tenant's name; none is [`DEFAULT_TENANT`].
    ///
    /// # Errors
    /// [`AccountError::Tenant`].
    pub fn parse(text: Option<&str>) -> Result<Self, AccountError> {
        let text = text.unwrap_or(DEFAULT_TENANT);
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 63 || text.starts_with('-') || !text.bytes().all(legal) {
            return Err(AccountError::Tenant);
        }
        Ok(Self(text.to_owned()))
    }

    /// A name read back from the store, which holds only parsed ones.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The tenant's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Only a holder of the operator token may register in such a tenant.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }

    /// Traffic of mlctl itself.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.0 == PROBE_TENANT
    }
}

/// A registered user, as everybody may see themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct User {
    /// Identity of the user in every service and token.
    pub id: Uuid,
    /// Address that signs in.
    #[serde(serialize_with = "email_text")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub email: Email,
    /// Customer that the user belongs to.
    pub tenant: Tenant,
    /// When the user registered, to the millisecond.
    pub created_at: Timestamp,
    /// The connected MercadoLibre account, if any.
    pub ml_user_id: Option<i64>,
}

fn email_text<S: serde::Serializer>(email: &Email, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(email.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_are_accepted_in_one_spelling_or_refused() {
        for (text, want) in [
            ("Ana@Example.com", Some("ana@example.com")),
            ("  a.b+tag@sub.example.com ", Some("a.b+tag@sub.example.com")),
            ("jo\u{e3}o@example.com", Some("jo\u{e3}o@example.com")),
            ("", None),
            ("ana", None),
            ("@example.com", None),
            ("ana@", None),
            ("a@b@c", None),
            ("a b@example.com", None),
            ("a@exa\nmple.com", None),
            ("a@.example.com", None),
            ("a@example..com", None),
        ] {
            assert_eq!(Email::parse(text).ok().as_ref().map(Email::as_str), want, "{text:?}");
        }
        assert!(Email::parse(&format!("{}@example.com", "a".repeat(65))).is_err());
        assert!(Email::parse(&format!("a@{}.com", "b".repeat(250))).is_err());
    }

    #[test]
    fn passwords_are_bounded_but_long_ones_pass() {
        for (length, accepted) in [(0, false), (7, false), (8, true), (64, true), (1024, true), (1025, false)]
        {
            assert_eq!(Password::parse("x".repeat(length)).is_ok(), accepted, "{length} bytes");
        }
        assert!(Password::parse("\u{e9}".repeat(7)).is_err(), "characters count, not bytes");
    }

    #[test]
    fn tenants_follow_the_grammar_and_know_who_owns_them() {
        for (text, accepted) in [
            ("default", true),
            ("a", true),
            ("9-lives", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a/b", false),
        ] {
            assert_eq!(Tenant::parse(Some(text)).is_ok(), accepted, "{text:?}");
        }
        assert_eq!(Tenant::parse(None).unwrap().as_str(), "default");
        assert!(Tenant::parse(Some(&"a".repeat(64))).is_err());
        assert!(Tenant::parse(Some("mlctl-probe")).unwrap().is_reserved());
        assert!(Tenant::parse(Some("mlctl-probe")).unwrap().is_probe());
        assert!(!Tenant::parse(Some("mlctl")).unwrap().is_reserved());
    }

    #[test]
    fn neither_address_nor_password_shows_in_debug_output() {
        let email = Email::parse("ana@example.com").unwrap();
        let password = Password::parse("correct horse".to_owned()).unwrap();
        let shown = format!("{email:?} {password:?}");
        assert!(!shown.contains("ana") && !shown.contains("horse"), "{shown}");
    }
}
