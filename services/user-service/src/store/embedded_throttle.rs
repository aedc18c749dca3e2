//! [`ThrottleStore`] on the SQLite file that stands in Redis' place and is shared by all replicas. It makes its own
//! table: the real server has no migrations either.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, TransactionBehavior, params};
use service_kit::sqlite::{Pool, SqliteError};

use super::{StoreError, ThrottleStore};
use crate::throttle::{Tally, ThrottleKey};

/// Failures in a shared SQLite file.
#[derive(Clone)]
pub struct EmbeddedThrottle {
    pool: Pool,
}

impl EmbeddedThrottle {
    /// Uses the connections of `pool`, making the table if it is the first.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the file cannot be written.
    pub async fn open(pool: Pool) -> Result<Self, StoreError> {
        let store = Self { pool };
        store
            .call("make the table of login failures", |connection| {
                connection.execute_batch(
                    "CREATE TABLE IF NOT EXISTS user_throttles (
                         key        BLOB    NOT NULL PRIMARY KEY,
                         failures   INTEGER NOT NULL,
                         last_at    INTEGER NOT NULL,
                         expires_at INTEGER NOT NULL
                     ) STRICT, WITHOUT ROWID;
                     CREATE INDEX IF NOT EXISTS idx_user_throttles_expires_at ON user_throttles (expires_at);",
                )
            })
            .await?;
        Ok(store)
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.pool.call(move |connection| Ok::<_, SqliteError>(work(connection)?)).await;
        outcome.map_err(|source| StoreError::Database { operation, source: Box::new(source) })
    }
}

#[async_trait]
impl ThrottleStore for EmbeddedThrottle {
    async fn tallies(&self, keys: &[ThrottleKey]) -> Result<Vec<Option<Tally>>, StoreError> {
        let keys = keys.to_vec();
        self.call("read login failures", move |connection| {
            let mut read =
                connection.prepare_cached("SELECT failures, last_at FROM user_throttles WHERE key = ?1")?;
            keys.iter().map(|key| read.query_row([key.as_bytes()], tally).optional()).collect()
        })
        .await
    }

    async fn count_failures(&self, keys: &[ThrottleKey], now: Timestamp) -> Result<Vec<Tally>, StoreError> {
        let keys = keys.to_vec();
        self.call("count a login failure", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Redis would expire keys by itself.
            transaction
                .prepare_cached("DELETE FROM user_throttles WHERE expires_at <= ?1")?
                .execute([now.as_millisecond()])?;
            let mut counted = Vec::with_capacity(keys.len());
            for key in &keys {
                let expires_at = now.saturating_add(key.policy.forget).unwrap_or(now).as_millisecond();
                let mut count = transaction.prepare_cached(
                    "INSERT INTO user_throttles (key, failures, last_at, expires_at) VALUES (?1, 1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET failures = failures + 1, last_at = ?2, expires_at = ?3
                     RETURNING failures, last_at",
                )?;
                counted
                    .push(count.query_row(params![key.as_bytes(), now.as_millisecond(), expires_at], tally)?);
            }
            transaction.commit()?;
            Ok(counted)
        })
        .await
    }

    async fn forget(&self, key: &ThrottleKey) -> Result<(), StoreError> {
        let key = *key;
        self.call("forget login failures", move |connection| {
            // Nearly every success has nothing to forget, and a read does not queue for the file.
            let counted: bool = connection
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM user_throttles WHERE key = ?1)")?
                .query_row([key.as_bytes()], |row| row.get(0))?;
            if counted {
                connection.execute("DELETE FROM user_throttles WHERE key = ?1", [key.as_bytes()])?;
            }
            Ok(())
        })
        .await
    }
}

fn tally(row: &Row<'_>) -> rusqlite::Result<Tally> {
    let last_at = Timestamp::from_millisecond(row.get(1)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, Type::Integer, Box::new(error)))?;
    Ok(Tally { failures: row.get(0)?, last_at })
}
