//! Statements on `user_sessions` and `refresh_tokens`.

use jiff::Timestamp;
use service_kit::postgres::PostgresError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{rows, users};
use crate::random::TokenHash;
use crate::store::{NewSession, Rotation};

/// Rows that one sweep removes of a table: what is more waits for the next, and a short transaction holds nobody up.
const SWEPT_AT_ONCE: i64 = 5_000;

/// Begins a session with its first token.
pub(super) async fn begin(
    db: &mut PgConnection,
    session: &NewSession,
    now: Timestamp,
) -> Result<(), PostgresError> {
    sqlx::query("INSERT INTO user_sessions (id, user_id, created_at) VALUES ($1, $2, $3)")
        .bind(session.id)
        .bind(session.user_id)
        .bind(rows::millis(now))
        .execute(&mut *db)
        .await?;
    insert_token(db, session.token, session.id, session.expires_at).await
}

/// Uses a token up. The row of its session is locked first, so callers with tokens of one session queue, and the
/// second of two with the same token sees `used_at`.
pub(super) async fn rotate(
    db: &mut PgConnection,
    presented: TokenHash,
    next: TokenHash,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<Rotation, PostgresError> {
    let locked: Option<(Uuid, Uuid, bool)> = sqlx::query_as(
        "SELECT s.id, s.user_id, s.revoked_at IS NOT NULL FROM user_sessions s
         WHERE s.id = (SELECT t.session_id FROM refresh_tokens t WHERE t.token_hash = $1)
         FOR NO KEY UPDATE OF s",
    )
    .bind(presented.as_bytes())
    .fetch_optional(&mut *db)
    .await?;
    let Some((session_id, user_id, revoked)) = locked else { return Ok(Rotation::Refused) };
    // Asked after the lock: under READ COMMITTED this statement sees what the one before us committed.
    let token: Option<(i64, bool)> =
        sqlx::query_as("SELECT expires_at, used_at IS NOT NULL FROM refresh_tokens WHERE token_hash = $1")
            .bind(presented.as_bytes())
            .fetch_optional(&mut *db)
            .await?;
    let Some((ends_at, used)) = token else { return Ok(Rotation::Refused) };
    if revoked || rows::millis(now) >= ends_at {
        return Ok(Rotation::Refused);
    }
    if used {
        revoke(db, session_id, now).await?;
        return Ok(Rotation::Reused { session_id });
    }
    // Read without a lock: whoever removes the user waits for the session, and comes after us.
    let Some(user) = users::find(db, user_id).await? else { return Ok(Rotation::Refused) };
    sqlx::query("UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1")
        .bind(presented.as_bytes())
        .bind(rows::millis(now))
        .execute(&mut *db)
        .await?;
    insert_token(db, next, session_id, expires_at).await?;
    Ok(Rotation::Rotated { session_id, user })
}

/// Revokes the session of a token.
pub(super) async fn end(
    db: &mut PgConnection,
    presented: TokenHash,
    now: Timestamp,
) -> Result<(), PostgresError> {
    let session: Option<Uuid> =
        sqlx::query_scalar("SELECT session_id FROM refresh_tokens WHERE token_hash = $1")
            .bind(presented.as_bytes())
            .fetch_optional(&mut *db)
            .await?;
    match session {
        Some(session_id) => revoke(db, session_id, now).await,
        None => Ok(()),
    }
}

/// Whether a session exists and was not revoked.
pub(super) async fn is_live(db: &mut PgConnection, id: Uuid) -> Result<bool, PostgresError> {
    let live = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM user_sessions WHERE id = $1 AND revoked_at IS NULL)",
    )
    .bind(id)
    .fetch_one(db)
    .await?;
    Ok(live)
}

/// Removes what expired, some thousand rows at a time; rows in somebody's hands are left for the next sweep. A token goes
/// only with its session locked: nobody rotates it meanwhile, and a session that lost its last one goes too.
pub(super) async fn sweep(db: &mut PgConnection, now: Timestamp) -> Result<usize, PostgresError> {
    let consents = sqlx::query(
        "DELETE FROM ml_connection_states WHERE state_hash IN (
             SELECT state_hash FROM ml_connection_states WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
    )
    .bind(rows::millis(now))
    .bind(SWEPT_AT_ONCE)
    .execute(&mut *db)
    .await?
    .rows_affected();
    let of_sessions: Vec<Uuid> = sqlx::query_scalar(
        "WITH late AS (
             SELECT t.token_hash FROM refresh_tokens t JOIN user_sessions s ON s.id = t.session_id
             WHERE t.expires_at <= $1 ORDER BY t.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM refresh_tokens t USING late WHERE t.token_hash = late.token_hash RETURNING t.session_id",
    )
    .bind(rows::millis(now))
    .bind(SWEPT_AT_ONCE)
    .fetch_all(&mut *db)
    .await?;
    let tokens = of_sessions.len();
    let sessions = sqlx::query(
        "DELETE FROM user_sessions s WHERE s.id = ANY($1)
         AND NOT EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = s.id)",
    )
    .bind(of_sessions)
    .execute(&mut *db)
    .await?
    .rows_affected();
    Ok(tokens + usize::try_from(consents + sessions).unwrap_or(usize::MAX))
}

async fn insert_token(
    db: &mut PgConnection,
    token: TokenHash,
    session_id: Uuid,
    expires_at: Timestamp,
) -> Result<(), PostgresError> {
    sqlx::query("INSERT INTO refresh_tokens (token_hash, session_id, expires_at) VALUES ($1, $2, $3)")
        .bind(token.as_bytes())
        .bind(session_id)
        .bind(rows::millis(expires_at))
        .execute(db)
        .await?;
    Ok(())
}

/// A revoked session keeps its rows until they expire and loses its pending consents at once. The session's row comes
/// first, as everywhere, so that nobody waits for the other in a circle.
async fn revoke(db: &mut PgConnection, session_id: Uuid, now: Timestamp) -> Result<(), PostgresError> {
    sqlx::query("UPDATE user_sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
        .bind(session_id)
        .bind(rows::millis(now))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM ml_connection_states WHERE session_id = $1")
        .bind(session_id)
        .execute(db)
        .await?;
    Ok(())
}
