//! A batch's effect and position in one transaction.
//!
//! The row of the position is locked first, so that of two replicas with the same batch the second waits and then sees
//! that it moved. Rows of users are written in the order of the folded maps, several in one statement: two batches of
//! different partitions lock the same users in the same order and never wait for each other in a circle.

use std::collections::BTreeSet;

use service_kit::postgres::PostgresError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{micros, number};
use crate::event::{Event, Owner, USER_DELETED};
use crate::fold::{Effect, fold};
use crate::store::{Applied, Batch, Counts, DeadLetter, Partition};

/// Key of the advisory lock between erasures and counting: "analytic" as a number.
const ERASURES: i64 = i64::from_be_bytes(*b"analytic");

/// See [`crate::store::AnalyticsStore::apply`].
pub(super) async fn apply(db: &mut PgConnection, batch: &Batch) -> Result<Applied, PostgresError> {
    let Batch { partition, records, at, .. } = batch;
    let at = micros(*at);
    let erases = records
        .iter()
        .any(|record| record.content.as_ref().is_ok_and(|event| event.event_type == USER_DELETED));
    bar_erasures(db, erases).await?;
    if locked_position(db, partition, at).await? != batch.after {
        return Ok(Applied::Moved);
    }
    let events: Vec<&Event> = records.iter().filter_map(|record| record.content.as_ref().ok()).collect();
    let mut unseen = note_seen(db, &events, at).await?;
    // The first of several with one identity counts.
    let fresh: Vec<&Event> = events.iter().copied().filter(|event| unseen.remove(&event.id)).collect();
    let dead: Vec<(u64, &DeadLetter)> =
        records.iter().filter_map(|record| Some((record.position, record.content.as_ref().err()?))).collect();
    keep_dead(db, partition, &dead, at).await?;
    let mut counts = Counts {
        duplicate: (events.len() - fresh.len()) as u64,
        dead: dead.len() as u64,
        ..Counts::default()
    };
    let erased = erased_among(db, &fresh).await?;
    let effect = fold(fresh, |owner| erased.contains(owner));
    store_effect(db, &effect, at).await?;
    counts.counted = effect.counted;
    counts.skipped = effect.skipped;
    let last = records.last().map_or(batch.after, |record| record.position);
    sqlx::query(
        "UPDATE analytics_positions SET position = $4, updated_at = $5
         WHERE topic = $1 AND partition = $2 AND consumer_group = $3",
    )
    .bind(&partition.topic)
    .bind(number(partition))
    .bind(&partition.group)
    .bind(last as i64)
    .bind(at)
    .execute(db)
    .await?;
    Ok(Applied::Done(counts))
}

/// Keeps erasures and counting apart until the transaction ends: an erasure waits for all batches under way and holds
/// new ones up. Without it a batch of another partition could count for a user whose rows are just going, and neither
/// transaction would see the other.
async fn bar_erasures(db: &mut PgConnection, erases: bool) -> Result<(), PostgresError> {
    let sql =
        if erases { "SELECT pg_advisory_xact_lock($1)" } else { "SELECT pg_advisory_xact_lock_shared($1)" };
    sqlx::query(sql).bind(ERASURES).execute(db).await?;
    Ok(())
}

/// The position, whose row stays locked until the transaction ends; made when it is not there.
async fn locked_position(
    db: &mut PgConnection,
    partition: &Partition,
    at: i64,
) -> Result<u64, PostgresError> {
    // The update changes nothing; it locks the row, and answers with what the one before us committed.
    let position: i64 = sqlx::query_scalar(
        "INSERT INTO analytics_positions AS p (topic, partition, consumer_group, position, updated_at)
         VALUES ($1, $2, $3, 0, $4)
         ON CONFLICT (topic, partition, consumer_group) DO UPDATE SET position = p.position
         RETURNING position",
    )
    .bind(&partition.topic)
    .bind(number(partition))
    .bind(&partition.group)
    .bind(at)
    .fetch_one(db)
    .await?;
    Ok(position.max(0).unsigned_abs())
}

/// Notes the events; the identities that were not noted before.
async fn note_seen(
    db: &mut PgConnection,
    events: &[&Event],
    at: i64,
) -> Result<BTreeSet<Uuid>, PostgresError> {
    let mut ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(BTreeSet::new());
    }
    let noted: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO analytics_seen_events (event_id, seen_at) SELECT id, $2 FROM unnest($1::uuid[]) AS id
         ON CONFLICT DO NOTHING RETURNING event_id",
    )
    .bind(ids)
    .bind(at)
    .fetch_all(db)
    .await?;
    Ok(noted.into_iter().collect())
}

async fn keep_dead(
    db: &mut PgConnection,
    partition: &Partition,
    dead: &[(u64, &DeadLetter)],
    at: i64,
) -> Result<(), PostgresError> {
    if dead.is_empty() {
        return Ok(());
    }
    // PostgreSQL's text holds no NUL; a letter is for people to read.
    let readable = |text: &str| text.replace('\0', "\u{fffd}");
    sqlx::query(
        "INSERT INTO analytics_dead_events (topic, partition, position, reason, payload, dead_at)
         SELECT $1, $2, letter.position, letter.reason, letter.payload, $6
         FROM unnest($3::bigint[], $4::text[], $5::text[]) AS letter (position, reason, payload)
         ON CONFLICT DO NOTHING",
    )
    .bind(&partition.topic)
    .bind(number(partition))
    .bind(dead.iter().map(|(position, _)| *position as i64).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| readable(&letter.reason)).collect::<Vec<_>>())
    .bind(dead.iter().map(|(_, letter)| readable(&letter.payload)).collect::<Vec<_>>())
    .bind(at)
    .execute(db)
    .await?;
    Ok(())
}

/// The users of `events` that were erased by earlier batches.
async fn erased_among(db: &mut PgConnection, events: &[&Event]) -> Result<BTreeSet<Owner>, PostgresError> {
    let owners: BTreeSet<&Owner> = events.iter().filter_map(|event| event.owner.as_ref()).collect();
    if owners.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (tenants, users) = columns(owners.iter().copied());
    let erased: Vec<(String, Uuid)> = sqlx::query_as(
        "SELECT tenant, user_id FROM analytics_erased_users
         WHERE (tenant, user_id) IN (SELECT * FROM unnest($1::text[], $2::uuid[]))",
    )
    .bind(tenants)
    .bind(users)
    .fetch_all(db)
    .await?;
    Ok(erased.into_iter().map(|(tenant, user_id)| Owner { tenant, user_id }).collect())
}

async fn store_effect(db: &mut PgConnection, effect: &Effect, at: i64) -> Result<(), PostgresError> {
    if !effect.erased.is_empty() {
        let (tenants, users) = columns(effect.erased.iter());
        for sql in [
            "DELETE FROM analytics_hours WHERE (tenant, user_id) IN (SELECT * FROM unnest($1::text[], $2::uuid[]))",
            "DELETE FROM analytics_totals WHERE (tenant, user_id) IN (SELECT * FROM unnest($1::text[], $2::uuid[]))",
        ] {
            sqlx::query(sql).bind(&tenants).bind(&users).execute(&mut *db).await?;
        }
        sqlx::query(
            "INSERT INTO analytics_erased_users (tenant, user_id, erased_at)
             SELECT tenant, user_id, $3 FROM unnest($1::text[], $2::uuid[]) AS u (tenant, user_id)
             ON CONFLICT DO NOTHING",
        )
        .bind(tenants)
        .bind(users)
        .bind(at)
        .execute(&mut *db)
        .await?;
    }
    if !effect.hours.is_empty() {
        let (tenants, users) = columns(effect.hours.keys().map(|(owner, _, _)| owner));
        sqlx::query(
            "INSERT INTO analytics_hours AS h (tenant, user_id, hour, event_type, events)
             SELECT * FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[])
             ON CONFLICT (tenant, user_id, hour, event_type) DO UPDATE SET events = h.events + excluded.events",
        )
        .bind(tenants)
        .bind(users)
        .bind(effect.hours.keys().map(|(_, hour, _)| *hour).collect::<Vec<_>>())
        .bind(effect.hours.keys().map(|(_, _, event_type)| event_type.clone()).collect::<Vec<_>>())
        .bind(effect.hours.values().map(|events| *events as i64).collect::<Vec<_>>())
        .execute(&mut *db)
        .await?;
    }
    if !effect.totals.is_empty() {
        let (tenants, users) = columns(effect.totals.keys().map(|(owner, _)| owner));
        sqlx::query(
            "INSERT INTO analytics_totals AS t (tenant, user_id, event_type, events, last_at)
             SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[])
             ON CONFLICT (tenant, user_id, event_type) DO UPDATE
             SET events = t.events + excluded.events, last_at = greatest(t.last_at, excluded.last_at)",
        )
        .bind(tenants)
        .bind(users)
        .bind(effect.totals.keys().map(|(_, event_type)| event_type.clone()).collect::<Vec<_>>())
        .bind(effect.totals.values().map(|total| total.events as i64).collect::<Vec<_>>())
        .bind(effect.totals.values().map(|total| micros(total.last_at)).collect::<Vec<_>>())
        .execute(db)
        .await?;
    }
    Ok(())
}

/// Owners as two columns, in their order.
fn columns<'a>(owners: impl Iterator<Item = &'a Owner>) -> (Vec<String>, Vec<Uuid>) {
    owners.map(|owner| (owner.tenant.clone(), owner.user_id)).unzip()
}
