//! The webhook inbox.

use service_kit::postgres::PostgresError;
use sqlx::PgConnection;

use super::{signed, unsigned};
use crate::store::{Claimed, Millis, Notification, Settled};

/// Stores a notification; false when its id was stored before.
pub(super) async fn receive(
    db: &mut PgConnection,
    one: &Notification,
    work: bool,
) -> Result<bool, PostgresError> {
    let added = sqlx::query(
        "INSERT INTO ml_webhook_inbox (id, topic, resource, ml_user_id, payload, received_at, state, due_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $6) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&one.id)
    .bind(&one.topic)
    .bind(&one.resource)
    .bind(signed(one.ml_user_id))
    .bind(&one.payload)
    .bind(one.received_at)
    .bind(if work { "waiting" } else { "skipped" })
    .execute(db)
    .await?;
    Ok(added.rows_affected() == 1)
}

/// Claims what is due; rows that another replica is just claiming are passed over.
pub(super) async fn claim_due(
    db: &mut PgConnection,
    now: Millis,
    lease_until: Millis,
    max: usize,
) -> Result<Vec<Claimed>, PostgresError> {
    let rows: Vec<(String, String, String, i64, String, i64, i32)> = sqlx::query_as(
        "UPDATE ml_webhook_inbox SET due_at = $2, attempts = attempts + 1 WHERE id IN (
             SELECT id FROM ml_webhook_inbox WHERE state = 'waiting' AND due_at <= $1
             ORDER BY due_at, received_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING id, topic, resource, ml_user_id, payload, received_at, attempts",
    )
    .bind(now)
    .bind(lease_until)
    .bind(signed(max as u64))
    .fetch_all(db)
    .await?;
    let mut claimed: Vec<Claimed> = rows
        .into_iter()
        .map(|(id, topic, resource, ml_user_id, payload, received_at, attempts)| Claimed {
            notification: Notification {
                id,
                topic,
                resource,
                ml_user_id: unsigned(ml_user_id),
                payload,
                received_at,
            },
            attempt: u32::try_from(attempts).unwrap_or_default(),
        })
        .collect();
    // RETURNING promises no order.
    claimed.sort_by(|a, b| {
        let key = |one: &Claimed| (one.notification.received_at, one.notification.id.clone());
        key(a).cmp(&key(b))
    });
    Ok(claimed)
}

/// Notes how work ended.
pub(super) async fn settle(
    db: &mut PgConnection,
    ids: &[String],
    settled: &Settled,
) -> Result<(), PostgresError> {
    let (state, due_at, error) = match settled {
        Settled::Done => ("done", None, None),
        Settled::Later(due_at, error) => ("waiting", Some(*due_at), Some(error)),
        Settled::Dead(error) => ("dead", None, Some(error)),
    };
    sqlx::query(
        "UPDATE ml_webhook_inbox SET state = $2, due_at = coalesce($3, due_at), last_error = $4 WHERE id = ANY($1)",
    )
    .bind(ids)
    .bind(state)
    .bind(due_at)
    .bind(error)
    .execute(db)
    .await?;
    Ok(())
}

/// How many wait.
pub(super) async fn waiting(db: &mut PgConnection) -> Result<u64, PostgresError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM ml_webhook_inbox WHERE state = 'waiting'")
        .fetch_one(db)
        .await?;
    Ok(unsigned(count))
}

/// Removes what is settled and old. The dead are kept: somebody must look at them.
pub(super) async fn purge(db: &mut PgConnection, before: Millis) -> Result<(), PostgresError> {
    sqlx::query("DELETE FROM ml_webhook_inbox WHERE state IN ('done', 'skipped') AND received_at < $1")
        .bind(before)
        .execute(db)
        .await?;
    Ok(())
}
