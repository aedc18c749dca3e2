//! [`AccountStore`] on the SQLite file that stands in PostgreSQL's place. Writes begin IMMEDIATE, so two replicas
//! queue for the file instead of failing in the middle.

mod follow_ups;
mod rows;
mod sessions;
mod users;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use service_kit::error::chain;
use service_kit::sqlite::{Pool, SqliteError};
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

/// Accounts in a SQLite file whose tables `mlctl db migrate` made.
#[derive(Clone)]
pub struct SqliteAccounts {
    pool: Pool,
}

impl SqliteAccounts {
    /// Uses the connections of `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// Runs reads that need no transaction of their own.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.pool.call(move |connection| Ok::<_, SqliteError>(work(connection)?)).await;
        outcome.map_err(|source| database(operation, source))
    }

    /// Runs one write transaction; an error rolls it back.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = self.pool.write(move |tx| Ok::<_, SqliteError>(work(tx)?)).await;
        outcome.map_err(|source| database(operation, source))
    }
}

fn database(operation: &'static str, source: SqliteError) -> StoreError {
    StoreError::Database { operation, source: Box::new(source) }
}

#[async_trait]
impl AccountStore for SqliteAccounts {
    async fn migrated(&self) -> Result<(), String> {
        self.pool.has_tables(&TABLES).await?;
        let looked = self.read("read the newest column", |connection| {
            connection.prepare("SELECT browser_hash FROM ml_connection_states").map(drop)
        });
        looked.await.map_err(|error| format!("waiting for the migrations: {}", chain(&error)))
    }

    async fn reachable(&self) -> Result<(), String> {
        self.pool.is_reachable().await
    }

    async fn create_user(&self, user: NewUser, session: NewSession) -> Result<(), StoreError> {
        let created = self
            .write("create a user", move |tx| {
                if !users::insert(tx, &user)? {
                    return Ok(false);
                }
                sessions::begin(tx, &session, user.user.created_at)?;
                Ok(true)
            })
            .await?;
        if created { Ok(()) } else { Err(StoreError::EmailTaken) }
    }

    async fn credentials(&self, email: &Email) -> Result<Option<Credentials>, StoreError> {
        let email = email.clone();
        self.read("read the credentials of a user", move |connection| users::credentials(connection, &email))
            .await
    }

    async fn user(&self, id: Uuid) -> Result<Option<User>, StoreError> {
        self.read("read a user", move |connection| users::find(connection, id)).await
    }

    async fn replace_password_hash(&self, id: Uuid, expected: &str, new: &str) -> Result<(), StoreError> {
        let (expected, new) = (expected.to_owned(), new.to_owned());
        self.write("replace a password hash", move |tx| {
            tx.execute(
                "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2",
                params![rows::id(id), expected, new],
            )?;
            Ok(())
        })
        .await
    }

    async fn delete_user(
        &self,
        id: Uuid,
        now: Timestamp,
        follow_ups: Vec<FollowUp>,
    ) -> Result<bool, StoreError> {
        self.write("delete a user", move |tx| {
            if !users::delete(tx, id)? {
                return Ok(false);
            }
            for follow_up in &follow_ups {
                follow_ups::insert(tx, follow_up, now)?;
            }
            Ok(true)
        })
        .await
    }

    async fn begin_session(&self, session: NewSession, now: Timestamp) -> Result<bool, StoreError> {
        self.write("begin a session", move |tx| {
            if users::find(tx, session.user_id)?.is_none() {
                return Ok(false);
            }
            sessions::begin(tx, &session, now)?;
            Ok(true)
        })
        .await
    }

    async fn rotate(
        &self,
        presented: TokenHash,
        next: TokenHash,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Rotation, StoreError> {
        self.write("rotate a refresh token", move |tx| sessions::rotate(tx, presented, next, now, expires_at))
            .await
    }

    async fn end_session(&self, presented: TokenHash, now: Timestamp) -> Result<(), StoreError> {
        self.write("end a session", move |tx| sessions::end(tx, presented, now)).await
    }

    async fn session_is_live(&self, id: Uuid) -> Result<bool, StoreError> {
        self.read("read a session", move |connection| sessions::is_live(connection, id)).await
    }

    async fn save_connection(&self, pending: PendingConnection) -> Result<(), StoreError> {
        self.write("save a pending connection", move |tx| {
            tx.execute(
                "INSERT INTO ml_connection_states
                 (state_hash, user_id, session_id, sealed_verifier, expires_at, browser_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    pending.state.as_bytes(),
                    rows::id(pending.user_id),
                    rows::id(pending.session_id),
                    pending.sealed_verifier,
                    rows::millis(pending.expires_at),
                    pending.browser.as_ref().map(TokenHash::as_bytes)
                ],
            )?;
            Ok(())
        })
        .await
    }

    async fn take_connection(
        &self,
        state: TokenHash,
        now: Timestamp,
    ) -> Result<Option<(PendingConnection, Tenant)>, StoreError> {
        self.write("take a pending connection", move |tx| {
            let pending = tx
                .prepare_cached(
                    "DELETE FROM ml_connection_states WHERE state_hash = ?1
                     RETURNING user_id, session_id, sealed_verifier, expires_at, browser_hash",
                )?
                .query_row([state.as_bytes()], |row| {
                    Ok(PendingConnection {
                        state,
                        user_id: rows::get_id(row, 0)?,
                        session_id: rows::get_id(row, 1)?,
                        sealed_verifier: row.get(2)?,
                        expires_at: rows::get_time(row, 3)?,
                        browser: row.get::<_, Option<[u8; 32]>>(4)?.map(TokenHash::stored),
                    })
                })
                .optional()?;
            let Some(pending) = pending.filter(|pending| now < pending.expires_at) else { return Ok(None) };
            if !sessions::is_live(tx, pending.session_id)? {
                return Ok(None);
            }
            Ok(users::find(tx, pending.user_id)?.map(|user| (pending, user.tenant)))
        })
        .await
    }

    async fn set_ml_user(&self, user_id: Uuid, ml_user_id: Option<i64>) -> Result<(), StoreError> {
        self.write("note a user's MercadoLibre account", move |tx| {
            tx.execute(
                "UPDATE users SET ml_user_id = ?2 WHERE id = ?1",
                params![rows::id(user_id), ml_user_id],
            )?;
            Ok(())
        })
        .await
    }

    async fn claim_follow_ups(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<ClaimedFollowUp>, StoreError> {
        // Most polls find nothing, and a read does not queue for the file.
        if !self.read("look for follow-ups", move |connection| follow_ups::any_due(connection, now)).await? {
            return Ok(Vec::new());
        }
        self.write("claim follow-ups", move |tx| follow_ups::claim(tx, now, lease_until, limit)).await
    }

    async fn finish_follow_up(&self, id: Uuid) -> Result<(), StoreError> {
        self.write("finish a follow-up", move |tx| {
            tx.execute("DELETE FROM user_follow_ups WHERE id = ?1", [rows::id(id)])?;
            Ok(())
        })
        .await
    }

    async fn postpone_follow_up(&self, id: Uuid, due_at: Timestamp) -> Result<(), StoreError> {
        self.write("postpone a follow-up", move |tx| {
            tx.execute(
                "UPDATE user_follow_ups SET due_at = ?2 WHERE id = ?1",
                params![rows::id(id), rows::millis(due_at)],
            )?;
            Ok(())
        })
        .await
    }

    async fn sweep(&self, now: Timestamp) -> Result<usize, StoreError> {
        self.write("remove expired sessions", move |tx| sessions::sweep(tx, now)).await
    }
}
