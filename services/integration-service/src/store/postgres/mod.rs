//! The database in PostgreSQL. Transactions are READ COMMITTED; whatever a decision rests on is locked by its row.

mod accounts;
mod inbox;
mod intents;

use async_trait::async_trait;
use service_kit::postgres::{Pool, PostgresError};
use sqlx::PgConnection;
use uuid::Uuid;

use super::sqlite::{TABLES, signed, unsigned};
use super::{
    Account, Begun, Claimed, Intent, Linked, Millis, Notification, RefreshClaim, SealedTokens, Settled,
    Store, StoreError,
};

/// The index that keeps one MercadoLibre account with one user.
const ONE_OWNER: &str = "ml_accounts_ml_user_id_key";

/// Accounts, inbox and listings in PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    pool: Pool,
}

impl PostgresStore {
    /// Over the connections of `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(PostgresError) -> StoreError {
    move |error| StoreError { operation, busy: error.is_busy(), source: error.into() }
}

/// Runs one statement on a connection of the pool.
macro_rules! on_connection {
    ($self:ident, $operation:literal, |$db:ident| $work:expr) => {{
        let work = async {
            let mut held = $self.pool.acquire().await?;
            let $db: &mut PgConnection = &mut held;
            $work.await
        };
        work.await.map_err(failed($operation))
    }};
}

/// Runs one transaction; an error rolls it back.
macro_rules! in_transaction {
    ($self:ident, $operation:literal, |$db:ident| $work:expr) => {{
        let work = async {
            let mut open = $self.pool.begin().await?;
            let $db: &mut PgConnection = &mut open;
            let value = $work.await?;
            open.commit().await?;
            Ok::<_, PostgresError>(value)
        };
        work.await.map_err(failed($operation))
    }};
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(TABLES).await
    }

    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn link(&self, account: Account, now: Millis) -> Result<Linked, StoreError> {
        let once = async || {
            let mut open = self.pool.begin().await?;
            let linked = accounts::link(&mut open, &account, now).await?;
            open.commit().await?;
            Ok::<_, PostgresError>(linked)
        };
        match once().await {
            // Somebody else linked it in between: now its row is there to be found.
            Err(error) if error.duplicate_of() == Some(ONE_OWNER) => once().await,
            done => done,
        }
        .map_err(failed("link the account"))
    }

    async fn account(&self, user_id: Uuid) -> Result<Option<Account>, StoreError> {
        on_connection!(self, "read the account", |db| accounts::of_user(db, user_id))
    }

    async fn account_of_ml_user(&self, ml_user_id: u64) -> Result<Option<Account>, StoreError> {
        on_connection!(self, "read the account", |db| accounts::of_ml_user(db, ml_user_id))
    }

    async fn unlink(&self, user_id: Uuid) -> Result<Option<Account>, StoreError> {
        in_transaction!(self, "unlink the account", |db| accounts::unlink(db, user_id))
    }

    async fn claim_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        now: Millis,
        lease_until: Millis,
    ) -> Result<RefreshClaim, StoreError> {
        in_transaction!(self, "claim the refresh of the tokens", |db| {
            accounts::claim_refresh(db, user_id, version, now, lease_until)
        })
    }

    async fn commit_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        tokens: SealedTokens,
    ) -> Result<bool, StoreError> {
        on_connection!(self, "store the new tokens", |db| {
            accounts::commit_refresh(db, user_id, version, &tokens)
        })
    }

    async fn release_refresh(&self, user_id: Uuid, version: u64) -> Result<(), StoreError> {
        on_connection!(self, "release the refresh of the tokens", |db| {
            accounts::end_refresh(db, user_id, version, None)
        })
    }

    async fn require_reauth(&self, user_id: Uuid, version: u64, reason: &str) -> Result<(), StoreError> {
        on_connection!(self, "mark the account for a new connection", |db| {
            accounts::end_refresh(db, user_id, version, Some(reason))
        })
    }

    async fn receive(&self, notification: Notification, work: bool) -> Result<bool, StoreError> {
        on_connection!(self, "store the notification", |db| inbox::receive(db, &notification, work))
    }

    async fn claim_due(
        &self,
        now: Millis,
        lease_until: Millis,
        max: usize,
    ) -> Result<Vec<Claimed>, StoreError> {
        on_connection!(self, "claim notifications", |db| inbox::claim_due(db, now, lease_until, max))
    }

    async fn settle(&self, ids: Vec<String>, settled: Settled) -> Result<(), StoreError> {
        on_connection!(self, "settle notifications", |db| inbox::settle(db, &ids, &settled))
    }

    async fn waiting(&self) -> Result<u64, StoreError> {
        on_connection!(self, "count the notifications", |db| inbox::waiting(db))
    }

    async fn begin_listing(
        &self,
        intent: Intent,
        now: Millis,
        lease_until: Millis,
    ) -> Result<Begun, StoreError> {
        in_transaction!(self, "begin the listing", |db| intents::begin(db, &intent, now, lease_until))
    }

    async fn finish_listing(
        &self,
        user_id: Uuid,
        key: &str,
        status: u16,
        answer: &str,
    ) -> Result<(), StoreError> {
        on_connection!(self, "store the answer of the listing", |db| {
            intents::finish(db, user_id, key, status, answer)
        })
    }

    async fn doubt_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError> {
        on_connection!(self, "mark the listing as doubtful", |db| intents::doubt(db, user_id, key))
    }

    async fn forget_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError> {
        on_connection!(self, "forget the listing", |db| intents::forget(db, user_id, key))
    }

    async fn purge(&self, before: Millis) -> Result<(), StoreError> {
        on_connection!(self, "purge old notifications and listings", |db| async {
            inbox::purge(&mut *db, before).await?;
            intents::purge(db, before).await
        })
    }
}
