//! Statements on `user_sessions` and `refresh_tokens`.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use uuid::Uuid;

use super::{rows, users};
use crate::random::TokenHash;
use crate::store::{NewSession, Rotation};

/// Begins a session with its first token.
pub(super) fn begin(tx: &Transaction<'_>, session: &NewSession, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO user_sessions (id, user_id, created_at) VALUES (?1, ?2, ?3)")?
        .execute(params![rows::id(session.id), rows::id(session.user_id), rows::millis(now)])?;
    insert_token(tx, session.token, session.id, session.expires_at)
}

/// Uses a token up. The transaction holds the write lock, so of two callers the second sees `used_at`.
pub(super) fn rotate(
    tx: &Transaction<'_>,
    presented: TokenHash,
    next: TokenHash,
    now: Timestamp,
    expires_at: Timestamp,
) -> rusqlite::Result<Rotation> {
    let found = tx
        .prepare_cached(
            "SELECT t.session_id, s.user_id, t.expires_at, t.used_at IS NOT NULL, s.revoked_at IS NOT NULL
             FROM refresh_tokens t JOIN user_sessions s ON s.id = t.session_id WHERE t.token_hash = ?1",
        )?
        .query_row([presented.as_bytes()], |row| {
            Ok((
                rows::get_id(row, 0)?,
                rows::get_id(row, 1)?,
                rows::get_time(row, 2)?,
                row.get::<_, bool>(3)?,
                row.get::<_, bool>(4)?,
            ))
        })
        .optional()?;
    let Some((session_id, user_id, ends_at, used, revoked)) = found else { return Ok(Rotation::Refused) };
    if revoked || now >= ends_at {
        return Ok(Rotation::Refused);
    }
    if used {
        revoke(tx, session_id, now)?;
        return Ok(Rotation::Reused { session_id });
    }
    let Some(user) = users::find(tx, user_id)? else { return Ok(Rotation::Refused) };
    tx.prepare_cached("UPDATE refresh_tokens SET used_at = ?2 WHERE token_hash = ?1")?
        .execute(params![presented.as_bytes(), rows::millis(now)])?;
    insert_token(tx, next, session_id, expires_at)?;
    Ok(Rotation::Rotated { session_id, user })
}

/// Revokes the session of a token.
pub(super) fn end(tx: &Transaction<'_>, presented: TokenHash, now: Timestamp) -> rusqlite::Result<()> {
    let session = tx
        .prepare_cached("SELECT session_id FROM refresh_tokens WHERE token_hash = ?1")?
        .query_row([presented.as_bytes()], |row| rows::get_id(row, 0))
        .optional()?;
    match session {
        Some(session_id) => revoke(tx, session_id, now),
        None => Ok(()),
    }
}

/// Whether a session exists and was not revoked.
pub(super) fn is_live(connection: &Connection, id: Uuid) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM user_sessions WHERE id = ?1 AND revoked_at IS NULL)")?
        .query_row([rows::id(id)], |row| row.get(0))
}

/// Removes what expired.
pub(super) fn sweep(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<usize> {
    let now = rows::millis(now);
    let consents = tx.execute("DELETE FROM ml_connection_states WHERE expires_at <= ?1", [now])?;
    let tokens = tx.execute("DELETE FROM refresh_tokens WHERE expires_at <= ?1", [now])?;
    // Only sessions that just lost a token can have become empty; without one, the search is spared.
    let sessions = if tokens == 0 {
        0
    } else {
        tx.execute(
            "DELETE FROM user_sessions
             WHERE NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = user_sessions.id)",
            [],
        )?
    };
    Ok(consents + tokens + sessions)
}

fn insert_token(
    tx: &Transaction<'_>,
    token: TokenHash,
    session_id: Uuid,
    expires_at: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES (?1, ?2, ?3)")?
        .execute(params![token.as_bytes(), rows::id(session_id), rows::millis(expires_at)])?;
    Ok(())
}

/// A revoked session keeps its rows until they expire and loses its pending consents at once.
fn revoke(tx: &Transaction<'_>, session_id: Uuid, now: Timestamp) -> rusqlite::Result<()> {
    let id = rows::id(session_id);
    tx.execute("DELETE FROM ml_connection_states WHERE session_id = ?1", [&id])?;
    tx.execute(
        "UPDATE user_sessions SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
        params![id, rows::millis(now)],
    )?;
    Ok(())
}
