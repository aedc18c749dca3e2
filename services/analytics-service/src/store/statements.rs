//! The embedded database in SQL: one synchronous function per operation of the store trait.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use uuid::Uuid;

use super::{Applied, Batch, Counts, DeadLetter, Partition, Retention};
use crate::event::{Event, Owner};
use crate::fold::{Effect, Total, fold};
use crate::query::{HourCount, Range};

/// See [`super::AnalyticsStore::position`].
pub(super) fn position(connection: &Connection, partition: &Partition) -> rusqlite::Result<u64> {
    let position: Option<i64> = connection
        .prepare_cached(
            "SELECT position FROM analytics_positions
             WHERE topic = ?1 AND partition = ?2 AND consumer_group = ?3",
        )?
        .query_row(params![partition.topic, partition.number, partition.group], |row| row.get(0))
        .optional()?;
    Ok(position.unwrap_or(0).max(0).unsigned_abs())
}

/// See [`super::AnalyticsStore::apply`].
pub(super) fn apply(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<Applied> {
    let Batch { partition, records, at, .. } = batch;
    if position(transaction, partition)? != batch.after {
        return Ok(Applied::Moved);
    }
    let mut counts = Counts::default();
    let mut fresh: Vec<&Event> = Vec::with_capacity(records.len());
    for record in records {
        match &record.content {
            Ok(event) if note_seen(transaction, event.id, *at)? => fresh.push(event),
            Ok(_) => counts.duplicate += 1,
            Err(letter) => {
                keep_dead(transaction, partition, record.position, letter, *at)?;
                counts.dead += 1;
            }
        }
    }
    let erased = erased_among(transaction, &fresh)?;
    let effect = fold(fresh, |owner| erased.contains(owner));
    store_effect(transaction, &effect, *at)?;
    counts.counted = effect.counted;
    counts.skipped = effect.skipped;
    let last = records.last().map_or(batch.after, |record| record.position);
    transaction
        .prepare_cached(
            "INSERT INTO analytics_positions (topic, partition, consumer_group, position, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (topic, partition, consumer_group)
             DO UPDATE SET position = excluded.position, updated_at = excluded.updated_at",
        )?
        .execute(params![partition.topic, partition.number, partition.group, last as i64, micros(*at)])?;
    Ok(Applied::Done(counts))
}

/// Notes the event; false when it was noted before.
fn note_seen(transaction: &Transaction<'_>, id: Uuid, at: Timestamp) -> rusqlite::Result<bool> {
    let inserted = transaction
        .prepare_cached(
            "INSERT INTO analytics_seen_events (event_id, seen_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id.to_string(), micros(at)])?;
    Ok(inserted == 1)
}

fn keep_dead(
    transaction: &Transaction<'_>,
    partition: &Partition,
    position: u64,
    letter: &DeadLetter,
    at: Timestamp,
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO analytics_dead_events (topic, partition, position, reason, payload, dead_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            partition.topic,
            partition.number,
            position as i64,
            letter.reason,
            letter.payload,
            micros(at)
        ])?;
    Ok(())
}

/// The users of `events` that were erased by earlier batches.
fn erased_among(transaction: &Transaction<'_>, events: &[&Event]) -> rusqlite::Result<Vec<Owner>> {
    let mut owners: Vec<&Owner> = events.iter().filter_map(|event| event.owner.as_ref()).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut statement = transaction
        .prepare_cached("SELECT 1 FROM analytics_erased_users WHERE tenant = ?1 AND user_id = ?2")?;
    let mut erased = Vec::new();
    for owner in owners {
        if statement.exists(params![owner.tenant, owner.user_id.to_string()])? {
            erased.push(owner.clone());
        }
    }
    Ok(erased)
}

fn store_effect(transaction: &Transaction<'_>, effect: &Effect, at: Timestamp) -> rusqlite::Result<()> {
    for owner in &effect.erased {
        let user = owner.user_id.to_string();
        for table in ["analytics_hours", "analytics_totals"] {
            transaction
                .prepare_cached(&format!("DELETE FROM {table} WHERE tenant = ?1 AND user_id = ?2"))?
                .execute(params![owner.tenant, user])?;
        }
        transaction
            .prepare_cached(
                "INSERT INTO analytics_erased_users (tenant, user_id, erased_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
            )?
            .execute(params![owner.tenant, user, micros(at)])?;
    }
    for ((owner, hour, event_type), events) in &effect.hours {
        transaction
            .prepare_cached(
                "INSERT INTO analytics_hours (tenant, user_id, hour, event_type, events) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (tenant, user_id, hour, event_type) DO UPDATE SET events = events + excluded.events",
            )?
            .execute(params![owner.tenant, owner.user_id.to_string(), hour, event_type, *events as i64])?;
    }
    for ((owner, event_type), total) in &effect.totals {
        transaction
            .prepare_cached(
                "INSERT INTO analytics_totals (tenant, user_id, event_type, events, last_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (tenant, user_id, event_type)
                 DO UPDATE SET events = events + excluded.events, last_at = max(last_at, excluded.last_at)",
            )?
            .execute(params![
                owner.tenant,
                owner.user_id.to_string(),
                event_type,
                total.events as i64,
                micros(total.last_at)
            ])?;
    }
    Ok(())
}

/// See [`super::AnalyticsStore::assign`].
pub(super) fn assign(
    connection: &Connection,
    partition: &Partition,
    holder: &str,
    now: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<bool> {
    let taken = connection
        .prepare_cached(
            "INSERT INTO analytics_assignments (topic, partition, consumer_group, holder, until)
             VALUES (?1, ?2, ?3, ?4, ?6)
             ON CONFLICT (topic, partition, consumer_group)
             DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE analytics_assignments.holder = excluded.holder OR analytics_assignments.until <= ?5",
        )?
        .execute(params![
            partition.topic,
            partition.number,
            partition.group,
            holder,
            micros(now),
            micros(until)
        ])?;
    Ok(taken == 1)
}

/// See [`super::AnalyticsStore::unassign`].
pub(super) fn unassign(connection: &Connection, partition: &Partition, holder: &str) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM analytics_assignments
         WHERE topic = ?1 AND partition = ?2 AND consumer_group = ?3 AND holder = ?4",
        params![partition.topic, partition.number, partition.group, holder],
    )?;
    Ok(())
}

/// See [`super::AnalyticsStore::totals`].
pub(super) fn totals(connection: &Connection, owner: &Owner) -> rusqlite::Result<Vec<(String, Total)>> {
    let mut statement = connection.prepare_cached(
        "SELECT event_type, events, last_at FROM analytics_totals
         WHERE tenant = ?1 AND user_id = ?2 ORDER BY event_type",
    )?;
    let rows = statement.query_map(params![owner.tenant, owner.user_id.to_string()], |row| {
        let events = row.get::<_, i64>(1)?.max(0).unsigned_abs();
        let last_at = Timestamp::from_microsecond(row.get(2)?).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Integer, error.into())
        })?;
        Ok((row.get(0)?, Total { events, last_at }))
    })?;
    rows.collect()
}

/// See [`super::AnalyticsStore::hours`].
pub(super) fn hours(
    connection: &Connection,
    owner: &Owner,
    range: Range,
) -> rusqlite::Result<Vec<HourCount>> {
    let mut statement = connection.prepare_cached(
        "SELECT hour, event_type, events FROM analytics_hours
         WHERE tenant = ?1 AND user_id = ?2 AND hour >= ?3 AND hour < ?4 ORDER BY hour, event_type",
    )?;
    let rows = statement.query_map(
        params![owner.tenant, owner.user_id.to_string(), range.from, range.to],
        |row| {
            let events = row.get::<_, i64>(2)?.max(0).unsigned_abs();
            Ok(HourCount { hour: row.get(0)?, event_type: row.get(1)?, events })
        },
    )?;
    rows.collect()
}

/// See [`super::AnalyticsStore::dead_letters`].
pub(super) fn dead_letters(connection: &Connection, max: u32) -> rusqlite::Result<Vec<(u64, DeadLetter)>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, reason, payload FROM analytics_dead_events ORDER BY dead_at DESC, position DESC LIMIT ?1",
    )?;
    let rows = statement.query_map(params![max], |row| {
        let position = row.get::<_, i64>(0)?.max(0).unsigned_abs();
        Ok((position, DeadLetter { reason: row.get(1)?, payload: row.get(2)? }))
    })?;
    rows.collect()
}

/// See [`super::AnalyticsStore::prune`].
pub(super) fn prune(transaction: &Transaction<'_>, retention: &Retention) -> rusqlite::Result<usize> {
    let mut removed = 0;
    for (sql, limit) in [
        ("DELETE FROM analytics_seen_events WHERE seen_at < ?1", micros(retention.seen_before)),
        ("DELETE FROM analytics_dead_events WHERE dead_at < ?1", micros(retention.dead_before)),
        ("DELETE FROM analytics_erased_users WHERE erased_at < ?1", micros(retention.erased_before)),
        ("DELETE FROM analytics_hours WHERE hour < ?1", retention.hours_before),
    ] {
        removed += transaction.execute(sql, params![limit])?;
    }
    Ok(removed)
}

/// See [`super::AnalyticsStore::check`].
pub(super) fn check(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT count(*) FROM analytics_positions", [], |_| Ok(()))
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}
