//! What integration-service keeps: accounts, the webhook inbox and listing intents in the database, limits and
//! caches in the shared state store. Two traits, because in clusters they are two servers.

mod inbox;
mod intents;
mod postgres;
mod sqlite;
mod state_redis;
mod state_sqlite;

#[cfg(test)]
mod contract;
#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::limiter::gcra::{Bucket, Rate};

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;
pub use state_redis::{RedisCache, RedisLimits};
pub use state_sqlite::SqliteState;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct StoreError {
    /// What was attempted, e.g. `read the account`.
    pub operation: &'static str,
    /// True when trying again later may help.
    pub busy: bool,
    /// Why not.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A connected account as it is stored; tokens stay sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Our user.
    pub user_id: Uuid,
    /// Its tenant.
    pub tenant: String,
    /// MercadoLibre's user.
    pub ml_user_id: u64,
    /// The current pair.
    pub tokens: SealedTokens,
    /// Moves on with every new pair.
    pub version: u64,
    /// Why the person must connect again.
    pub reauth_reason: Option<String>,
}

/// A sealed pair of tokens and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedTokens {
    /// Sealed for the column `access_token`.
    pub access: String,
    /// Sealed for the column `refresh_token`.
    pub refresh: String,
    /// When it was issued.
    pub issued_at: Millis,
    /// When the access token dies.
    pub expires_at: Millis,
}

/// What linking an account led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The user had no account.
    New,
    /// The user had one; it was replaced.
    Replaced,
    /// The MercadoLibre account belongs to this other user; nothing was changed.
    Elsewhere(Box<Account>),
}

/// Who may refresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshClaim {
    /// The caller, with this account, until the lease ends.
    Claimed(Box<Account>),
    /// Somebody else is at it.
    Busy,
    /// The account moved on since it was read.
    Moved,
    /// A refresh was begun and never ended: whether the single-use token was spent is unknown.
    Interrupted,
    /// There is no such account.
    Gone,
}

/// A notification as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// MercadoLibre's id of it.
    pub id: String,
    /// e.g. `items`.
    pub topic: String,
    /// e.g. `/items/MLA1`.
    pub resource: String,
    /// Whose.
    pub ml_user_id: u64,
    /// The whole body.
    pub payload: String,
    /// When it came.
    pub received_at: Millis,
}

/// A notification that was claimed for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The notification.
    pub notification: Notification,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// How work on a notification ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Worked in.
    Done,
    /// Not now: due again then.
    Later(Millis, String),
    /// Given up, with the reason.
    Dead(String),
}

/// What beginning a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: send it.
    Fresh,
    /// An earlier try that may have got through: look before sending.
    Doubtful,
    /// The answer of an earlier try.
    Done {
        /// Its status.
        status: u16,
        /// Its body.
        answer: String,
    },
    /// An earlier try that is under way.
    InFlight,
    /// The key was used for another request.
    OtherRequest,
}

/// A listing to begin.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Who lists.
    pub user_id: Uuid,
    /// Idempotency key.
    pub key: String,
    /// Hash of the request's body.
    pub request_hash: String,
    /// By which an uncertain listing is found again.
    pub seller_sku: Option<String>,
}

/// The database.
#[async_trait]
pub trait Store: Send + Sync {
    /// Whether the tables exist; a sentence when not.
    async fn migrated(&self) -> Result<(), String>;
    /// Whether the database answers; a sentence when not.
    async fn reachable(&self) -> Result<(), String>;

    /// Links a MercadoLibre account to a user, replacing the user's earlier one.
    async fn link(&self, account: Account, now: Millis) -> Result<Linked, StoreError>;
    /// The account of a user.
    async fn account(&self, user_id: Uuid) -> Result<Option<Account>, StoreError>;
    /// The account of a MercadoLibre user.
    async fn account_of_ml_user(&self, ml_user_id: u64) -> Result<Option<Account>, StoreError>;
    /// Forgets a user's account; what it was.
    async fn unlink(&self, user_id: Uuid) -> Result<Option<Account>, StoreError>;
    /// Claims the right to refresh the pair that has this version.
    async fn claim_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        now: Millis,
        lease_until: Millis,
    ) -> Result<RefreshClaim, StoreError>;
    /// Stores a new pair over the version it replaces and ends the claim; false when the account moved on.
    async fn commit_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        tokens: SealedTokens,
    ) -> Result<bool, StoreError>;
    /// Ends the claim without a new pair: the refresh token is known to be unspent.
    async fn release_refresh(&self, user_id: Uuid, version: u64) -> Result<(), StoreError>;
    /// Ends the claim: the person must connect again.
    async fn require_reauth(&self, user_id: Uuid, version: u64, reason: &str) -> Result<(), StoreError>;

    /// Stores a notification; false when its id was stored before. `work` = false keeps it for the record only.
    async fn receive(&self, notification: Notification, work: bool) -> Result<bool, StoreError>;
    /// Claims notifications that are due, oldest first, until `lease_until`.
    async fn claim_due(
        &self,
        now: Millis,
        lease_until: Millis,
        max: usize,
    ) -> Result<Vec<Claimed>, StoreError>;
    /// Notes how work on these ended.
    async fn settle(&self, ids: Vec<String>, settled: Settled) -> Result<(), StoreError>;
    /// How many wait, due or not.
    async fn waiting(&self) -> Result<u64, StoreError>;

    /// Begins a listing, or says what became of an earlier one of the same key.
    async fn begin_listing(
        &self,
        intent: Intent,
        now: Millis,
        lease_until: Millis,
    ) -> Result<Begun, StoreError>;
    /// Stores the answer of a listing.
    async fn finish_listing(
        &self,
        user_id: Uuid,
        key: &str,
        status: u16,
        answer: &str,
    ) -> Result<(), StoreError>;
    /// Marks a listing whose outcome is unknown.
    async fn doubt_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError>;
    /// Forgets a listing that certainly was not carried out.
    async fn forget_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError>;

    /// Removes settled notifications and listings older than this.
    async fn purge(&self, before: Millis) -> Result<(), StoreError>;
}

/// One limit to take from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Take {
    /// e.g. `global`, `user:7`.
    pub key: String,
    /// The limit.
    pub rate: Rate,
    /// Calls of the burst to leave for others.
    pub reserve: u32,
}

/// What taking led to. All or none: a denial takes nothing from any limit. Times are the store's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// One call of each limit was taken.
    Granted {
        /// When, in microseconds since the Unix epoch.
        now_us: i64,
        /// The limits' new states, in order.
        buckets: Vec<Bucket>,
    },
    /// The limit at this position has no room for so many microseconds.
    Denied {
        /// When, in microseconds since the Unix epoch.
        now_us: i64,
        /// Position of the limit.
        position: usize,
        /// How long until it had room.
        wait_us: i64,
    },
    /// The store does not count yet: it lost what it knew, or all were away from it.
    Closed {
        /// How long it will not, in microseconds.
        for_us: i64,
    },
}

/// Calls that a process granted without the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The limit's key.
    pub key: String,
    /// The limit.
    pub rate: Rate,
    /// How many.
    pub calls: u32,
}

/// What coming back to the store led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejoined {
    /// It counts.
    Open,
    /// It does not yet.
    Closed {
        /// How long it will not, in microseconds.
        for_us: i64,
    },
}

/// A cached value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The value as text.
    pub value: String,
    /// Fresh until then.
    pub soft_until: Millis,
    /// Usable in need until then.
    pub hard_until: Millis,
}

/// What a process hears of the cache from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The value of this key was invalidated.
    Dropped(String),
    /// Something may have been missed.
    Gap,
}

/// The limits that all replicas take from. The store's clock decides.
#[async_trait]
pub trait LimitStore: Send + Sync {
    /// Whether the store answers; a sentence when not.
    async fn reachable(&self) -> Result<(), String>;
    /// Takes one call from every limit, or from none.
    async fn take(&self, limits: Vec<Take>) -> Result<Taken, StoreError>;
    /// Comes back after this long without the store, and charges what was granted meanwhile.
    async fn rejoin(&self, away: Duration, owed: Vec<Owed>) -> Result<Rejoined, StoreError>;
    /// The time and the states of limits, by key and window.
    async fn buckets(&self, keys: Vec<(String, i64)>) -> Result<(i64, Vec<Bucket>), StoreError>;
    /// Removes what can no longer matter.
    async fn purge(&self, now: Millis) -> Result<(), StoreError>;
}

/// The cache that all replicas share. It may lose anything at any time, and must not bring back what was invalidated.
#[async_trait]
pub trait CacheStore: Send + Sync {
    /// Whether the store answers; a sentence when not.
    async fn reachable(&self) -> Result<(), String>;
    /// A cached value that is not past its hard limit, and the subject's epoch: give it to [`CacheStore::keep`].
    async fn cached(
        &self,
        key: &str,
        subject: &str,
        now: Millis,
    ) -> Result<(Option<Cached>, u64), StoreError>;
    /// Caches a value, unless the subject was invalidated since `epoch` was read; false then.
    async fn keep(
        &self,
        key: &str,
        subject: &str,
        epoch: u64,
        cached: Cached,
        now: Millis,
    ) -> Result<bool, StoreError>;
    /// Claims the refresh of a stale value until `lease_until`; false when somebody else has it.
    async fn claim_stale(&self, key: &str, now: Millis, lease_until: Millis) -> Result<bool, StoreError>;
    /// Drops every value of a subject, and those that are being loaded now; processes that listen hear of `key`.
    async fn invalidate(&self, key: &str, subject: &str, now: Millis) -> Result<(), StoreError>;
    /// Tells what others invalidate, for ever; a store that cannot tell waits.
    async fn listen(&self, _heard: &(dyn Fn(Heard) + Send + Sync)) {
        std::future::pending::<()>().await;
    }
    /// Removes what can no longer matter.
    async fn purge(&self, now: Millis) -> Result<(), StoreError>;
}
