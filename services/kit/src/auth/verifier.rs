//! The verifying side of access tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::{Mutex, RwLock};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Claims, ISSUER, JWKS_PATH, KeySet, Principal, TOKEN_TYPE};
use crate::client::{Client, HttpUrl};
use crate::clock::Clock;
use crate::error::ApiError;

/// An unknown key id makes us ask for the keys again, but not more often than this: it is the client who chooses it.
const REFETCH_EVERY: Duration = Duration::from_secs(5);
/// After a fetch that failed, requests are told so at once for this long instead of each waiting for one of its own.
const GIVE_UP_FOR: Duration = Duration::from_secs(1);
/// How long one fetch of the keys may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How far clocks of two machines may differ, in seconds.
const LEEWAY: i64 = 5;
/// Verified tokens that are remembered.
const REMEMBERED: usize = 8192;
/// No honest token is longer; a longer one is not worth hashing.
const LONGEST_TOKEN: usize = 4096;

/// A token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not a token of ours: wrong form, signature, issuer, audience, type or algorithm.
    #[error("the access token is not valid")]
    Invalid,
    /// The token's time is over.
    #[error("the access token has expired")]
    Expired,
    /// The keys to check it with cannot be had at the moment.
    #[error("cannot fetch the keys that access tokens are checked with")]
    Keys {
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::unauthorized("invalid_token", "The access token is not valid."),
            AuthError::Expired => Self::unauthorized("token_expired", "The access token has expired."),
            AuthError::Keys { .. } => {
                Self::unavailable("keys_unavailable", "Access tokens cannot be checked now.", FETCH_TIMEOUT)
                    .with_source(error)
            }
        }
    }
}

/// Checks access tokens; cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    keys: RwLock<HashMap<String, DecodingKey>>,
    /// Set when a shared secret replaces the keys.
    secret: Option<DecodingKey>,
    source: Option<Source>,
    seen: Mutex<HashMap<[u8; 32], Seen>>,
    clock: Clock,
}

struct Source {
    client: Client,
    /// How the last question for the keys went; held while asking, so that a burst of requests asks once.
    asked: tokio::sync::Mutex<Asked>,
}

#[derive(Default)]
enum Asked {
    #[default]
    Never,
    Answered(Instant),
    Failed(Instant),
}

#[derive(Clone)]
struct Seen {
    principal: Principal,
    not_before: i64,
    expires: i64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "keys {:?}", self.keys.read().keys().collect::<Vec<_>>())
    }
}

impl Verifier {
    /// A verifier that fetches the keys from user-service when it needs them.
    #[must_use]
    pub fn fetching(user_service: HttpUrl, clock: Clock) -> Self {
        let client = Client::new(user_service, FETCH_TIMEOUT);
        Self::new(HashMap::new(), None, Some(Source { client, asked: tokio::sync::Mutex::default() }), clock)
    }

    /// A verifier with these keys and no others: user-service itself, and tests.
    #[must_use]
    pub fn with_keys(keys: &KeySet, clock: Clock) -> Self {
        Self::new(keys.decoding_keys(), None, None, clock)
    }

    /// A verifier with a shared secret (HS256).
    #[must_use]
    pub fn with_secret(secret: &SecretString, clock: Clock) -> Self {
        let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self::new(HashMap::new(), Some(key), None, clock)
    }

    fn new(
        keys: HashMap<String, DecodingKey>,
        secret: Option<DecodingKey>,
        source: Option<Source>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner { keys: RwLock::new(keys), secret, source, seen: Mutex::default(), clock }))
    }

    /// The user that a token was issued for.
    ///
    /// # Errors
    /// [`AuthError`], which says to clients no more than invalid or expired.
    pub async fn verify(&self, token: &str) -> Result<Principal, AuthError> {
        if token.len() > LONGEST_TOKEN {
            return Err(AuthError::Invalid);
        }
        let now = self.0.clock.now();
        let name: [u8; 32] = Sha256::digest(token).into();
        let seen = self.0.seen.lock().get(&name).cloned();
        let seen = match seen {
            Some(seen) => seen,
            None => {
                let seen = self.check(token).await?;
                in_time(&seen, now)?;
                self.remember(name, seen.clone(), now);
                seen
            }
        };
        in_time(&seen, now)?;
        Ok(seen.principal)
    }

    async fn check(&self, token: &str) -> Result<Seen, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
        let typed = header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case(TOKEN_TYPE));
        if !typed {
            return Err(AuthError::Invalid);
        }
        // The algorithm is ours to choose, never the token's: neither `none` nor a public key used as an HMAC secret.
        let (key, algorithm) = match &self.0.secret {
            Some(secret) => (secret.clone(), Algorithm::HS256),
            None => (self.key(&header.kid.ok_or(AuthError::Invalid)?).await?, Algorithm::EdDSA),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[ISSUER]);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
        // Time is checked by `in_time`, on our clock and again for remembered tokens.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|_| AuthError::Invalid)?.claims;
        let principal = Principal { user_id: claims.sub, tenant: claims.tenant };
        Ok(Seen { principal, not_before: claims.nbf, expires: claims.exp })
    }

    async fn key(&self, id: &str) -> Result<DecodingKey, AuthError> {
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let Some(source) = &self.0.source else { return Err(AuthError::Invalid) };
        let mut asked = source.asked.lock().await;
        // Somebody else may have fetched while we waited.
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        match &*asked {
            Asked::Answered(at) if at.elapsed() < REFETCH_EVERY => return Err(AuthError::Invalid),
            Asked::Failed(at) if at.elapsed() < GIVE_UP_FOR => {
                return Err(AuthError::Keys { source: "the last try failed a moment ago".into() });
            }
            _ => {}
        }
        let fetched = match fetch(&source.client).await {
            Ok(fetched) => fetched,
            Err(error) => {
                *asked = Asked::Failed(Instant::now());
                return Err(error);
            }
        };
        *asked = Asked::Answered(Instant::now());
        *self.0.keys.write() = fetched.decoding_keys();
        // A token signed with a key that was withdrawn must not live on in memory.
        self.0.seen.lock().clear();
        self.known(id).ok_or(AuthError::Invalid)
    }

    fn known(&self, id: &str) -> Option<DecodingKey> {
        self.0.keys.read().get(id).cloned()
    }

    fn remember(&self, name: [u8; 32], seen: Seen, now: Timestamp) {
        let mut all = self.0.seen.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, seen| seen.expires > now.as_second());
        }
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(name, seen);
    }
}

async fn fetch(client: &Client) -> Result<KeySet, AuthError> {
    let answer =
        client.get(JWKS_PATH, &[]).await.map_err(|source| AuthError::Keys { source: source.into() })?;
    if !answer.status.is_success() {
        let text = format!("{} answered {} to {JWKS_PATH}", client.url(), answer.status.as_u16());
        return Err(AuthError::Keys { source: text.into() });
    }
    answer.json().map_err(|source| AuthError::Keys { source: source.into() })
}

fn in_time(seen: &Seen, now: Timestamp) -> Result<(), AuthError> {
    let now = now.as_second();
    if now >= seen.expires.saturating_add(LEEWAY) {
        return Err(AuthError::Expired);
    }
    if now < seen.not_before.saturating_sub(LEEWAY) {
        return Err(AuthError::Invalid);
    }
    Ok(())
}
