//! The database on PostgreSQL, shared by all replicas and with other services.

mod apply;

use async_trait::async_trait;
use jiff::Timestamp;
use service_kit::postgres::{Pool, PostgresError};
use sqlx::PgConnection;

use super::sqlite::TABLES;
use super::{AnalyticsStore, Applied, Batch, DeadLetter, Partition, Retention, StoreError};
use crate::event::Owner;
use crate::fold::Total;
use crate::query::{HourCount, Range};

/// PostgreSQL's code for a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// Rows that one statement of a pruning removes.
const PRUNED_AT_ONCE: i64 = 5_000;

/// Counts in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Pool,
}

impl PostgresStore {
    /// A store that uses the connections of `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

/// Tells what may pass from what will not, and both from a missing migration.
fn classify(operation: &'static str) -> impl FnOnce(PostgresError) -> StoreError {
    move |error| match &error {
        PostgresError::Statement(sqlx::Error::Database(refused))
            if refused.code().is_some_and(|code| code == UNDEFINED_TABLE) =>
        {
            StoreError::NotMigrated { operation }
        }
        _ if error.is_busy() => StoreError::Unavailable { operation, source: error.into() },
        _ => StoreError::Failed { operation, source: error.into() },
    }
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// Partitions are numbered from 0 and few.
fn number(partition: &Partition) -> i32 {
    i32::try_from(partition.number).unwrap_or(i32::MAX)
}

fn count(number: i64) -> u64 {
    number.max(0).unsigned_abs()
}

/// Runs reads or one statement on a connection of the pool.
macro_rules! on_connection {
    ($self:ident, $operation:literal, |$db:ident| $work:expr) => {{
        let work = async {
            let mut held = $self.pool.acquire().await?;
            let $db: &mut PgConnection = &mut held;
            Ok::<_, PostgresError>($work)
        };
        $self.pool.bounded(work).await.map_err(classify($operation))
    }};
}

#[async_trait]
impl AnalyticsStore for PostgresStore {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(TABLES).await
    }

    async fn position(&self, partition: &Partition) -> Result<u64, StoreError> {
        on_connection!(self, "read the consumer's position", |db| {
            let position: Option<i64> = sqlx::query_scalar(
                "SELECT position FROM analytics_positions
                 WHERE topic = $1 AND partition = $2 AND consumer_group = $3",
            )
            .bind(&partition.topic)
            .bind(number(partition))
            .bind(&partition.group)
            .fetch_optional(db)
            .await?;
            count(position.unwrap_or(0))
        })
    }

    async fn apply(&self, batch: Batch) -> Result<Applied, StoreError> {
        let work = async {
            let mut open = self.pool.begin().await?;
            let applied = apply::apply(&mut open, &batch).await?;
            match applied {
                Applied::Done(_) => open.commit().await?,
                // Dropped, it is rolled back.
                Applied::Moved => {}
            }
            Ok(applied)
        };
        self.pool.bounded(work).await.map_err(classify("store the effect of events"))
    }

    async fn assign(
        &self,
        partition: &Partition,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        on_connection!(self, "take a partition", |db| {
            let taken = sqlx::query(
                "INSERT INTO analytics_assignments AS a (topic, partition, consumer_group, holder, until)
                 VALUES ($1, $2, $3, $4, $6)
                 ON CONFLICT (topic, partition, consumer_group)
                 DO UPDATE SET holder = excluded.holder, until = excluded.until
                 WHERE a.holder = excluded.holder OR a.until <= $5",
            )
            .bind(&partition.topic)
            .bind(number(partition))
            .bind(&partition.group)
            .bind(holder)
            .bind(micros(now))
            .bind(micros(until))
            .execute(db)
            .await?;
            taken.rows_affected() == 1
        })
    }

    async fn unassign(&self, partition: &Partition, holder: &str) -> Result<(), StoreError> {
        on_connection!(self, "give a partition back", |db| {
            sqlx::query(
                "DELETE FROM analytics_assignments
                 WHERE topic = $1 AND partition = $2 AND consumer_group = $3 AND holder = $4",
            )
            .bind(&partition.topic)
            .bind(number(partition))
            .bind(&partition.group)
            .bind(holder)
            .execute(db)
            .await?;
        })
    }

    async fn totals(&self, owner: &Owner) -> Result<Vec<(String, Total)>, StoreError> {
        on_connection!(self, "read a user's totals", |db| {
            let rows: Vec<(String, i64, i64)> = sqlx::query_as(
                "SELECT event_type, events, last_at FROM analytics_totals
                 WHERE tenant = $1 AND user_id = $2 ORDER BY event_type COLLATE \"C\"",
            )
            .bind(&owner.tenant)
            .bind(owner.user_id)
            .fetch_all(db)
            .await?;
            rows.into_iter()
                .map(|(event_type, events, last_at)| {
                    let last_at = Timestamp::from_microsecond(last_at)
                        .map_err(|error| PostgresError::Corrupt { what: "a time", source: error.into() })?;
                    Ok((event_type, Total { events: count(events), last_at }))
                })
                .collect::<Result<_, PostgresError>>()?
        })
    }

    async fn hours(&self, owner: &Owner, range: Range) -> Result<Vec<HourCount>, StoreError> {
        on_connection!(self, "read a user's hours", |db| {
            let rows: Vec<(i64, String, i64)> = sqlx::query_as(
                "SELECT hour, event_type, events FROM analytics_hours
                 WHERE tenant = $1 AND user_id = $2 AND hour >= $3 AND hour < $4
                 ORDER BY hour, event_type COLLATE \"C\"",
            )
            .bind(&owner.tenant)
            .bind(owner.user_id)
            .bind(range.from)
            .bind(range.to)
            .fetch_all(db)
            .await?;
            rows.into_iter()
                .map(|(hour, event_type, events)| HourCount { hour, event_type, events: count(events) })
                .collect()
        })
    }

    async fn dead_letters(&self, max: u32) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        on_connection!(self, "read dead letters", |db| {
            let rows: Vec<(i64, String, String)> = sqlx::query_as(
                "SELECT position, reason, payload FROM analytics_dead_events
                 ORDER BY dead_at DESC, position DESC LIMIT $1",
            )
            .bind(i64::from(max))
            .fetch_all(db)
            .await?;
            rows.into_iter()
                .map(|(position, reason, payload)| (count(position), DeadLetter { reason, payload }))
                .collect()
        })
    }

    async fn prune(&self, retention: Retention) -> Result<usize, StoreError> {
        let mut removed = 0;
        for (sql, limit) in [
            (
                "DELETE FROM analytics_seen_events WHERE event_id IN (SELECT event_id FROM analytics_seen_events
                 WHERE seen_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
                micros(retention.seen_before),
            ),
            (
                "DELETE FROM analytics_dead_events WHERE ctid = ANY(ARRAY(SELECT ctid FROM analytics_dead_events
                 WHERE dead_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
                micros(retention.dead_before),
            ),
            (
                "DELETE FROM analytics_erased_users WHERE ctid = ANY(ARRAY(SELECT ctid FROM analytics_erased_users
                 WHERE erased_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
                micros(retention.erased_before),
            ),
            (
                "DELETE FROM analytics_hours WHERE ctid = ANY(ARRAY(SELECT ctid FROM analytics_hours
                 WHERE hour < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))",
                retention.hours_before,
            ),
        ] {
            // Some thousand rows at a time, each time a transaction of its own: a week's identities in one statement
            // would outlast its limit, and rows that a batch holds are left for the next pruning.
            loop {
                let gone = on_connection!(self, "prune old rows", |db| {
                    sqlx::query(sql).bind(limit).bind(PRUNED_AT_ONCE).execute(db).await?.rows_affected()
                })?;
                removed += gone;
                if gone < PRUNED_AT_ONCE.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(usize::try_from(removed).unwrap_or(usize::MAX))
    }

    async fn check(&self) -> Result<(), StoreError> {
        on_connection!(self, "reach the database", |db| {
            sqlx::query("SELECT 1 FROM analytics_positions LIMIT 1").execute(db).await?;
        })
    }
}

#[cfg(test)]
mod tests;
