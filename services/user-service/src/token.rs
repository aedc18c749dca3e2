//! Access tokens of this service: the system's claims, and `sid`, the sign-in that a token comes from.
//!
//! Ed25519 keys come from `JWT_KEYS`: the first signs, all verify, so a key is rotated by putting the new one in front
//! and dropping the old one when its last token has expired. `JWT_SECRET` (HS256) is the older way: whoever verifies
//! such a token could also forge one. Keys, signatures and their checks are the kit's; only `sid` is ours.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use service_kit::Clock;
pub use service_kit::auth::SignError;
use service_kit::auth::{KeySet, Principal, Signer, Verifier};
use uuid::Uuid;

use crate::account::{Tenant, User};

/// How long an access token lives. Short, because nothing but a deleted user can revoke it.
pub const ACCESS_TTL: Duration = Duration::from_secs(15 * 60);

/// Shortest `JWT_SECRET` in bytes (RFC 7518 section 3.2: as long as the hash).
const SECRET_MIN_BYTES: usize = 32;

/// Keys that cannot be used; the text never shows key material.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not one or more Ed25519 private keys.
    #[error(transparent)]
    Keys(#[from] service_kit::auth::KeyError),
    /// The HS256 secret is too short to be safe.
    #[error("the secret is shorter than {SECRET_MIN_BYTES} bytes")]
    ShortSecret,
}

/// The bearer's token is not acceptable. One value for all reasons: the caller learns nothing from the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the access token is missing, invalid or expired")]
pub struct TokenRefused;

/// Who a verified token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: Uuid,
    /// The user's tenant when the token was issued.
    pub tenant: Tenant,
    /// The sign-in that the token comes from.
    pub session_id: Uuid,
}

/// The claim beside the system's, which the kit's verifier does not read.
#[derive(Debug, Serialize, Deserialize)]
struct SessionClaim {
    sid: Uuid,
}

/// Signs and verifies access tokens.
#[derive(Debug)]
pub struct Keyring {
    signer: Signer,
    verifier: Verifier,
}

impl Keyring {
    /// Reads one or more PKCS#8 PEM private keys; the first signs.
    ///
    /// # Errors
    /// [`KeyError`] naming a bad key by its position.
    pub fn ed25519(pem: &SecretString, clock: Clock) -> Result<Self, KeyError> {
        let signer = Signer::from_pem(pem.expose_secret())?;
        let verifier = Verifier::with_keys(signer.key_set(), clock);
        Ok(Self { signer, verifier })
    }

    /// Uses a secret that signer and verifiers share. Publishes no key.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`].
    pub fn shared_secret(secret: &SecretString, clock: Clock) -> Result<Self, KeyError> {
        if secret.expose_secret().len() < SECRET_MIN_BYTES {
            return Err(KeyError::ShortSecret);
        }
        Ok(Self { signer: Signer::from_secret(secret), verifier: Verifier::with_secret(secret, clock) })
    }

    /// Signs an access token for a user's session, valid from `now` for [`ACCESS_TTL`].
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, user: &User, session_id: Uuid, now: Timestamp) -> Result<String, SignError> {
        let who = Principal { user_id: user.id, tenant: user.tenant.as_str().to_owned() };
        self.signer.sign_with(&who, &SessionClaim { sid: session_id }, now, ACCESS_TTL)
    }

    /// Who a token speaks for.
    ///
    /// # Errors
    /// [`TokenRefused`].
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenRefused> {
        let principal = self.verifier.verify(token).await.map_err(|_| TokenRefused)?;
        // The signature was checked the line before; this reads one more claim of the same text.
        let SessionClaim { sid } =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenRefused)?;
        let tenant = Tenant::parse(Some(&principal.tenant)).map_err(|_| TokenRefused)?;
        Ok(Caller { user_id: principal.user_id, tenant, session_id: sid })
    }

    /// The keys that verify, for everybody to read.
    #[must_use]
    pub fn public_keys(&self) -> &KeySet {
        self.signer.key_set()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use service_kit::auth::TOKEN_TYPE;

    use super::*;
    use crate::account::Email;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn pem() -> String {
        Signer::generate_pem().unwrap().expose_secret().to_owned()
    }

    fn ring(pem: &str) -> Keyring {
        Keyring::ed25519(&pem.to_owned().into(), Clock::manual(now()).0).unwrap()
    }

    fn user() -> User {
        User {
            id: Uuid::from_u128(7),
            email: Email::parse("ana@example.com").unwrap(),
            tenant: Tenant::parse(None).unwrap(),
            created_at: now(),
            ml_user_id: None,
        }
    }

    /// A token with its header and claims altered, signed by the ring's own key.
    fn forged(ring: &Keyring, pem: &str, alter: impl Fn(&mut Header, &mut serde_json::Value)) -> String {
        let token = ring.sign(&user(), Uuid::from_u128(8), now()).unwrap();
        let part = |index: usize| URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
        let mut header: Header = serde_json::from_slice(&part(0)).unwrap();
        let mut claims: serde_json::Value = serde_json::from_slice(&part(1)).unwrap();
        alter(&mut header, &mut claims);
        let key = EncodingKey::from_ed_pem(pem.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }

    #[tokio::test]
    async fn a_token_speaks_for_its_user_while_it_lives() {
        let (clock, hand) = Clock::manual(now());
        let ring = Keyring::ed25519(&pem().into(), clock).unwrap();
        let token = ring.sign(&user(), Uuid::from_u128(8), now()).unwrap();
        hand.advance(Duration::from_secs(899));
        let caller = ring.verify(&token).await.unwrap();
        assert_eq!((caller.user_id, caller.session_id), (Uuid::from_u128(7), Uuid::from_u128(8)));
        assert_eq!(caller.tenant.as_str(), "default");
        hand.advance(Duration::from_secs(10));
        assert_eq!(ring.verify(&token).await, Err(TokenRefused), "expired");
    }

    #[tokio::test]
    async fn attacks_are_refused() {
        let pem = pem();
        let ring = ring(&pem);
        let forged = |alter: &dyn Fn(&mut Header, &mut serde_json::Value)| forged(&ring, &pem, alter);
        assert!(ring.verify(&forged(&|_, _| {})).await.is_ok(), "the forger itself works");
        let without =
            |name: &'static str| forged(&move |_, claims| drop(claims.as_object_mut().unwrap().remove(name)));
        for (what, token) in [
            ("wrong audience", forged(&|_, claims| claims["aud"] = "other".into())),
            ("wrong issuer", forged(&|_, claims| claims["iss"] = "other".into())),
            ("not yet valid", forged(&|_, claims| claims["nbf"] = (now().as_second() + 60).into())),
            ("no audience", without("aud")),
            ("no expiry", without("exp")),
            ("no session", without("sid")),
            ("wrong type", forged(&|header, _| header.typ = Some("JWT".to_owned()))),
            ("no type", forged(&|header, _| header.typ = None)),
            ("unknown key", forged(&|header, _| header.kid = Some("0000000000000000".to_owned()))),
            ("no key id", forged(&|header, _| header.kid = None)),
            ("another ring", self::ring(&self::pem()).sign(&user(), Uuid::nil(), now()).unwrap()),
            ("garbage", "a.b.c".to_owned()),
            ("empty", String::new()),
        ] {
            assert_eq!(ring.verify(&token).await, Err(TokenRefused), "{what}");
        }
    }

    #[tokio::test]
    async fn the_algorithm_is_pinned() {
        let ring = ring(&pem());
        let token = ring.sign(&user(), Uuid::from_u128(8), now()).unwrap();
        let body = token.split('.').nth(1).unwrap();
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
        let kid = ring.public_keys().ids()[0].to_owned();

        let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","typ":"at+jwt","kid":"{kid}"}}"#));
        assert_eq!(ring.verify(&format!("{none}.{body}.")).await, Err(TokenRefused), "alg none");

        // The classic confusion: the public key taken for an HMAC secret.
        let published = serde_json::to_value(ring.public_keys()).unwrap();
        let public = URL_SAFE_NO_PAD.decode(published["keys"][0]["x"].as_str().unwrap()).unwrap();
        let header =
            Header { typ: Some(TOKEN_TYPE.to_owned()), kid: Some(kid), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(ring.verify(&token).await, Err(TokenRefused), "HS256 with the public key");
    }

    #[tokio::test]
    async fn keys_rotate_with_an_overlap() {
        let (old, new) = (pem(), pem());
        let (before, during, after) = (ring(&old), ring(&format!("{new}{old}")), ring(&new));
        let token = before.sign(&user(), Uuid::nil(), now()).unwrap();
        assert!(during.verify(&token).await.is_ok());
        assert!(after.verify(&token).await.is_err());
        let token = during.sign(&user(), Uuid::nil(), now()).unwrap();
        assert!(after.verify(&token).await.is_ok(), "the first signs");
        assert_eq!(during.public_keys().ids().len(), 2);
        let published = serde_json::to_string(during.public_keys()).unwrap();
        assert!(!published.contains("\"d\""), "no private part");
    }

    #[tokio::test]
    async fn a_key_made_by_openssl_is_read() {
        // RFC 8410 section 10.3: PKCS#8 version 1, without a public key.
        let ring = ring(
            "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n",
        );
        let published = serde_json::to_value(ring.public_keys()).unwrap();
        assert_eq!(published["keys"][0]["x"], "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
        assert!(ring.verify(&ring.sign(&user(), Uuid::nil(), now()).unwrap()).await.is_ok());
    }

    #[tokio::test]
    async fn a_shared_secret_works_but_must_be_long() {
        let secret = |text: &str| Keyring::shared_secret(&text.to_owned().into(), Clock::manual(now()).0);
        assert!(matches!(secret("short"), Err(KeyError::ShortSecret)));
        let ring = secret(&"x".repeat(32)).unwrap();
        let token = ring.sign(&user(), Uuid::nil(), now()).unwrap();
        assert!(ring.verify(&token).await.is_ok());
        assert_eq!(serde_json::to_string(ring.public_keys()).unwrap(), r#"{"keys":[]}"#);
        let eddsa = self::ring(&pem());
        assert_eq!(eddsa.verify(&token).await, Err(TokenRefused));
        let token = eddsa.sign(&user(), Uuid::nil(), now()).unwrap();
        assert_eq!(ring.verify(&token).await, Err(TokenRefused));
    }
}
