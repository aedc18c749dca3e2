//! Statements on `users`.

use service_kit::postgres::PostgresError;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rows;
use crate::account::{Email, Tenant, User};
use crate::store::{Credentials, NewUser};

/// `id, email, tenant, created_at, ml_user_id`.
type Row = (Uuid, String, String, i64, Option<i64>);

/// Inserts a user; false if the e-mail is taken.
pub(super) async fn insert(db: &mut PgConnection, new: &NewUser) -> Result<bool, PostgresError> {
    let user = &new.user;
    let inserted = sqlx::query(
        "INSERT INTO users (id, tenant, email, password_hash, ml_user_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (email) DO NOTHING",
    )
    .bind(user.id)
    .bind(user.tenant.as_str())
    .bind(user.email.as_str())
    .bind(&new.password_hash)
    .bind(user.ml_user_id)
    .bind(rows::millis(user.created_at))
    .execute(db)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The user and the password hash behind an e-mail.
pub(super) async fn credentials(
    db: &mut PgConnection,
    email: &Email,
) -> Result<Option<Credentials>, PostgresError> {
    let found: Option<(Uuid, String, String, i64, Option<i64>, String)> = sqlx::query_as(
        "SELECT id, email, tenant, created_at, ml_user_id, password_hash FROM users WHERE email = $1",
    )
    .bind(email.as_str())
    .fetch_optional(db)
    .await?;
    found
        .map(|(id, email, tenant, created_at, ml_user_id, password_hash)| {
            Ok(Credentials { user: user((id, email, tenant, created_at, ml_user_id))?, password_hash })
        })
        .transpose()
}

/// The user with an id.
pub(super) async fn find(db: &mut PgConnection, id: Uuid) -> Result<Option<User>, PostgresError> {
    let found: Option<Row> =
        sqlx::query_as("SELECT id, email, tenant, created_at, ml_user_id FROM users WHERE id = $1")
            .bind(id)
            .fetch_optional(db)
            .await?;
    found.map(user).transpose()
}

/// The same, kept from being deleted until the transaction ends.
pub(super) async fn find_and_keep(db: &mut PgConnection, id: Uuid) -> Result<Option<User>, PostgresError> {
    let found: Option<Row> = sqlx::query_as(
        "SELECT id, email, tenant, created_at, ml_user_id FROM users WHERE id = $1 FOR KEY SHARE",
    )
    .bind(id)
    .fetch_optional(db)
    .await?;
    found.map(user).transpose()
}

/// Removes a user and, by the foreign keys, all that is theirs; false if there is none. The user's row is locked first,
/// then the sessions', and only then what hangs on them goes.
pub(super) async fn delete(db: &mut PgConnection, id: Uuid) -> Result<bool, PostgresError> {
    sqlx::query("SELECT FROM users WHERE id = $1 FOR UPDATE").bind(id).execute(&mut *db).await?;
    sqlx::query("SELECT FROM user_sessions WHERE user_id = $1 ORDER BY id FOR UPDATE")
        .bind(id)
        .execute(&mut *db)
        .await?;
    let deleted = sqlx::query("DELETE FROM users WHERE id = $1").bind(id).execute(db).await?;
    Ok(deleted.rows_affected() == 1)
}

fn user((id, email, tenant, created_at, ml_user_id): Row) -> Result<User, PostgresError> {
    Ok(User {
        id,
        email: Email::parse(&email).map_err(|error| rows::corrupt("an e-mail", error))?,
        tenant: Tenant::stored(tenant),
        created_at: rows::time(created_at)?,
        ml_user_id,
    })
}
