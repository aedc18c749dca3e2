//! What the catalog asks of its document store.
//!
//! The trait is cut to what MongoDB does atomically without multi-document transactions: every write touches one
//! document, whose pending events lie inside it. The module `contract` is one test suite for all adapters.

#[cfg(test)]
pub mod contract;
pub mod mongo;
pub mod sqlite;
mod statements;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use crate::event::Event;
use crate::product::{Owner, Product};
use crate::search::Search;

/// Events that one document may hold unpublished. A hundred changes of one product without a working event log mean
/// that the log is down; then writes are refused rather than a document grown without bound.
pub const PENDING_EVENTS_MAX: usize = 100;

/// A document as read: a product and what the store keeps beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whose product it is.
    pub owner: Owner,
    /// The product, or the last state of a deleted one.
    pub product: Product,
    /// When the product was deleted; the document is then a tombstone, which no search finds.
    pub deleted_at: Option<Timestamp>,
}

/// One write of one document.
#[derive(Clone, Debug)]
pub struct Write {
    /// The document's new state.
    pub stored: Stored,
    /// When [`ProductStore::sweep`] may remove the document; `None` keeps it.
    pub expires_at: Option<Timestamp>,
    /// The event to keep beside it until it is published.
    pub event: Option<Event>,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The document is stored.
    Done,
    /// Another document, perhaps a tombstone, mirrors the same MercadoLibre item.
    ItemTaken,
    /// There is a document of this identity already.
    IdTaken,
    /// The owner's account was erased.
    OwnerErased,
}

/// A request to make a product, which takes effect once however often it comes under its key.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The key, as the client chose it; each owner has keys of its own.
    pub key: String,
    /// What the client asks for, in short: two requests are the same when these are.
    pub request: String,
    /// The identity of the product to be made, if nobody has begun to make one.
    pub product: Uuid,
    /// The moment of the request.
    pub now: Timestamp,
    /// When the request is given up for dead, if it left no answer.
    pub until: Timestamp,
    /// When the key is forgotten.
    pub forget_at: Timestamp,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Go on, and make the product of this identity: that of the first request, which perhaps made it before it died.
    Granted(Uuid),
    /// The same request is being worked on.
    InFlight,
    /// The key belongs to another request.
    OtherRequest,
    /// The request was answered with this product.
    Answered(Box<Product>),
}

/// What became of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The document is stored.
    Done,
    /// The store holds another version, or no such document: nothing was written.
    Stale,
}

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is out of reach, busy beyond its time limit, or out of connections: trying again can help.
    #[error("{operation}: the document store is not available")]
    Unavailable {
        /// What was attempted.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store refused or returned what this version cannot read: trying again cannot help.
    #[error("{operation}: the document store failed")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The product holds [`PENDING_EVENTS_MAX`] events that could not be published yet.
    #[error("{operation}: product {product} has {PENDING_EVENTS_MAX} events waiting for the event log")]
    Backlog {
        /// What was attempted.
        operation: &'static str,
        /// The product.
        product: Uuid,
    },
}

/// The document store of the catalog. One product is one document.
#[async_trait]
pub trait ProductStore: Send + Sync + 'static {
    /// Stores a new document.
    async fn insert(&self, write: Write) -> Result<Inserted, StoreError>;

    /// Stores a document in place of its version `expected`; the event joins those still pending.
    async fn replace(&self, write: Write, expected: u64) -> Result<Replaced, StoreError>;

    /// The owner's living product.
    async fn find(&self, owner: &Owner, id: Uuid) -> Result<Option<Product>, StoreError>;

    /// The document that mirrors a MercadoLibre item, whoever owns it, tombstone or not.
    async fn find_item(&self, ml_item_id: &str) -> Result<Option<Stored>, StoreError>;

    /// The owner's living products, newest first, at most `search.limit`.
    async fn search(&self, owner: &Owner, search: &Search) -> Result<Vec<Product>, StoreError>;

    /// Events not yet published, those of the longest waiting documents first; events of one product are in the order
    /// of its changes. About `max`; a document is never split.
    async fn unpublished(&self, max: usize) -> Result<Vec<(Uuid, Event)>, StoreError>;

    /// Forgets events (product, event) that the log has taken.
    async fn mark_published(&self, events: Vec<(Uuid, Uuid)>) -> Result<(), StoreError>;

    /// Removes every document of the owner, tombstones, pending events and idempotency keys too, and refuses its inserts
    /// until `until` (its tokens outlive the account by minutes). Answers how many documents went.
    async fn erase(&self, owner: &Owner, until: Timestamp) -> Result<usize, StoreError>;

    /// Removes documents that expire by `now` and wait for no event, forgets the keys whose time ends by `now`, and the
    /// erasures that do, with what came for their owners since. Answers how many documents expired.
    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError>;

    /// Claims an idempotency key of the owner. Of concurrent claims one is granted.
    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Claimed, StoreError>;

    /// Keeps the answer under a claimed key; the first one stays.
    async fn answer(&self, owner: &Owner, key: &str, product: &Product) -> Result<(), StoreError>;

    /// Lets the next claim of a key without an answer be granted from `now` on.
    async fn give_back(&self, owner: &Owner, key: &str, now: Timestamp) -> Result<(), StoreError>;

    /// Takes or renews the lease `name` for `holder` until `until`, if it is free or its own at `now`.
    async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Gives the lease back, if it is the holder's.
    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError>;

    /// Whether the store answers.
    async fn check(&self) -> Result<(), StoreError>;
}
