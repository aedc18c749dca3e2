//! Listing intents.

use service_kit::postgres::PostgresError;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::{Begun, Intent, Millis};

/// Hash of the request, state, status, answer and lease of an intent.
type Earlier = (String, String, Option<i32>, Option<String>, i64);

/// Begins a listing, or says what became of an earlier one of the same key. Whoever inserts the row is the first;
/// everybody else finds it, locked until the one before has decided.
pub(super) async fn begin(
    db: &mut PgConnection,
    intent: &Intent,
    now: Millis,
    lease_until: Millis,
) -> Result<Begun, PostgresError> {
    let inserted = sqlx::query(
        "INSERT INTO ml_item_intents (user_id, key, request_hash, seller_sku, state, created_at, lease_until)
         VALUES ($1, $2, $3, $4, 'sending', $5, $6) ON CONFLICT (user_id, key) DO NOTHING",
    )
    .bind(intent.user_id)
    .bind(&intent.key)
    .bind(&intent.request_hash)
    .bind(&intent.seller_sku)
    .bind(now)
    .bind(lease_until)
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok(Begun::Fresh);
    }
    let earlier: Option<Earlier> = sqlx::query_as(
        "SELECT request_hash, state, status, answer, lease_until FROM ml_item_intents
         WHERE user_id = $1 AND key = $2 FOR UPDATE",
    )
    .bind(intent.user_id)
    .bind(&intent.key)
    .fetch_optional(&mut *db)
    .await?;
    // Forgotten between the two statements: to the caller as if another were still at it.
    let Some((request_hash, state, status, answer, lease)) = earlier else { return Ok(Begun::InFlight) };
    if request_hash != intent.request_hash {
        return Ok(Begun::OtherRequest);
    }
    if let ("done", Some(status), Some(answer)) =
        (state.as_str(), status.and_then(|status| u16::try_from(status).ok()), answer)
    {
        return Ok(Begun::Done { status, answer });
    }
    // A sending one whose lease is over belongs to a process that died: as doubtful as one that said so.
    if state == "sending" && lease > now {
        return Ok(Begun::InFlight);
    }
    sqlx::query(
        "UPDATE ml_item_intents SET state = 'sending', lease_until = $3 WHERE user_id = $1 AND key = $2",
    )
    .bind(intent.user_id)
    .bind(&intent.key)
    .bind(lease_until)
    .execute(db)
    .await?;
    Ok(Begun::Doubtful)
}

/// Stores the answer.
pub(super) async fn finish(
    db: &mut PgConnection,
    user: Uuid,
    key: &str,
    status: u16,
    answer: &str,
) -> Result<(), PostgresError> {
    sqlx::query(
        "UPDATE ml_item_intents SET state = 'done', status = $3, answer = $4 WHERE user_id = $1 AND key = $2",
    )
    .bind(user)
    .bind(key)
    .bind(i32::from(status))
    .bind(answer)
    .execute(db)
    .await?;
    Ok(())
}

/// Marks a listing whose outcome is unknown.
pub(super) async fn doubt(db: &mut PgConnection, user: Uuid, key: &str) -> Result<(), PostgresError> {
    sqlx::query("UPDATE ml_item_intents SET state = 'doubtful' WHERE user_id = $1 AND key = $2")
        .bind(user)
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}

/// Forgets a listing that certainly was not carried out.
pub(super) async fn forget(db: &mut PgConnection, user: Uuid, key: &str) -> Result<(), PostgresError> {
    sqlx::query("DELETE FROM ml_item_intents WHERE user_id = $1 AND key = $2")
        .bind(user)
        .bind(key)
        .execute(db)
        .await?;
    Ok(())
}

/// Removes the answers of old listings; a doubt is never forgotten.
pub(super) async fn purge(db: &mut PgConnection, before: Millis) -> Result<(), PostgresError> {
    sqlx::query("DELETE FROM ml_item_intents WHERE created_at < $1 AND state = 'done'")
        .bind(before)
        .execute(db)
        .await?;
    Ok(())
}
