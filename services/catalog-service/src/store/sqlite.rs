//! The embedded document store: one SQLite file under `EMBEDDED_DIR`, shared by all replicas.

use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use service_kit::sqlite::{Pool, SqliteError};
use uuid::Uuid;

use super::statements::{self, SqlError, keys};
use super::{Claim, Claimed, Inserted, ProductStore, Replaced, StoreError, Stored, Write};
use crate::event::Event;
use crate::product::{Owner, Product};
use crate::search::Search;

/// Connections of one replica. Writers queue behind each other whatever their number; the rest read beside them.
const CONNECTIONS: usize = 8;

/// Documents in SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    pool: Pool,
}

impl SqliteStore {
    /// Opens the store under `EMBEDDED_DIR` and makes its tables where they are missing.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened or written.
    pub async fn open(embedded: &Path) -> Result<Self, StoreError> {
        let store =
            Self { pool: Pool::new("mongodb", &embedded.join("mongodb").join("catalog.db"), CONNECTIONS) };
        store.read("open the catalog", statements::create_tables).await?;
        Ok(store)
    }

    /// The pool behind the store, for metrics.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, SqlError> + Send + 'static,
    {
        self.pool.call(move |connection| work(connection)).await.map_err(|error| classify(operation, error))
    }

    async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, SqlError> + Send + 'static,
    {
        self.pool.write(work).await.map_err(|error| classify(operation, error))
    }
}

/// Tells what may pass from what will not.
fn classify(operation: &'static str, error: SqlError) -> StoreError {
    match error {
        SqlError::Backlog(product) => StoreError::Backlog { operation, product },
        SqlError::Document(source) => StoreError::Failed { operation, source: source.into() },
        SqlError::Database(source) => match source {
            SqliteError::Open { .. } | SqliteError::Folder { .. } | SqliteError::Lost { .. } => {
                StoreError::Unavailable { operation, source: source.into() }
            }
            _ if source.is_busy() => StoreError::Unavailable { operation, source: source.into() },
            _ => StoreError::Failed { operation, source: source.into() },
        },
    }
}

#[async_trait]
impl ProductStore for SqliteStore {
    async fn insert(&self, write: Write) -> Result<Inserted, StoreError> {
        self.write("store a new product", move |transaction| statements::insert(transaction, &write)).await
    }

    async fn replace(&self, write: Write, expected: u64) -> Result<Replaced, StoreError> {
        self.write("change a product", move |transaction| statements::replace(transaction, &write, expected))
            .await
    }

    async fn find(&self, owner: &Owner, id: Uuid) -> Result<Option<Product>, StoreError> {
        let owner = owner.clone();
        self.read("read a product", move |connection| statements::find(connection, &owner, id)).await
    }

    async fn find_item(&self, ml_item_id: &str) -> Result<Option<Stored>, StoreError> {
        let ml_item_id = ml_item_id.to_owned();
        self.read("read the product of an item", move |connection| {
            statements::find_item(connection, &ml_item_id)
        })
        .await
    }

    async fn search(&self, owner: &Owner, search: &Search) -> Result<Vec<Product>, StoreError> {
        let (owner, search) = (owner.clone(), search.clone());
        self.read("search products", move |connection| statements::search(connection, &owner, &search)).await
    }

    async fn unpublished(&self, max: usize) -> Result<Vec<(Uuid, Event)>, StoreError> {
        self.read("read pending events", move |connection| statements::unpublished(connection, max)).await
    }

    async fn mark_published(&self, events: Vec<(Uuid, Uuid)>) -> Result<(), StoreError> {
        self.write("forget published events", move |transaction| {
            statements::mark_published(transaction, &events)
        })
        .await
    }

    async fn erase(&self, owner: &Owner, until: Timestamp) -> Result<usize, StoreError> {
        let owner = owner.clone();
        self.write("erase a user's products", move |transaction| {
            statements::erase(transaction, &owner, until)
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.write("sweep expired products", move |transaction| statements::sweep(transaction, now)).await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Claimed, StoreError> {
        let (owner, claim) = (owner.clone(), claim.clone());
        self.write("claim an idempotency key", move |transaction| keys::claim(transaction, &owner, &claim))
            .await
    }

    async fn answer(&self, owner: &Owner, key: &str, product: &Product) -> Result<(), StoreError> {
        let (owner, key, product) = (owner.clone(), key.to_owned(), product.clone());
        self.write("keep the answer of an idempotency key", move |transaction| {
            keys::answer(transaction, &owner, &key, &product)
        })
        .await
    }

    async fn give_back(&self, owner: &Owner, key: &str, now: Timestamp) -> Result<(), StoreError> {
        let (owner, key) = (owner.clone(), key.to_owned());
        self.write("give an idempotency key back", move |transaction| {
            keys::set_until(transaction, &owner, &key, now)
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
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write("take a lease", move |transaction| {
            statements::lease(transaction, &name, &holder, now, until)
        })
        .await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write("release a lease", move |transaction| statements::release(transaction, &name, &holder))
            .await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read("reach the catalog", statements::check).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::contract;

    #[tokio::test]
    async fn the_embedded_store_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::sync::atomic::AtomicU32::new(0);
        contract::run(|| {
            let number = opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = folder.path().join(number.to_string());
            async move { Arc::new(SqliteStore::open(&path).await.unwrap()) as Arc<dyn ProductStore> }
        })
        .await;
    }

    #[tokio::test]
    async fn two_replicas_share_the_file_and_a_second_start_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let one = SqliteStore::open(folder.path()).await.unwrap();
        assert!(one.lease("background", "one", Timestamp::UNIX_EPOCH, Timestamp::MAX).await.unwrap());
        let two = SqliteStore::open(folder.path()).await.unwrap();
        assert!(!two.lease("background", "two", Timestamp::UNIX_EPOCH, Timestamp::MAX).await.unwrap());
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_unavailable_and_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = SqliteStore::open(file.path()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { operation: "open the catalog", .. }), "{error:?}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("catalog.db"), "{source}");
    }
}
