//! Connected accounts and the claim on their refresh. The row of an account is locked by whoever decides about it.

use service_kit::postgres::PostgresError;
use sqlx::postgres::PgRow;
use sqlx::{FromRow as _, PgConnection, Row as _};
use uuid::Uuid;

use super::{signed, unsigned};
use crate::store::{Account, Linked, Millis, RefreshClaim, SealedTokens};

/// How a row is kept until the transaction ends.
#[derive(Clone, Copy)]
enum Lock {
    None,
    Update,
}

/// By which column an account is found.
#[derive(Clone, Copy)]
enum By {
    User(Uuid),
    MlUser(u64),
}

struct Row {
    account: Account,
    refresh_lease_until: Option<Millis>,
}

impl sqlx::FromRow<'_, PgRow> for Row {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let account = Account {
            user_id: row.try_get("user_id")?,
            tenant: row.try_get("tenant")?,
            ml_user_id: unsigned(row.try_get("ml_user_id")?),
            tokens: SealedTokens {
                access: row.try_get("access_token")?,
                refresh: row.try_get("refresh_token")?,
                issued_at: row.try_get("issued_at")?,
                expires_at: row.try_get("expires_at")?,
            },
            version: unsigned(row.try_get("version")?),
            reauth_reason: row.try_get("reauth_reason")?,
        };
        Ok(Self { account, refresh_lease_until: row.try_get("refresh_lease_until")? })
    }
}

async fn find(db: &mut PgConnection, by: By, lock: Lock) -> Result<Option<Row>, PostgresError> {
    let query = match (by, lock) {
        (By::User(user), Lock::None) => {
            sqlx::query("SELECT * FROM ml_accounts WHERE user_id = $1").bind(user)
        }
        (By::User(user), Lock::Update) => {
            sqlx::query("SELECT * FROM ml_accounts WHERE user_id = $1 FOR UPDATE").bind(user)
        }
        (By::MlUser(ml_user), Lock::None) => {
            sqlx::query("SELECT * FROM ml_accounts WHERE ml_user_id = $1").bind(signed(ml_user))
        }
        (By::MlUser(ml_user), Lock::Update) => {
            sqlx::query("SELECT * FROM ml_accounts WHERE ml_user_id = $1 FOR UPDATE").bind(signed(ml_user))
        }
    };
    let found = query.fetch_optional(db).await?;
    Ok(found.as_ref().map(Row::from_row).transpose()?)
}

/// The account of a user.
pub(super) async fn of_user(db: &mut PgConnection, user: Uuid) -> Result<Option<Account>, PostgresError> {
    Ok(find(db, By::User(user), Lock::None).await?.map(|row| row.account))
}

/// The account of a MercadoLibre user.
pub(super) async fn of_ml_user(
    db: &mut PgConnection,
    ml_user: u64,
) -> Result<Option<Account>, PostgresError> {
    Ok(find(db, By::MlUser(ml_user), Lock::None).await?.map(|row| row.account))
}

/// Links an account; two users who link the same one at once are told apart by its unique index, after which the
/// caller asks again.
pub(super) async fn link(db: &mut PgConnection, new: &Account, now: Millis) -> Result<Linked, PostgresError> {
    if let Some(owner) = find(db, By::MlUser(new.ml_user_id), Lock::Update).await?
        && owner.account.user_id != new.user_id
    {
        return Ok(Linked::Elsewhere(Box::new(owner.account)));
    }
    let earlier = find(db, By::User(new.user_id), Lock::Update).await?;
    // The version goes on from the earlier pair's, so that a refresh under way cannot overwrite the new one.
    sqlx::query(
        "INSERT INTO ml_accounts AS a (user_id, tenant, ml_user_id, access_token, refresh_token, issued_at, expires_at,
         version, connected_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8)
         ON CONFLICT (user_id) DO UPDATE SET tenant = excluded.tenant, ml_user_id = excluded.ml_user_id,
         access_token = excluded.access_token, refresh_token = excluded.refresh_token,
         issued_at = excluded.issued_at, expires_at = excluded.expires_at, version = a.version + 1,
         refresh_lease_until = NULL, reauth_reason = NULL, connected_at = excluded.connected_at",
    )
    .bind(new.user_id)
    .bind(&new.tenant)
    .bind(signed(new.ml_user_id))
    .bind(&new.tokens.access)
    .bind(&new.tokens.refresh)
    .bind(new.tokens.issued_at)
    .bind(new.tokens.expires_at)
    .bind(now)
    .execute(db)
    .await?;
    Ok(if earlier.is_some() { Linked::Replaced } else { Linked::New })
}

/// Forgets a user's account and listings; what the account was.
pub(super) async fn unlink(db: &mut PgConnection, user: Uuid) -> Result<Option<Account>, PostgresError> {
    let gone = sqlx::query("DELETE FROM ml_accounts WHERE user_id = $1 RETURNING *")
        .bind(user)
        .fetch_optional(&mut *db)
        .await?;
    sqlx::query("DELETE FROM ml_item_intents WHERE user_id = $1").bind(user).execute(db).await?;
    Ok(gone.as_ref().map(Row::from_row).transpose()?.map(|row| row.account))
}

/// Claims the refresh of the pair of that version.
pub(super) async fn claim_refresh(
    db: &mut PgConnection,
    user: Uuid,
    version: u64,
    now: Millis,
    lease_until: Millis,
) -> Result<RefreshClaim, PostgresError> {
    let Some(row) = find(db, By::User(user), Lock::Update).await? else { return Ok(RefreshClaim::Gone) };
    if row.account.version != version || row.account.reauth_reason.is_some() {
        return Ok(RefreshClaim::Moved);
    }
    match row.refresh_lease_until {
        Some(until) if until > now => Ok(RefreshClaim::Busy),
        Some(_) => Ok(RefreshClaim::Interrupted),
        None => {
            sqlx::query("UPDATE ml_accounts SET refresh_lease_until = $2 WHERE user_id = $1")
                .bind(user)
                .bind(lease_until)
                .execute(db)
                .await?;
            Ok(RefreshClaim::Claimed(Box::new(row.account)))
        }
    }
}

/// Stores a new pair over the version it replaces.
pub(super) async fn commit_refresh(
    db: &mut PgConnection,
    user: Uuid,
    version: u64,
    tokens: &SealedTokens,
) -> Result<bool, PostgresError> {
    let changed = sqlx::query(
        "UPDATE ml_accounts SET access_token = $3, refresh_token = $4, issued_at = $5, expires_at = $6,
         version = version + 1, refresh_lease_until = NULL, reauth_reason = NULL
         WHERE user_id = $1 AND version = $2",
    )
    .bind(user)
    .bind(signed(version))
    .bind(&tokens.access)
    .bind(&tokens.refresh)
    .bind(tokens.issued_at)
    .bind(tokens.expires_at)
    .execute(db)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Ends a claim; with a reason, the person must connect again.
pub(super) async fn end_refresh(
    db: &mut PgConnection,
    user: Uuid,
    version: u64,
    reauth_reason: Option<&str>,
) -> Result<(), PostgresError> {
    sqlx::query(
        "UPDATE ml_accounts SET refresh_lease_until = NULL, reauth_reason = coalesce($3, reauth_reason)
         WHERE user_id = $1 AND version = $2",
    )
    .bind(user)
    .bind(signed(version))
    .bind(reauth_reason)
    .execute(db)
    .await?;
    Ok(())
}
