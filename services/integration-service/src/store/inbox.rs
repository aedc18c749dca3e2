//! The webhook inbox in SQLite.

use rusqlite::{Connection, params};
use service_kit::sqlite::SqliteError;

use super::sqlite::{signed, unsigned};
use super::{Claimed, Millis, Notification, Settled};

pub(super) fn receive(connection: &Connection, one: &Notification, work: bool) -> Result<bool, SqliteError> {
    let state = if work { "waiting" } else { "skipped" };
    let added = connection.execute(
        "INSERT INTO ml_webhook_inbox (id, topic, resource, ml_user_id, payload, received_at, state, due_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6) ON CONFLICT (id) DO NOTHING",
        params![one.id, one.topic, one.resource, signed(one.ml_user_id), one.payload, one.received_at, state],
    )?;
    Ok(added == 1)
}

pub(super) fn claim_due(
    connection: &Connection,
    now: Millis,
    lease_until: Millis,
    max: usize,
) -> Result<Vec<Claimed>, SqliteError> {
    let mut query = connection.prepare_cached(
        "UPDATE ml_webhook_inbox SET due_at = ?2, attempts = attempts + 1 WHERE id IN (
             SELECT id FROM ml_webhook_inbox WHERE state = 'waiting' AND due_at <= ?1
             ORDER BY due_at, received_at LIMIT ?3)
         RETURNING id, topic, resource, ml_user_id, payload, received_at, attempts",
    )?;
    let rows = query.query_map(params![now, lease_until, signed(max as u64)], |row| {
        let notification = Notification {
            id: row.get(0)?,
            topic: row.get(1)?,
            resource: row.get(2)?,
            ml_user_id: unsigned(row.get(3)?),
            payload: row.get(4)?,
            received_at: row.get(5)?,
        };
        Ok(Claimed { notification, attempt: row.get(6)? })
    })?;
    let mut claimed = rows.collect::<Result<Vec<_>, _>>()?;
    // RETURNING promises no order.
    claimed.sort_by(|a, b| {
        let key = |one: &Claimed| (one.notification.received_at, one.notification.id.clone());
        key(a).cmp(&key(b))
    });
    Ok(claimed)
}

pub(super) fn settle(connection: &Connection, ids: &[String], settled: &Settled) -> Result<(), SqliteError> {
    let mut update = connection.prepare_cached(
        "UPDATE ml_webhook_inbox SET state = ?2, due_at = coalesce(?3, due_at), last_error = ?4 WHERE id = ?1",
    )?;
    let (state, due_at, error) = match settled {
        Settled::Done => ("done", None, None),
        Settled::Later(due_at, error) => ("waiting", Some(*due_at), Some(error)),
        Settled::Dead(error) => ("dead", None, Some(error)),
    };
    for id in ids {
        update.execute(params![id, state, due_at, error])?;
    }
    Ok(())
}

pub(super) fn waiting(connection: &Connection) -> Result<u64, SqliteError> {
    let count = "SELECT count(*) FROM ml_webhook_inbox WHERE state = 'waiting'";
    Ok(unsigned(connection.query_row(count, [], |row| row.get(0))?))
}

/// The dead are kept: somebody must look at them.
pub(super) fn purge(connection: &Connection, before: Millis) -> Result<(), SqliteError> {
    connection.execute(
        "DELETE FROM ml_webhook_inbox WHERE state IN ('done', 'skipped') AND received_at < ?1",
        [before],
    )?;
    Ok(())
}
