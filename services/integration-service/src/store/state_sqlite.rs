//! The shared state in one SQLite file of the embedded folder: `redis/state.db`, in Redis's place.
//!
//! Every limit is taken within one `BEGIN IMMEDIATE`, so all replicas see one count and a denial takes nothing.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};
use service_kit::Clock;
use service_kit::sqlite::{Pool, SqliteError};

use super::sqlite::{failed, signed, unsigned};
use super::{CacheStore, Cached, LimitStore, Millis, Owed, Rejoined, StoreError, Take, Taken};
use crate::limiter::gcra::{Bucket, HOUR_US};

/// Other services keep their own tables in the same file, hence the prefix.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS ml_limits (
    key TEXT PRIMARY KEY, tat_us INTEGER NOT NULL, hour INTEGER NOT NULL,
    current INTEGER NOT NULL, previous INTEGER NOT NULL, used_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ml_cache (
    key TEXT PRIMARY KEY, subject TEXT NOT NULL, value TEXT NOT NULL,
    soft_until INTEGER NOT NULL, hard_until INTEGER NOT NULL, claimed_until INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX IF NOT EXISTS ml_cache_subject ON ml_cache (subject);
CREATE INDEX IF NOT EXISTS ml_cache_hard ON ml_cache (hard_until);
CREATE TABLE IF NOT EXISTS ml_cache_epochs (
    subject TEXT PRIMARY KEY, epoch INTEGER NOT NULL, changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// No load of a value takes this long, so an epoch older than it guards nothing any more.
const EPOCH_KEPT_MS: Millis = 3_600_000;

const READ_BUCKET: &str = "SELECT tat_us, hour, current, previous FROM ml_limits WHERE key = ?1";
/// The column `hour` holds the number of the window; files of earlier versions named it so.
const WRITE_BUCKET: &str = "INSERT OR REPLACE INTO ml_limits (key, tat_us, hour, current, previous, used_us)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// The embedded state store.
#[derive(Clone, Debug)]
pub struct SqliteState {
    pool: Pool,
    clock: Clock,
}

impl SqliteState {
    /// The pool over the state file of the embedded folder.
    pub fn pool(embedded: &Path) -> Pool {
        Pool::new("redis", &embedded.join("redis").join("state.db"), 4)
    }

    /// The store, with its tables made; limits are counted on this clock.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be opened.
    pub async fn open(pool: Pool, clock: Clock) -> Result<Self, StoreError> {
        let made = pool.call(|connection| Ok::<_, SqliteError>(connection.execute_batch(SCHEMA)?)).await;
        made.map_err(|error| failed("open the state store", error))?;
        Ok(Self { pool, clock })
    }
}

fn bucket(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Bucket> {
    Ok(Bucket {
        tat_us: row.get(first)?,
        window: row.get(first + 1)?,
        current: row.get(first + 2)?,
        previous: row.get(first + 3)?,
    })
}

fn epoch(connection: &Connection, subject: &str) -> Result<i64, SqliteError> {
    let mut query = connection.prepare_cached("SELECT epoch FROM ml_cache_epochs WHERE subject = ?1")?;
    Ok(query.query_row([subject], |row| row.get(0)).optional()?.unwrap_or(0))
}

#[async_trait]
impl LimitStore for SqliteState {
    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn take(&self, limits: Vec<Take>) -> Result<Taken, StoreError> {
        let now_us = self.clock.now().as_microsecond();
        let taken = self.pool.write(move |transaction| {
            let mut granted = Vec::with_capacity(limits.len());
            let mut read = transaction.prepare_cached(READ_BUCKET)?;
            for (position, take) in limits.iter().enumerate() {
                let state = read.query_row([&take.key], |row| bucket(row, 0)).optional()?.unwrap_or_default();
                match state.take(take.rate, take.reserve, now_us) {
                    Ok(next) => granted.push(next),
                    Err(wait_us) => return Ok::<_, SqliteError>(Taken::Denied { now_us, position, wait_us }),
                }
            }
            let mut write = transaction.prepare_cached(WRITE_BUCKET)?;
            for (take, next) in limits.iter().zip(&granted) {
                write.execute(params![
                    take.key,
                    next.tat_us,
                    next.window,
                    next.current,
                    next.previous,
                    now_us
                ])?;
            }
            Ok(Taken::Granted { now_us, buckets: granted })
        });
        taken.await.map_err(|error| failed("take from the limits", error))
    }

    /// A file is not lost while its processes live, so it counts at once.
    async fn rejoin(&self, _away: Duration, owed: Vec<Owed>) -> Result<Rejoined, StoreError> {
        let now_us = self.clock.now().as_microsecond();
        let charged = self.pool.write(move |transaction| {
            let mut read = transaction.prepare_cached(READ_BUCKET)?;
            let mut write = transaction.prepare_cached(WRITE_BUCKET)?;
            for Owed { key, rate, calls } in &owed {
                let state = read.query_row([key], |row| bucket(row, 0)).optional()?.unwrap_or_default();
                let next = state.charged(*rate, *calls, now_us);
                write.execute(params![key, next.tat_us, next.window, next.current, next.previous, now_us])?;
            }
            Ok::<_, SqliteError>(Rejoined::Open)
        });
        charged.await.map_err(|error| failed("report to the limits", error))
    }

    async fn buckets(&self, keys: Vec<(String, i64)>) -> Result<(i64, Vec<Bucket>), StoreError> {
        let now_us = self.clock.now().as_microsecond();
        let read = self.pool.call(move |connection| {
            let mut read = connection.prepare_cached(READ_BUCKET)?;
            let states = keys.iter().map(|(key, _)| {
                Ok(read.query_row([key], |row| bucket(row, 0)).optional()?.unwrap_or_default())
            });
            Ok::<_, SqliteError>((now_us, states.collect::<Result<_, SqliteError>>()?))
        });
        read.await.map_err(|error| failed("read the limits", error))
    }

    async fn purge(&self, now: Millis) -> Result<(), StoreError> {
        // Two hours without use: neither the bucket nor the count of calls holds anything any more.
        let done = self.pool.write(move |transaction| {
            transaction.execute("DELETE FROM ml_limits WHERE used_us < ?1", [now * 1000 - 2 * HOUR_US])?;
            Ok::<_, SqliteError>(())
        });
        done.await.map_err(|error| failed("purge the limits", error))
    }
}

#[async_trait]
impl CacheStore for SqliteState {
    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn cached(
        &self,
        key: &str,
        subject: &str,
        now: Millis,
    ) -> Result<(Option<Cached>, u64), StoreError> {
        let (key, subject) = (key.to_owned(), subject.to_owned());
        let read = self.pool.call(move |connection| {
            let epoch = epoch(connection, &subject)?;
            let mut query = connection.prepare_cached(
                "SELECT value, soft_until, hard_until FROM ml_cache WHERE key = ?1 AND hard_until > ?2",
            )?;
            let found = query.query_row(params![key, now], |row| {
                Ok(Cached { value: row.get(0)?, soft_until: row.get(1)?, hard_until: row.get(2)? })
            });
            Ok::<_, SqliteError>((found.optional()?, unsigned(epoch)))
        });
        read.await.map_err(|error| failed("read the cache", error))
    }

    async fn keep(
        &self,
        key: &str,
        subject: &str,
        at_epoch: u64,
        cached: Cached,
        _now: Millis,
    ) -> Result<bool, StoreError> {
        let (key, subject) = (key.to_owned(), subject.to_owned());
        let kept = self.pool.write(move |transaction| {
            if epoch(transaction, &subject)? != signed(at_epoch) {
                return Ok::<_, SqliteError>(false);
            }
            transaction.execute(
                "INSERT OR REPLACE INTO ml_cache (key, subject, value, soft_until, hard_until, claimed_until)
                 VALUES (?1, ?2, ?3, ?4, ?5, 0)",
                params![key, subject, cached.value, cached.soft_until, cached.hard_until],
            )?;
            Ok(true)
        });
        kept.await.map_err(|error| failed("write the cache", error))
    }

    async fn claim_stale(&self, key: &str, now: Millis, lease_until: Millis) -> Result<bool, StoreError> {
        let key = key.to_owned();
        let claimed = self.pool.write(move |transaction| {
            let changed = transaction.execute(
                "UPDATE ml_cache SET claimed_until = ?3 WHERE key = ?1 AND claimed_until <= ?2",
                params![key, now, lease_until],
            )?;
            Ok::<_, SqliteError>(changed == 1)
        });
        claimed.await.map_err(|error| failed("claim a stale cache entry", error))
    }

    async fn invalidate(&self, _key: &str, subject: &str, now: Millis) -> Result<(), StoreError> {
        let subject = subject.to_owned();
        let done = self.pool.write(move |transaction| {
            transaction.execute("DELETE FROM ml_cache WHERE subject = ?1", [&subject])?;
            transaction.execute(
                "INSERT INTO ml_cache_epochs (subject, epoch, changed_at) VALUES (?1, 1, ?2)
                 ON CONFLICT (subject) DO UPDATE SET epoch = epoch + 1, changed_at = excluded.changed_at",
                params![subject, now],
            )?;
            Ok::<_, SqliteError>(())
        });
        done.await.map_err(|error| failed("invalidate the cache", error))
    }

    async fn purge(&self, now: Millis) -> Result<(), StoreError> {
        let done = self.pool.write(move |transaction| {
            transaction.execute("DELETE FROM ml_cache WHERE hard_until <= ?1", [now])?;
            transaction
                .execute("DELETE FROM ml_cache_epochs WHERE changed_at < ?1", [now - EPOCH_KEPT_MS])?;
            Ok::<_, SqliteError>(())
        });
        done.await.map_err(|error| failed("purge the cache", error))
    }
}
