//! Listing intents in SQLite.

use rusqlite::{Connection, OptionalExtension, params};
use service_kit::sqlite::SqliteError;
use uuid::Uuid;

use super::{Begun, Intent, Millis};

struct Earlier {
    request_hash: String,
    state: String,
    status: Option<u16>,
    answer: Option<String>,
    lease_until: Millis,
}

pub(super) fn begin(
    connection: &Connection,
    intent: &Intent,
    now: Millis,
    lease_until: Millis,
) -> Result<Begun, SqliteError> {
    let user_id = intent.user_id.to_string();
    let mut query = connection.prepare_cached(
        "SELECT request_hash, state, status, answer, lease_until FROM ml_item_intents WHERE user_id = ?1 AND key = ?2",
    )?;
    let earlier = query
        .query_row([&user_id, &intent.key], |row| {
            Ok(Earlier {
                request_hash: row.get(0)?,
                state: row.get(1)?,
                status: row.get(2)?,
                answer: row.get(3)?,
                lease_until: row.get(4)?,
            })
        })
        .optional()?;
    let Some(earlier) = earlier else {
        connection.execute(
            "INSERT INTO ml_item_intents (user_id, key, request_hash, seller_sku, state, created_at, lease_until)
             VALUES (?1, ?2, ?3, ?4, 'sending', ?5, ?6)",
            params![user_id, intent.key, intent.request_hash, intent.seller_sku, now, lease_until],
        )?;
        return Ok(Begun::Fresh);
    };
    if earlier.request_hash != intent.request_hash {
        return Ok(Begun::OtherRequest);
    }
    if let ("done", Some(status), Some(answer)) = (earlier.state.as_str(), earlier.status, earlier.answer) {
        return Ok(Begun::Done { status, answer });
    }
    // A sending one whose lease is over belongs to a process that died: as doubtful as one that said so.
    if earlier.state == "sending" && earlier.lease_until > now {
        return Ok(Begun::InFlight);
    }
    connection.execute(
        "UPDATE ml_item_intents SET state = 'sending', lease_until = ?3 WHERE user_id = ?1 AND key = ?2",
        params![user_id, intent.key, lease_until],
    )?;
    Ok(Begun::Doubtful)
}

pub(super) fn finish(
    connection: &Connection,
    user_id: Uuid,
    key: &str,
    status: u16,
    answer: &str,
) -> Result<(), SqliteError> {
    connection.execute(
        "UPDATE ml_item_intents SET state = 'done', status = ?3, answer = ?4 WHERE user_id = ?1 AND key = ?2",
        params![user_id.to_string(), key, status, answer],
    )?;
    Ok(())
}

pub(super) fn doubt(connection: &Connection, user_id: Uuid, key: &str) -> Result<(), SqliteError> {
    connection.execute(
        "UPDATE ml_item_intents SET state = 'doubtful' WHERE user_id = ?1 AND key = ?2",
        params![user_id.to_string(), key],
    )?;
    Ok(())
}

pub(super) fn forget(connection: &Connection, user_id: Uuid, key: &str) -> Result<(), SqliteError> {
    connection.execute(
        "DELETE FROM ml_item_intents WHERE user_id = ?1 AND key = ?2",
        params![user_id.to_string(), key],
    )?;
    Ok(())
}

pub(super) fn purge(connection: &Connection, before: Millis) -> Result<(), SqliteError> {
    connection.execute("DELETE FROM ml_item_intents WHERE created_at < ?1 AND state = 'done'", [before])?;
    Ok(())
}
