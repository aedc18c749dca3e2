//! Statements on `user_follow_ups`. A claim is a due time pushed into the future: no worker to remember, and a
//! replica that dies gives its work back by itself.

use jiff::Timestamp;
use service_kit::postgres::PostgresError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows;
use crate::store::{ClaimedFollowUp, FollowUp, FollowUpTask};

/// Writes a follow-up, due at once.
pub(super) async fn insert(
    db: &mut PgConnection,
    follow_up: &FollowUp,
    now: Timestamp,
) -> Result<(), PostgresError> {
    let (kind, payload) = match &follow_up.task {
        FollowUpTask::Disconnect => ("disconnect", String::new()),
        FollowUpTask::Publish(event) => ("publish", event.to_string()),
    };
    sqlx::query(
        "INSERT INTO user_follow_ups (id, kind, user_id, payload, due_at) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(follow_up.id)
    .bind(kind)
    .bind(follow_up.user_id)
    .bind(payload)
    .bind(rows::millis(now))
    .execute(db)
    .await?;
    Ok(())
}

/// Takes due work until `lease_until`; rows that another replica is just taking are passed over.
pub(super) async fn claim(
    db: &mut PgConnection,
    now: Timestamp,
    lease_until: Timestamp,
    limit: usize,
) -> Result<Vec<ClaimedFollowUp>, PostgresError> {
    let mut claimed: Vec<(Uuid, Uuid, String, String, i32, i64)> = sqlx::query_as(
        "WITH due AS (
             SELECT id, due_at FROM user_follow_ups WHERE due_at <= $1
             ORDER BY due_at, id LIMIT $3 FOR UPDATE SKIP LOCKED
         )
         UPDATE user_follow_ups f SET due_at = $2, attempts = f.attempts + 1 FROM due WHERE f.id = due.id
         RETURNING f.id, f.user_id, f.kind, f.payload, f.attempts - 1, due.due_at",
    )
    .bind(rows::millis(now))
    .bind(rows::millis(lease_until))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(db)
    .await?;
    // RETURNING promises no order.
    claimed.sort_by_key(|(id, .., was_due)| (*was_due, *id));
    claimed
        .into_iter()
        .map(|(id, user_id, kind, payload, attempts, _)| {
            let task = if kind == "disconnect" {
                FollowUpTask::Disconnect
            } else {
                let event = serde_json::from_str(&payload)
                    .map_err(|error| rows::corrupt("the event of a follow-up", error))?;
                FollowUpTask::Publish(event)
            };
            let attempts = u32::try_from(attempts).unwrap_or_default();
            Ok(ClaimedFollowUp { follow_up: FollowUp { id, user_id, task }, attempts })
        })
        .collect()
}
