//! What the service remembers, as two seams: [`AccountStore`] (PostgreSQL's place) for people, sessions and consents,
//! [`ThrottleStore`] (Redis' place) for failures that all replicas count together. `tests/contract` holds what every
//! adapter must show.

mod embedded_throttle;
mod postgres;
mod redis_throttle;
mod sqlite;

pub use embedded_throttle::EmbeddedThrottle;
pub use postgres::PostgresAccounts;
pub use redis_throttle::RedisThrottle;
pub use sqlite::SqliteAccounts;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::account::{Email, Tenant, User};
use crate::random::TokenHash;
use crate::throttle::{Tally, ThrottleKey};

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another user registered this e-mail before.
    #[error("cannot create the user: the e-mail is taken")]
    EmailTaken,
    /// The database said no, or nothing.
    #[error("cannot {operation}")]
    Database {
        /// What was attempted, on what.
        operation: &'static str,
        /// The adapter's own error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A user to create, with the session that begins with the registration.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Who.
    pub user: User,
    /// PHC string.
    pub password_hash: String,
}

/// What a login compares.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The account with this e-mail.
    pub user: User,
    /// PHC string.
    pub password_hash: String,
}

/// A sign-in to begin: a session and its first refresh token.
#[derive(Debug, Clone, Copy)]
pub struct NewSession {
    /// Identity of the session, the `sid` of its access tokens.
    pub id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// Hash of the first refresh token.
    pub token: TokenHash,
    /// When that token ends.
    pub expires_at: Timestamp,
}

/// The outcome of presenting a refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// The token was good and is now used; its successor is stored.
    Rotated {
        /// The session, unchanged.
        session_id: Uuid,
        /// Its user, as of now.
        user: User,
    },
    /// The token had been used before. Somebody holds a copy, so the whole session is revoked.
    Reused {
        /// The session that is revoked.
        session_id: Uuid,
    },
    /// Unknown, expired or of a revoked session.
    Refused,
}

/// A consent that was started and waits for MercadoLibre to send the browser back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingConnection {
    /// Hash of the state that comes back.
    pub state: TokenHash,
    /// Who started it.
    pub user_id: Uuid,
    /// In which sign-in; a revoked one takes its pending consents along.
    pub session_id: Uuid,
    /// Hash of the cookie of the browser it was started in; none in one that an older version started.
    pub browser: Option<TokenHash>,
    /// The PKCE verifier, sealed under the state.
    pub sealed_verifier: Vec<u8>,
    /// When it is too late.
    pub expires_at: Timestamp,
}

/// Work that remains when a user is gone; done at least once each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// Identity of the work, and of the event it publishes.
    pub id: Uuid,
    /// The user that was removed.
    pub user_id: Uuid,
    /// What to do.
    pub task: FollowUpTask,
}

/// The kinds of [`FollowUp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUpTask {
    /// Ask integration-service to drop the user's MercadoLibre account and tokens.
    Disconnect,
    /// Tell the other services by this event.
    Publish(serde_json::Value),
}

/// A follow-up handed out to be done, and how often that was tried before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedFollowUp {
    /// The work.
    pub follow_up: FollowUp,
    /// Earlier attempts.
    pub attempts: u32,
}

/// People, sessions, consents and follow-ups. Every method is one transaction.
#[async_trait]
pub trait AccountStore: Send + Sync + 'static {
    /// Whether the migrations have made what this store needs; the error says what is missing, for `/startupz`.
    async fn migrated(&self) -> Result<(), String>;

    /// Whether the store answers; the error says why not, for `/readyz`.
    async fn reachable(&self) -> Result<(), String>;

    /// Creates a user and their first session. `EmailTaken` if the address is known in any tenant.
    async fn create_user(&self, user: NewUser, session: NewSession) -> Result<(), StoreError>;

    /// Finds an account by e-mail.
    async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, StoreError>;

    /// Finds a user.
    async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError>;

    /// Replaces a password hash, unless it changed since `expected` was read.
    async fn replace_password_hash(&self, id: Uuid, expected: &str, new: &str) -> Result<(), StoreError>;

    /// Removes a user with all sessions and pending consents and records what follows. False if there is none.
    async fn delete_user(
        &self,
        id: Uuid,
        now: Timestamp,
        follow_ups: Vec<FollowUp>,
    ) -> Result<bool, StoreError>;

    /// Begins a session. False if the user is gone meanwhile.
    async fn begin_session(&self, session: NewSession, now: Timestamp) -> Result<bool, StoreError>;

    /// Uses a refresh token up and stores its successor; of concurrent callers exactly one succeeds.
    async fn rotate(
        &self,
        presented: TokenHash,
        next: TokenHash,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation, StoreError>;

    /// Revokes the session that a refresh token belongs to, used or not. An unknown token is no error.
    async fn end_session(&self, presented: TokenHash, now: Timestamp) -> Result<(), StoreError>;

    /// Whether a session exists and was not revoked.
    async fn session_is_live(&self, id: Uuid) -> Result<bool, StoreError>;

    /// Stores a consent that begins.
    async fn save_connection(&self, pending: PendingConnection) -> Result<(), StoreError>;

    /// Takes a consent out of the store, so that its state works once; `None` if unknown, late, or of a revoked session.
    async fn take_connection(
        &self,
        state: TokenHash,
        now: Timestamp,
    ) -> Result<Option<(PendingConnection, Tenant)>, StoreError>;

    /// Notes or forgets the connected MercadoLibre account.
    async fn set_ml_user(&self, user_id: Uuid, ml_user_id: Option<i64>) -> Result<(), StoreError>;

    /// Hands out follow-ups that are due, oldest first, and keeps them from others until `lease_until`.
    async fn claim_follow_ups(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedFollowUp>, StoreError>;

    /// Strikes a follow-up off.
    async fn finish_follow_up(&self, id: Uuid) -> Result<(), StoreError>;

    /// Puts a follow-up off until `due_at`.
    async fn postpone_follow_up(&self, id: Uuid, due_at: Timestamp) -> Result<(), StoreError>;

    /// Removes expired refresh tokens, sessions without any, and expired consents; returns how many rows went.
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;
}

/// Failures, counted over all replicas.
#[async_trait]
pub trait ThrottleStore: Send + Sync + 'static {
    /// What is counted under each key, in one question.
    async fn tallies(&self, keys: &[ThrottleKey]) -> Result<Vec<Option<Tally>>, StoreError>;

    /// Counts one failure under each key; a count begins anew after its key's quiet time.
    async fn count_failures(&self, keys: &[ThrottleKey], now: Timestamp) -> Result<Vec<Tally>, StoreError>;

    /// Forgets a key.
    async fn forget(&self, key: &ThrottleKey) -> Result<(), StoreError>;
}
