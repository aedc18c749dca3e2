//! The database in SQLite: accounts. Inbox and intents are in the files beside.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use service_kit::sqlite::{Pool, SqliteError, Transaction};
use uuid::Uuid;

use super::{
    Account, Begun, Claimed, Intent, Linked, Millis, Notification, RefreshClaim, SealedTokens, Settled,
    Store, StoreError, inbox, intents,
};

/// Tables of the migrations.
pub(super) const TABLES: &[&str] = &["ml_accounts", "ml_webhook_inbox", "ml_item_intents"];

const COLUMNS: &str =
    "user_id, tenant, ml_user_id, access_token, refresh_token, issued_at, expires_at, version, reauth_reason";

/// The embedded database.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pool: Pool,
}

impl SqliteStore {
    /// Over the file that `DATABASE_URL` names.
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pool.call(work).await.map_err(|error| failed(operation, error))
    }

    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.pool.write(work).await.map_err(|error| failed(operation, error))
    }
}

pub(super) fn failed(operation: &'static str, error: SqliteError) -> StoreError {
    StoreError { operation, busy: error.is_busy(), source: error.into() }
}

/// A database's integers are signed; ids and versions of ours stay far below the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let user_id: String = row.get(0)?;
    let user_id = user_id.parse().map_err(|error: uuid::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })?;
    Ok(Account {
        user_id,
        tenant: row.get(1)?,
        ml_user_id: unsigned(row.get(2)?),
        tokens: SealedTokens {
            access: row.get(3)?,
            refresh: row.get(4)?,
            issued_at: row.get(5)?,
            expires_at: row.get(6)?,
        },
        version: unsigned(row.get(7)?),
        reauth_reason: row.get(8)?,
    })
}

fn find(
    connection: &Connection,
    condition: &str,
    value: impl rusqlite::ToSql,
) -> Result<Option<Account>, SqliteError> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM ml_accounts WHERE {condition} = ?1"))?;
    Ok(query.query_row([value], account).optional()?)
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(TABLES).await
    }

    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn link(&self, new: Account, now: Millis) -> Result<Linked, StoreError> {
        self.write("link the account", move |transaction| {
            if let Some(owner) = find(transaction, "ml_user_id", signed(new.ml_user_id))?
                && owner.user_id != new.user_id
            {
                return Ok(Linked::Elsewhere(Box::new(owner)));
            }
            let earlier = find(transaction, "user_id", new.user_id.to_string())?;
            // The version goes on from the earlier pair's, so that a refresh under way cannot overwrite the new one.
            let version = earlier.as_ref().map_or(1, |earlier| earlier.version + 1);
            transaction.execute(
                "INSERT OR REPLACE INTO ml_accounts (user_id, tenant, ml_user_id, access_token, refresh_token,
                 issued_at, expires_at, version, connected_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    new.user_id.to_string(),
                    new.tenant,
                    signed(new.ml_user_id),
                    new.tokens.access,
                    new.tokens.refresh,
                    new.tokens.issued_at,
                    new.tokens.expires_at,
                    signed(version),
                    now
                ],
            )?;
            Ok(if earlier.is_some() { Linked::Replaced } else { Linked::New })
        })
        .await
    }

    async fn account(&self, user_id: Uuid) -> Result<Option<Account>, StoreError> {
        self.read("read the account", move |connection| find(connection, "user_id", user_id.to_string()))
            .await
    }

    async fn account_of_ml_user(&self, ml_user_id: u64) -> Result<Option<Account>, StoreError> {
        self.read("read the account", move |connection| find(connection, "ml_user_id", signed(ml_user_id)))
            .await
    }

    async fn unlink(&self, user_id: Uuid) -> Result<Option<Account>, StoreError> {
        self.write("unlink the account", move |transaction| {
            let earlier = find(transaction, "user_id", user_id.to_string())?;
            transaction.execute("DELETE FROM ml_accounts WHERE user_id = ?1", [user_id.to_string()])?;
            transaction.execute("DELETE FROM ml_item_intents WHERE user_id = ?1", [user_id.to_string()])?;
            Ok(earlier)
        })
        .await
    }

    async fn claim_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        now: Millis,
        lease_until: Millis,
    ) -> Result<RefreshClaim, StoreError> {
        self.write("claim the refresh of the tokens", move |transaction| {
            let Some(current) = find(transaction, "user_id", user_id.to_string())? else {
                return Ok(RefreshClaim::Gone);
            };
            if current.version != version || current.reauth_reason.is_some() {
                return Ok(RefreshClaim::Moved);
            }
            let lease: Option<i64> = transaction.query_row(
                "SELECT refresh_lease_until FROM ml_accounts WHERE user_id = ?1",
                [user_id.to_string()],
                |row| row.get(0),
            )?;
            match lease {
                Some(until) if until > now => Ok(RefreshClaim::Busy),
                Some(_) => Ok(RefreshClaim::Interrupted),
                None => {
                    transaction.execute(
                        "UPDATE ml_accounts SET refresh_lease_until = ?2 WHERE user_id = ?1",
                        params![user_id.to_string(), lease_until],
                    )?;
                    Ok(RefreshClaim::Claimed(Box::new(current)))
                }
            }
        })
        .await
    }

    async fn commit_refresh(
        &self,
        user_id: Uuid,
        version: u64,
        tokens: SealedTokens,
    ) -> Result<bool, StoreError> {
        self.write("store the new tokens", move |transaction| {
            let changed = transaction.execute(
                "UPDATE ml_accounts SET access_token = ?3, refresh_token = ?4, issued_at = ?5, expires_at = ?6,
                 version = version + 1, refresh_lease_until = NULL, reauth_reason = NULL
                 WHERE user_id = ?1 AND version = ?2",
                params![
                    user_id.to_string(),
                    signed(version),
                    tokens.access,
                    tokens.refresh,
                    tokens.issued_at,
                    tokens.expires_at
                ],
            )?;
            Ok(changed == 1)
        })
        .await
    }

    async fn release_refresh(&self, user_id: Uuid, version: u64) -> Result<(), StoreError> {
        self.write("release the refresh of the tokens", move |transaction| {
            transaction.execute(
                "UPDATE ml_accounts SET refresh_lease_until = NULL WHERE user_id = ?1 AND version = ?2",
                params![user_id.to_string(), signed(version)],
            )?;
            Ok(())
        })
        .await
    }

    async fn require_reauth(&self, user_id: Uuid, version: u64, reason: &str) -> Result<(), StoreError> {
        let reason = reason.to_owned();
        self.write("mark the account for a new connection", move |transaction| {
            transaction.execute(
                "UPDATE ml_accounts SET reauth_reason = ?3, refresh_lease_until = NULL
                 WHERE user_id = ?1 AND version = ?2",
                params![user_id.to_string(), signed(version), reason],
            )?;
            Ok(())
        })
        .await
    }

    async fn receive(&self, notification: Notification, work: bool) -> Result<bool, StoreError> {
        self.write("store the notification", move |transaction| {
            inbox::receive(transaction, &notification, work)
        })
        .await
    }

    async fn claim_due(
        &self,
        now: Millis,
        lease_until: Millis,
        max: usize,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.write("claim notifications", move |transaction| {
            inbox::claim_due(transaction, now, lease_until, max)
        })
        .await
    }

    async fn settle(&self, ids: Vec<String>, settled: Settled) -> Result<(), StoreError> {
        self.write("settle notifications", move |transaction| inbox::settle(transaction, &ids, &settled))
            .await
    }

    async fn waiting(&self) -> Result<u64, StoreError> {
        self.read("count the notifications", |connection| inbox::waiting(connection)).await
    }

    async fn begin_listing(
        &self,
        intent: Intent,
        now: Millis,
        lease_until: Millis,
    ) -> Result<Begun, StoreError> {
        self.write("begin the listing", move |transaction| {
            intents::begin(transaction, &intent, now, lease_until)
        })
        .await
    }

    async fn finish_listing(
        &self,
        user_id: Uuid,
        key: &str,
        status: u16,
        answer: &str,
    ) -> Result<(), StoreError> {
        let (key, answer) = (key.to_owned(), answer.to_owned());
        self.write("store the answer of the listing", move |transaction| {
            intents::finish(transaction, user_id, &key, status, &answer)
        })
        .await
    }

    async fn doubt_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.write("mark the listing as doubtful", move |transaction| {
            intents::doubt(transaction, user_id, &key)
        })
        .await
    }

    async fn forget_listing(&self, user_id: Uuid, key: &str) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.write("forget the listing", move |transaction| intents::forget(transaction, user_id, &key)).await
    }

    async fn purge(&self, before: Millis) -> Result<(), StoreError> {
        self.write("purge old notifications and listings", move |transaction| {
            inbox::purge(transaction, before)?;
            intents::purge(transaction, before)
        })
        .await
    }
}
