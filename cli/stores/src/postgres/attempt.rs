//! One attempt on a database, for errors that say what was tried where, and never a password.

use std::time::Duration;

use mlctl_core::ports::StoreError;
use sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgErrorPosition};
use sqlx::{ConnectOptions as _, PgConnection};

use crate::migration::MigrationSet;

/// For a connection; a server that recovers says so at once.
const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// What is tried, on what, where.
pub(super) struct Attempt<'a> {
    pub(super) operation: &'static str,
    pub(super) subject: String,
    /// The database as people may read it.
    pub(super) place: &'a str,
}

impl Attempt<'_> {
    /// The database refused, or is not there.
    pub(super) fn failed(&self, error: &sqlx::Error) -> StoreError {
        self.error(format!("{}: {}", self.place, words(error)), is_unreachable(error))
    }

    /// A statement of a file failed; told with its line.
    pub(super) fn failed_at(&self, error: &sqlx::Error, sql: &str) -> StoreError {
        let line = line_of(error, sql).map(|line| format!("line {line}: ")).unwrap_or_default();
        self.error(format!("{line}{} ({})", words(error), self.place), is_unreachable(error))
    }

    /// We refuse.
    pub(super) fn refused(&self, reason: impl Into<String>) -> StoreError {
        self.error(reason.into(), false)
    }

    fn error(&self, reason: String, unreachable: bool) -> StoreError {
        StoreError { operation: self.operation, subject: self.subject.clone(), reason, unreachable }
    }
}

/// Reads the address of a set's database; the first part is what people may read of it.
pub(super) fn place(
    set: &MigrationSet,
    operation: &'static str,
) -> Result<(String, PgConnectOptions), StoreError> {
    let is_ours = ["postgresql://", "postgres://"].iter().any(|scheme| set.url.starts_with(scheme));
    let options = set.url.parse::<PgConnectOptions>().ok().filter(|_| is_ours);
    let options = options.ok_or_else(|| StoreError {
        operation,
        subject: set.service.clone(),
        // It may carry a password, so nothing of it is told.
        reason: "the address of its database cannot be read, expected postgresql://USER@HOST:PORT/NAME"
            .to_owned(),
        unreachable: false,
    })?;
    let database = options.get_database().unwrap_or_default();
    let place = format!("PostgreSQL on {}:{}, database {database}", options.get_host(), options.get_port());
    Ok((place, options.application_name("mlctl").disable_statement_logging()))
}

/// Connects.
pub(super) async fn connect(
    attempt: &Attempt<'_>,
    options: &PgConnectOptions,
) -> Result<PgConnection, StoreError> {
    match tokio::time::timeout(CONNECT_WAIT, options.connect()).await {
        Ok(connected) => connected.map_err(|error| attempt.failed(&error)),
        Err(_) => {
            let reason = format!("{}: no answer within {} s", attempt.place, CONNECT_WAIT.as_secs());
            Err(attempt.error(reason, true))
        }
    }
}

/// Returns what the server says, with its code; of other errors their own words.
fn words(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(refusal) => match refusal.code() {
            // Another mlctl, or a service in the middle of a long transaction.
            Some(code) if code == "55P03" => {
                format!("{}: somebody else holds what it needs; try again ({code})", refusal.message())
            }
            Some(code) => format!("{} ({code})", refusal.message()),
            None => refusal.message().to_owned(),
        },
        None => error.to_string(),
    }
}

/// Says whether there was nobody to ask, or nobody who lets us in.
fn is_unreachable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // Connections, passwords, and servers that shut down or start.
        sqlx::Error::Database(refusal) => refusal.code().is_some_and(|code| {
            ["08", "28", "57P", "3D", "53300"].iter().any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}

/// Returns the line of a script at which the server stopped reading.
fn line_of(error: &sqlx::Error, sql: &str) -> Option<usize> {
    let refusal = error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?;
    match refusal.position()? {
        // Counted in characters, from 1.
        PgErrorPosition::Original(at) => {
            Some(sql.chars().take(at.saturating_sub(1)).filter(|c| *c == '\n').count() + 1)
        }
        PgErrorPosition::Internal { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(url: &str) -> MigrationSet {
        MigrationSet { service: "api".to_owned(), url: url.to_owned(), files: Vec::new() }
    }

    #[test]
    fn a_place_is_told_without_its_password() {
        let (shown, options) =
            place(&set("postgresql://me:hush@db.example.com:5433/shop"), "migrate").unwrap();
        assert_eq!(shown, "PostgreSQL on db.example.com:5433, database shop");
        assert_eq!(options.get_username(), "me");
        for url in ["postgresql://me:hush@[/shop", "sqlite:hush", ""] {
            let error = place(&set(url), "migrate").unwrap_err().to_string();
            assert!(error.starts_with("migrate api: ") && !error.contains("hush"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_unreachable() {
        let set = set("postgresql://me:hush@127.0.0.1:1/shop");
        let (place, options) = place(&set, "migrate").unwrap();
        let attempt = Attempt { operation: "migrate", subject: "api".to_owned(), place: &place };
        let error = connect(&attempt, &options).await.unwrap_err();
        assert!(error.unreachable && !error.to_string().contains("hush"), "{error}");
    }
}
