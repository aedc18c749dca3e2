//! Statements on `user_follow_ups`. A claim is a due time pushed into the future: no worker to remember, and a
//! replica that dies gives its work back by itself.

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Transaction, params};

use super::rows;
use crate::store::{ClaimedFollowUp, FollowUp, FollowUpTask};

/// Writes a follow-up, due at once.
pub(super) fn insert(tx: &Transaction<'_>, follow_up: &FollowUp, now: Timestamp) -> rusqlite::Result<()> {
    let (kind, payload) = match &follow_up.task {
        FollowUpTask::Disconnect => ("disconnect", String::new()),
        FollowUpTask::Publish(event) => ("publish", event.to_string()),
    };
    tx.execute(
        "INSERT INTO user_follow_ups (id, kind, user_id, payload, due_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![rows::id(follow_up.id), kind, rows::id(follow_up.user_id), payload, rows::millis(now)],
    )?;
    Ok(())
}

/// Whether there is work.
pub(super) fn any_due(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM user_follow_ups WHERE due_at <= ?1)")?
        .query_row([rows::millis(now)], |row| row.get(0))
}

/// Takes due work until `lease_until`.
pub(super) fn claim(
    tx: &Transaction<'_>,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<ClaimedFollowUp>> {
    let mut statement = tx.prepare_cached(
        "UPDATE user_follow_ups SET due_at = ?2, attempts = attempts + 1
         WHERE id IN (SELECT id FROM user_follow_ups WHERE due_at <= ?1 ORDER BY due_at, id LIMIT ?3)
         RETURNING id, user_id, kind, payload, attempts - 1",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![rows::millis(now), rows::millis(lease_until), limit], |row| {
        let kind: String = row.get(2)?;
        let task = if kind == "disconnect" {
            FollowUpTask::Disconnect
        } else {
            let payload: String = row.get(3)?;
            let event =
                serde_json::from_str(&payload).map_err(|error| rows::unreadable(3, Type::Text, error))?;
            FollowUpTask::Publish(event)
        };
        let follow_up = FollowUp { id: rows::get_id(row, 0)?, user_id: rows::get_id(row, 1)?, task };
        Ok(ClaimedFollowUp { follow_up, attempts: row.get(4)? })
    })?;
    rows.collect()
}
