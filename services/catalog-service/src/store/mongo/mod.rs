//! The document store on MongoDB, or on another server of its protocol.
//!
//! Every write changes one document and is atomic by that; there is no transaction over several. What depends on two
//! documents is in an order that a crash between them cannot spoil, told at each such place. An operation that has no
//! answer after its deadline fails as unavailable; whether it took effect is then unknown, as with any lost answer.

mod connection;
mod document;
mod indexes;
mod keys;
mod outbox;
mod owners;
mod products;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::{Collection, Database};
use secrecy::SecretString;
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use connection::MongoPool;

use self::document::ProductDocument;
use super::{Claim, Claimed, Inserted, ProductStore, Replaced, StoreError, Stored, Write};
use crate::event::Event;
use crate::product::{Owner, Product};
use crate::search::Search;

/// Longest operation. The driver waits for an answer without end, so a server that hangs would hold every request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest the server itself works on a read; it ends with the caller's patience.
const READ_TIME_MAX: Duration = Duration::from_secs(4);
/// Rounds of an operation that others' writes force to look again.
const ATTEMPTS: u32 = 10;

/// Codes of MongoDB that say "not now": a node that is stepping down, starting, shutting down or out of time.
/// <https://www.mongodb.com/docs/manual/reference/error-codes/>
const PASSING: [i32; 15] = [6, 7, 50, 64, 89, 91, 100, 112, 189, 262, 9001, 10107, 11600, 11602, 13435];
/// Code of a unique index that refused a document.
const DUPLICATE: i32 = 11000;

/// What an operation can fail with.
#[derive(Debug, thiserror::Error)]
enum MongoError {
    /// The driver or the server said no.
    #[error("the server did not do it")]
    Driver(#[from] Error),
    /// No answer came in time.
    #[error("no answer within {} ms", DEADLINE.as_millis())]
    Late,
    /// A stored document is not what this version writes.
    #[error("a stored document is unreadable")]
    Document(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Others changed the same document in every round.
    #[error("the document was changed by others {ATTEMPTS} times")]
    Contended,
    /// See [`StoreError::Backlog`].
    #[error("too many events wait for the event log")]
    Backlog(Uuid),
}

impl MongoError {
    fn unreadable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Document(source.into())
    }

    /// Whether trying again can help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Late | Self::Contended => true,
            Self::Document(_) | Self::Backlog(_) => false,
            Self::Driver(error) => {
                error.contains_label("RetryableWriteError")
                    || match &*error.kind {
                        ErrorKind::Io(_)
                        | ErrorKind::ServerSelection { .. }
                        | ErrorKind::ConnectionPoolCleared { .. }
                        | ErrorKind::DnsResolve { .. }
                        | ErrorKind::Shutdown => true,
                        ErrorKind::Command(error) => PASSING.contains(&error.code),
                        ErrorKind::Write(WriteFailure::WriteConcernError(_)) => true,
                        ErrorKind::Write(WriteFailure::WriteError(error)) => PASSING.contains(&error.code),
                        _ => false,
                    }
            }
        }
    }
}

/// Whether a unique index refused the document.
fn is_duplicate(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE,
        ErrorKind::Command(error) => error.code == DUPLICATE,
        _ => false,
    }
}

/// The collections.
#[derive(Clone)]
struct Collections {
    database: Database,
    products: Collection<ProductDocument>,
    erased: Collection<Document>,
    leases: Collection<Document>,
    keys: Collection<keys::KeyDocument>,
}

impl Collections {
    fn of(database: Database) -> Self {
        Self {
            products: database.collection("products"),
            erased: database.collection("erased_owners"),
            leases: database.collection("leases"),
            keys: database.collection("idempotency_keys"),
            database,
        }
    }
}

/// Documents in MongoDB.
pub struct MongoStore {
    collections: Collections,
    pool: Arc<MongoPool>,
    /// Filled once the indexes are known to be there.
    indexed: OnceCell<()>,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MongoStore({}, {:?})", self.collections.database.name(), self.pool)
    }
}

impl MongoStore {
    /// The store at `url`, over at most `size` connections. Connects when it is first used.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the address cannot be read.
    pub async fn new(url: &SecretString, size: u32) -> Result<Self, StoreError> {
        let (database, pool) = connection::open(url, size)
            .await
            .map_err(|error| StoreError::Failed { operation: "open the catalog", source: error.into() })?;
        Ok(Self { collections: Collections::of(database), pool, indexed: OnceCell::new() })
    }

    /// The pool behind the store, for metrics.
    #[must_use]
    pub fn pool(&self) -> &Arc<MongoPool> {
        &self.pool
    }

    /// Runs `work` with the collections, until the deadline.
    async fn run<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&Collections) -> Result<T, MongoError>,
    ) -> Result<T, StoreError> {
        let done = tokio::time::timeout(DEADLINE, work(&self.collections)).await;
        done.unwrap_or(Err(MongoError::Late)).map_err(|error| match error {
            MongoError::Backlog(product) => StoreError::Backlog { operation, product },
            error if error.is_passing() => StoreError::Unavailable { operation, source: error.into() },
            error => StoreError::Failed { operation, source: error.into() },
        })
    }

    /// Makes sure that the indexes are there. Whatever relies on a unique one asks first.
    async fn index(&self) -> Result<(), MongoError> {
        self.indexed
            .get_or_try_init(|| async {
                self.collections.products.create_indexes(indexes::of_products()).await?;
                self.collections.keys.create_indexes(indexes::of_keys()).await?;
                Ok(())
            })
            .await
            .copied()
    }
}

#[async_trait]
impl ProductStore for MongoStore {
    async fn insert(&self, write: Write) -> Result<Inserted, StoreError> {
        self.run("store a new product", async |collections| {
            self.index().await?;
            products::insert(collections, &write).await
        })
        .await
    }

    async fn replace(&self, write: Write, expected: u64) -> Result<Replaced, StoreError> {
        self.run("change a product", async |collections| {
            products::replace(collections, &write, expected).await
        })
        .await
    }

    async fn find(&self, owner: &Owner, id: Uuid) -> Result<Option<Product>, StoreError> {
        self.run("read a product", async |collections| products::find(collections, owner, id).await).await
    }

    async fn find_item(&self, ml_item_id: &str) -> Result<Option<Stored>, StoreError> {
        self.run("read the product of an item", async |collections| {
            products::find_item(collections, ml_item_id).await
        })
        .await
    }

    async fn search(&self, owner: &Owner, search: &Search) -> Result<Vec<Product>, StoreError> {
        self.run("search products", async |collections| products::search(collections, owner, search).await)
            .await
    }

    async fn unpublished(&self, max: usize) -> Result<Vec<(Uuid, Event)>, StoreError> {
        self.run("read pending events", async |collections| outbox::unpublished(collections, max).await).await
    }

    async fn mark_published(&self, events: Vec<(Uuid, Uuid)>) -> Result<(), StoreError> {
        self.run("forget published events", async |collections| {
            outbox::mark_published(collections, &events).await
        })
        .await
    }

    async fn erase(&self, owner: &Owner, until: Timestamp) -> Result<usize, StoreError> {
        self.run("erase a user's products", async |collections| {
            owners::erase(collections, owner, until).await
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.run("sweep expired products", async |collections| {
            owners::sweep(collections, now).await?;
            keys::sweep(collections, now).await?;
            products::sweep(collections, now).await
        })
        .await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Claimed, StoreError> {
        self.run("claim an idempotency key", async |collections| {
            self.index().await?;
            keys::claim(collections, owner, claim).await
        })
        .await
    }

    async fn answer(&self, owner: &Owner, key: &str, product: &Product) -> Result<(), StoreError> {
        self.run("keep the answer of an idempotency key", async |collections| {
            keys::answer(collections, owner, key, product).await
        })
        .await
    }

    async fn give_back(&self, owner: &Owner, key: &str, now: Timestamp) -> Result<(), StoreError> {
        self.run("give an idempotency key back", async |collections| {
            keys::give_back(collections, owner, key, now).await
        })
        .await
    }

    async fn lease(
        &self,
        name: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run("take a lease", async |collections| {
            let taken = collections
                .leases
                .update_one(
                    doc! {
                        "_id": name,
                        "$or": [{"holder": holder}, {"until": {"$lte": now.as_microsecond()}}],
                    },
                    doc! {"$set": {"holder": holder, "until": until.as_microsecond()}},
                )
                .upsert(true)
                .await;
            match taken {
                Ok(_) => Ok(true),
                // Another's lease does not match, so its identity stood in the way of a new one.
                Err(error) if is_duplicate(&error) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.run("give a lease back", async |collections| {
            collections.leases.delete_one(doc! {"_id": name, "holder": holder}).await?;
            Ok(())
        })
        .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.run("reach the catalog", async |collections| {
            collections.database.run_command(doc! {"ping": 1}).await?;
            self.index().await
        })
        .await
    }
}
