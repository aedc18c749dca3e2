//! Which MercadoLibre account is whose, remembered for a moment: a cached item then costs no question to the database.
//!
//! Another replica may have connected or disconnected the account meanwhile, so what is remembered lives no longer than
//! the process's copy of an item, whose staleness it adds to. Whatever writes, refreshes or lists asks the database.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use uuid::Uuid;

use crate::error::Error;
use crate::store::Store;

/// How long an answer is believed.
const LIFE: Duration = Duration::from_secs(5);
const CAPACITY: u64 = 100_000;

/// See the module.
pub struct Owners {
    store: Arc<dyn Store>,
    seen: Cache<Uuid, u64>,
}

impl Owners {
    /// Over the database.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, seen: Cache::builder().max_capacity(CAPACITY).time_to_live(LIFE).build() }
    }

    /// The MercadoLibre user of one of ours; nobody's account is never remembered.
    ///
    /// # Errors
    /// [`Error::NotConnected`], or the database's.
    pub async fn of(&self, user_id: Uuid) -> Result<u64, Error> {
        if let Some(seen) = self.seen.get(&user_id).await {
            return Ok(seen);
        }
        let account = self.store.account(user_id).await?.ok_or(Error::NotConnected)?;
        self.seen.insert(user_id, account.ml_user_id).await;
        Ok(account.ml_user_id)
    }

    /// Forgets what was remembered of a user whose account changes.
    pub async fn forget(&self, user_id: Uuid) {
        self.seen.invalidate(&user_id).await;
    }
}
