//! Statements on `users`.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use super::rows;
use crate::account::{Email, Tenant, User};
use crate::store::{Credentials, NewUser};

/// Inserts a user; false if the e-mail is taken.
pub(super) fn insert(tx: &Transaction<'_>, new: &NewUser) -> rusqlite::Result<bool> {
    let user = &new.user;
    let inserted = tx.execute(
        "INSERT INTO users (id, tenant, email, password_hash, ml_user_id, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (email) DO NOTHING",
        params![
            rows::id(user.id),
            user.tenant.as_str(),
            user.email.as_str(),
            new.password_hash,
            user.ml_user_id,
            rows::millis(user.created_at)
        ],
    )?;
    Ok(inserted == 1)
}

/// The user and the password hash behind an e-mail.
pub(super) fn credentials(connection: &Connection, email: &Email) -> rusqlite::Result<Option<Credentials>> {
    connection
        .prepare_cached(
            "SELECT id, email, tenant, created_at, ml_user_id, password_hash FROM users WHERE email = ?1",
        )?
        .query_row([email.as_str()], |row| Ok(Credentials { user: user(row)?, password_hash: row.get(5)? }))
        .optional()
}

/// The user with an id.
pub(super) fn find(connection: &Connection, id: Uuid) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached("SELECT id, email, tenant, created_at, ml_user_id FROM users WHERE id = ?1")?
        .query_row([rows::id(id)], user)
        .optional()
}

/// Removes a user and all that is theirs; false if there is none. Explicit, so that it holds whether or not a
/// connection enforces foreign keys.
pub(super) fn delete(tx: &Transaction<'_>, id: Uuid) -> rusqlite::Result<bool> {
    let id = rows::id(id);
    tx.execute("DELETE FROM ml_connection_states WHERE user_id = ?1", [&id])?;
    tx.execute(
        "DELETE FROM refresh_tokens WHERE session_id IN (SELECT id FROM user_sessions WHERE user_id = ?1)",
        [&id],
    )?;
    tx.execute("DELETE FROM user_sessions WHERE user_id = ?1", [&id])?;
    Ok(tx.execute("DELETE FROM users WHERE id = ?1", [&id])? == 1)
}

/// Reads `id, email, tenant, created_at, ml_user_id`.
fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let email: String = row.get(1)?;
    Ok(User {
        id: rows::get_id(row, 0)?,
        email: Email::parse(&email).map_err(|error| rows::unreadable(1, Type::Text, error))?,
        tenant: Tenant::stored(row.get(2)?),
        created_at: rows::get_time(row, 3)?,
        ml_user_id: row.get(4)?,
    })
}
