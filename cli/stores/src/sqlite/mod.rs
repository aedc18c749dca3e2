//! SQLite databases: the embedded target's place for what clusters keep in PostgreSQL.
//!
//! Migrations run with foreign keys off and are checked before they commit, which is how SQLite says tables are to
//! be rebuilt (<https://sqlite.org/lang_altertable.html#otheralter>): with keys on, dropping the old table would
//! delete the rows that refer to it. Reading never creates a database or a table.

mod connection;
mod consent;
mod history;
mod holder;
mod runner;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlctl_core::clock::Clock;
use mlctl_core::item::Item;
use mlctl_core::ports::{Lease, MigrationState, StoreAdmin, StoreError};

use crate::migration::MigrationSet;
use consent::{Consent, consent};
use runner::Runner;

/// How long a writer waits for another one before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs migrations on SQLite databases named by `sqlite:PATH`.
#[derive(Clone)]
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
}

impl SqliteStore {
    /// Returns a store that dates its records by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, busy_timeout: BUSY_TIMEOUT }
    }

    /// Changes how long to wait for another writer; 5 s unless told.
    #[must_use]
    pub const fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Runs blocking work on one item's database, off the runtime's own threads.
    async fn with_runner<T: Send + 'static>(
        &self,
        item: &Item,
        operation: &'static str,
        work: impl FnOnce(&Runner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let set = MigrationSet::of(item, operation)?;
        let path = database_path(&set, operation)?;
        let runner =
            Runner { set, path, operation, clock: Arc::clone(&self.clock), busy_timeout: self.busy_timeout };
        let subject = item.id.to_string();
        tokio::task::spawn_blocking(move || work(&runner)).await.unwrap_or_else(|error| {
            Err(StoreError {
                operation,
                subject,
                reason: format!("the work on the database broke off ({error})"),
                unreachable: false,
            })
        })
    }
}

#[async_trait]
impl StoreAdmin for SqliteStore {
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError> {
        self.with_runner(migration, "read the migrations of", Runner::states).await
    }

    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let work =
            |consent: Consent| self.with_runner(migration, "migrate", move |runner| runner.migrate(&consent));
        consent(lease, work).await
    }

    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError> {
        let work = |consent: Consent| {
            self.with_runner(migration, "roll back", move |runner| runner.roll_back(steps, &consent))
        };
        consent(lease, work).await
    }
}

fn database_path(set: &MigrationSet, operation: &'static str) -> Result<PathBuf, StoreError> {
    match set.url.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() && path != ":memory:" => Ok(PathBuf::from(path)),
        _ => {
            // A URL may carry a password, so only its scheme is told.
            let scheme = set.url.split_once(':').map_or("", |(scheme, _)| scheme);
            Err(StoreError {
                operation,
                subject: set.service.clone(),
                reason: format!("its database is `{scheme}:...`, and migrations run on `sqlite:PATH`"),
                unreachable: false,
            })
        }
    }
}
