//! [`AccountStore`] on PostgreSQL.
//!
//! Transactions are READ COMMITTED: what must not change under them is locked by its row, users before sessions before
//! what hangs on them, so that two callers queue and never wait for each other in a circle. Who wants many rows of many
//! sessions, the sweep, waits for none of them.

mod follow_ups;
mod rows;
mod sessions;
mod users;

use async_trait::async_trait;
use jiff::Timestamp;
use service_kit::error::chain;
use service_kit::postgres::{Pool, PostgresError};
use uuid::Uuid;

use super::{
    AccountStore, ClaimedFollowUp, Credentials, FollowUp, NewSession, NewUser, PendingConnection, Rotation,
    StoreError,
};
use crate::account::{Email, Tenant, User};
use crate::random::TokenHash;

/// Tables that the migrations make.
static TABLES: [&str; 5] =
    ["users", "user_sessions", "refresh_tokens", "ml_connection_states", "user_follow_ups"];

/// Accounts in a PostgreSQL database whose tables `mlctl db migrate` made.
#[derive(Clone)]
pub struct PostgresAccounts {
    pool: Pool,
}

impl PostgresAccounts {
    /// Uses the connections of `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(PostgresError) -> StoreError {
    move |source| StoreError::Database { operation, source: Box::new(source) }
}

/// Runs reads or one statement on a connection of the pool.
macro_rules! on_connection {
    ($self:ident, $operation:literal, |$db:ident| $work:expr) => {{
        let work = async {
            let mut held = $self.pool.acquire().await?;
            let $db = &mut *held;
            Ok::<_, PostgresError>($work)
        };
        $self.pool.bounded(work).await.map_err(failed($operation))
    }};
}

/// Runs one transaction; an error rolls it back.
macro_rules! in_transaction {
    ($self:ident, $operation:literal, |$db:ident| $work:expr) => {{
        let work = async {
            let mut open = $self.pool.begin().await?;
            let $db = &mut *open;
            let value = $work;
            open.commit().await?;
            Ok::<_, PostgresError>(value)
        };
        $self.pool.bounded(work).await.map_err(failed($operation))
    }};
}

#[async_trait]
impl AccountStore for PostgresAccounts {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(&TABLES).await?;
        let looked = on_connection!(self, "read the newest column", |db| {
            sqlx::query("SELECT browser_hash FROM ml_connection_states LIMIT 0").execute(db).await?;
        });
        looked.map_err(|error| format!("waiting for the migrations: {}", chain(&error)))
    }

    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn create_user(&self, user: NewUser, session: NewSession) -> Result<(), StoreError> {
        let created = in_transaction!(self, "create a user", |db| {
            let created = users::insert(db, &user).await?;
            if created {
                sessions::begin(db, &session, user.user.created_at).await?;
            }
            created
        })?;
        if created { Ok(()) } else { Err(StoreError::EmailTaken) }
    }

    async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, StoreError> {
        on_connection!(self, "read the credentials of a user", |db| users::credentials(db, email).await?)
    }

    async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        on_connection!(self, "read a user", |db| users::find(db, id).await?)
    }

    async fn replace_password_hash(&self, id: Uuid, expected: &str, new: &str) -> Result<(), StoreError> {
        on_connection!(self, "replace a password hash", |db| {
            sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
                .bind(id)
                .bind(expected)
                .bind(new)
                .execute(db)
                .await?;
        })
    }

    async fn delete_user(
        &self,
        id: Uuid,
        now: Timestamp,
        follow_ups: Vec<FollowUp>,
    ) -> Result<bool, StoreError> {
        in_transaction!(self, "delete a user", |db| {
            let deleted = users::delete(db, id).await?;
            if deleted {
                for follow_up in &follow_ups {
                    follow_ups::insert(db, follow_up, now).await?;
                }
            }
            deleted
        })
    }

    async fn begin_session(&self, session: NewSession, now: Timestamp) -> Result<bool, StoreError> {
        in_transaction!(self, "begin a session", |db| {
            let known = users::find_and_keep(db, session.user_id).await?.is_some();
            if known {
                sessions::begin(db, &session, now).await?;
            }
            known
        })
    }

    async fn rotate(
        &self,
        presented: TokenHash,
        next: TokenHash,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation, StoreError> {
        in_transaction!(self, "rotate a refresh token", |db| {
            sessions::rotate(db, presented, next, now, expires_at).await?
        })
    }

    async fn end_session(&self, presented: TokenHash, now: Timestamp) -> Result<(), StoreError> {
        in_transaction!(self, "end a session", |db| sessions::end(db, presented, now).await?)
    }

    async fn session_is_live(&self, id: Uuid) -> Result<bool, StoreError> {
        on_connection!(self, "read a session", |db| sessions::is_live(db, id).await?)
    }

    async fn save_connection(&self, pending: PendingConnection) -> Result<(), StoreError> {
        on_connection!(self, "save a pending connection", |db| {
            sqlx::query(
                "INSERT INTO ml_connection_states
                 (state_hash, user_id, session_id, sealed_verifier, expires_at, browser_hash)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(pending.state.as_bytes())
            .bind(pending.user_id)
            .bind(pending.session_id)
            .bind(&pending.sealed_verifier)
            .bind(rows::millis(pending.expires_at))
            .bind(pending.browser.as_ref().map(TokenHash::as_bytes))
            .execute(db)
            .await?;
        })
    }

    async fn take_connection(
        &self,
        state: TokenHash,
        now: Timestamp,
    ) -> Result<Option<(PendingConnection, Tenant)>, StoreError> {
        in_transaction!(self, "take a pending connection", |db| {
            // Deleting is the lock: of two callers one gets the row.
            let taken: Option<(Uuid, Uuid, Vec<u8>, i64, Option<Vec<u8>>)> = sqlx::query_as(
                "DELETE FROM ml_connection_states WHERE state_hash = $1
                 RETURNING user_id, session_id, sealed_verifier, expires_at, browser_hash",
            )
            .bind(state.as_bytes())
            .fetch_optional(&mut *db)
            .await?;
            match taken {
                Some((user_id, session_id, sealed_verifier, expires_at, browser)) => {
                    let expires_at = rows::time(expires_at)?;
                    let browser = browser.map(|bytes| rows::hash(&bytes)).transpose()?;
                    let pending = PendingConnection {
                        state,
                        user_id,
                        session_id,
                        browser,
                        sealed_verifier,
                        expires_at,
                    };
                    if now < expires_at && sessions::is_live(db, session_id).await? {
                        users::find(db, user_id).await?.map(|user| (pending, user.tenant))
                    } else {
                        None
                    }
                }
                None => None,
            }
        })
    }

    async fn set_ml_user(&self, user_id: Uuid, ml_user_id: Option<i64>) -> Result<(), StoreError> {
        on_connection!(self, "note a user's MercadoLibre account", |db| {
            sqlx::query("UPDATE users SET ml_user_id = $2 WHERE id = $1")
                .bind(user_id)
                .bind(ml_user_id)
                .execute(db)
                .await?;
        })
    }

    async fn claim_follow_ups(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedFollowUp>, StoreError> {
        on_connection!(self, "claim follow-ups", |db| {
            follow_ups::claim(db, now, lease_until, limit).await?
        })
    }

    async fn finish_follow_up(&self, id: Uuid) -> Result<(), StoreError> {
        on_connection!(self, "finish a follow-up", |db| {
            sqlx::query("DELETE FROM user_follow_ups WHERE id = $1").bind(id).execute(db).await?;
        })
    }

    async fn postpone_follow_up(&self, id: Uuid, due_at: Timestamp) -> Result<(), StoreError> {
        on_connection!(self, "postpone a follow-up", |db| {
            sqlx::query("UPDATE user_follow_ups SET due_at = $2 WHERE id = $1")
                .bind(id)
                .bind(rows::millis(due_at))
                .execute(db)
                .await?;
        })
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        in_transaction!(self, "remove expired sessions", |db| sessions::sweep(db, now).await?)
    }
}
