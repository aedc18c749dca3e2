//! The embedded database: the SQLite file that `DATABASE_URL` names, shared by all replicas and with other services.

use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use service_kit::sqlite::{Pool, SqliteError};

use super::statements;
use super::{AnalyticsStore, Applied, Batch, DeadLetter, Partition, Retention, StoreError};
use crate::event::Owner;
use crate::fold::Total;
use crate::query::{HourCount, Range};

/// Connections of one replica.
const CONNECTIONS: usize = 4;

/// The tables that the migrations of this service make.
pub(super) const TABLES: &[&str] = &[
    "analytics_positions",
    "analytics_assignments",
    "analytics_seen_events",
    "analytics_hours",
    "analytics_totals",
    "analytics_erased_users",
    "analytics_dead_events",
];

/// Counts in SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    pool: Pool,
}

impl SqliteStore {
    /// A store over the file at `path`. Opens nothing yet: the file may still have to be migrated.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { pool: Pool::new("postgresql", path, CONNECTIONS) }
    }

    /// The pool behind the store, for metrics and the startup check.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let done = self.pool.call(move |connection| work(connection).map_err(SqliteError::from)).await;
        done.map_err(|error| classify(operation, error))
    }

    async fn write<T, F>(&self, operation: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let done = self.pool.write(move |transaction| work(transaction).map_err(SqliteError::from)).await;
        done.map_err(|error| classify(operation, error))
    }
}

/// Tells what may pass from what will not, and both from a missing migration.
fn classify(operation: &'static str, error: SqliteError) -> StoreError {
    match &error {
        SqliteError::Open { .. } | SqliteError::Folder { .. } | SqliteError::Lost { .. } => {
            StoreError::Unavailable { operation, source: error.into() }
        }
        _ if error.is_busy() => StoreError::Unavailable { operation, source: error.into() },
        // SQLite has no code of its own for this.
        SqliteError::Statement(source) if source.to_string().contains("no such table") => {
            StoreError::NotMigrated { operation }
        }
        _ => StoreError::Failed { operation, source: error.into() },
    }
}

#[async_trait]
impl AnalyticsStore for SqliteStore {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(TABLES).await
    }

    async fn position(&self, partition: &Partition) -> Result<u64, StoreError> {
        let partition = partition.clone();
        self.read("read the consumer's position", move |connection| {
            statements::position(connection, &partition)
        })
        .await
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, StoreError> {
        self.write("store the effect of events", move |transaction| statements::apply(transaction, &batch))
            .await
    }

    async fn assign(
        &self,
        partition: &Partition,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let (partition, holder) = (partition.clone(), holder.to_owned());
        self.write("take a partition", move |transaction| {
            statements::assign(transaction, &partition, &holder, now, until)
        })
        .await
    }

    async fn unassign(&self, partition: &Partition, holder: &str) -> Result<(), StoreError> {
        let (partition, holder) = (partition.clone(), holder.to_owned());
        self.write("give a partition back", move |transaction| {
            statements::unassign(transaction, &partition, &holder)
        })
        .await
    }

    async fn totals(&self, owner: &Owner) -> Result<Vec<(String, Total)>, StoreError> {
        let owner = owner.clone();
        self.read("read a user's totals", move |connection| statements::totals(connection, &owner)).await
    }

    async fn hours(&self, owner: &Owner, range: Range) -> Result<Vec<HourCount>, StoreError> {
        let owner = owner.clone();
        self.read("read a user's hours", move |connection| statements::hours(connection, &owner, range)).await
    }

    async fn dead_letters(&self, max: u32) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        self.read("read dead letters", move |connection| statements::dead_letters(connection, max)).await
    }

    async fn prune(&self, retention: Retention) -> Result<usize, StoreError> {
        self.write("prune old rows", move |transaction| statements::prune(transaction, &retention)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.read("reach the database", statements::check).await
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::contract;

    fn migrations() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite")
    }

    #[tokio::test]
    async fn the_embedded_store_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let opened = AtomicU32::new(0);
        contract::run(|| {
            let path = folder.path().join(format!("{}.db", opened.fetch_add(1, Ordering::Relaxed)));
            service_kit::testing::migrate(&path, &migrations()).unwrap();
            async move { Arc::new(SqliteStore::new(&path)) as Arc<dyn AnalyticsStore> }
        })
        .await;
    }

    #[tokio::test]
    async fn the_migrations_make_the_tables_and_take_them_away_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database.db");
        let store = SqliteStore::new(&path);
        assert!(matches!(store.check().await, Err(StoreError::NotMigrated { .. })));
        assert!(store.pool().has_tables(TABLES).await.is_err());
        service_kit::testing::migrate(&path, &migrations()).unwrap();
        store.pool().has_tables(TABLES).await.unwrap();
        store.check().await.unwrap();
        service_kit::testing::migrate_down(&path, &migrations()).unwrap();
        let left = store.read("list", |connection| {
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(left.await.unwrap(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_unavailable() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = SqliteStore::new(&file.path().join("database.db")).check().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}
