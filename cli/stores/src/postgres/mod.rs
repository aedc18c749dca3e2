//! PostgreSQL databases.
//!
//! One runner at a time works on a database: it holds an advisory lock of its session, which the server gives back when
//! the session ends in whatever way. Each migration is one transaction together with its record. A file that says
//! `-- mlctl: no-transaction` at its head holds statements that refuse that, such as `CREATE INDEX CONCURRENTLY`: they
//! run one by one, each must be one that can be repeated, and the record is written after the last of them. Reading
//! creates nothing.

mod connection;
mod history;
mod runner;
mod script;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlctl_core::clock::Clock;
use mlctl_core::item::Item;
use mlctl_core::ports::{Lease, MigrationState, StoreAdmin, StoreError};

use crate::migration::MigrationSet;
use connection::{Address, Attempt};
use runner::Runner;

/// How long a runner waits for another one, and a statement for a lock, before it gives up. Long enough for a busy
/// table, short enough for those who queue behind us.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs migrations on PostgreSQL databases named by `postgresql://USER[:PASSWORD]@HOST[:PORT]/NAME`.
#[derive(Clone)]
pub struct PostgresStore {
    clock: Arc<dyn Clock>,
    busy_timeout: Duration,
}

impl PostgresStore {
    /// Returns a store that dates its records by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, busy_timeout: BUSY_TIMEOUT }
    }

    /// Changes how long to wait for another runner, and for locks of others; 5 s unless told.
    #[must_use]
    pub const fn with_lock_wait(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Says whether an address is of a database that this store works on.
    #[must_use]
    pub fn knows(url: &str) -> bool {
        url.starts_with("postgresql://") || url.starts_with("postgres://")
    }

    fn runner(&self, item: &Item, operation: &'static str) -> Result<Runner, StoreError> {
        let set = MigrationSet::of(item, operation)?;
        let address = Address::parse(&set.url).map_err(|reason| StoreError {
            operation,
            subject: set.service.clone(),
            reason,
            unreachable: false,
        })?;
        let attempt = Attempt {
            operation,
            subject: set.service.clone(),
            address: Arc::new(address),
            busy_timeout: self.busy_timeout,
        };
        Ok(Runner { set, attempt, clock: Arc::clone(&self.clock) })
    }
}

#[async_trait]
impl StoreAdmin for PostgresStore {
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError> {
        self.runner(migration, "read the migrations of")?.states().await
    }

    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        self.runner(migration, "migrate")?.migrate(lease).await
    }

    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError> {
        self.runner(migration, "roll back")?.roll_back(steps, lease).await
    }
}
