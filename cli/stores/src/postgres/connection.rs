//! Opening a database, waiting for one's turn, and saying what went wrong.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlctl_core::ports::StoreError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::PostgresStore;
use super::script::Statement;

/// How long the server may take to let us in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether another runner is done.
const LOOK: Duration = Duration::from_millis(50);
/// The advisory lock of a database's migrations: any number that nobody else takes ("mlctl" in ASCII).
const LOCK: i64 = 0x6d_6c63_746c;

/// Where a database is. Its password is in the options only, which are never shown.
pub(super) struct Address {
    options: PgConnectOptions,
    shown: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// The sentence that says why not, without what the address says: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if !PostgresStore::knows(url) {
            let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
            return Err(format!(
                "its database is `{scheme}:...`, and these migrations run on `postgresql://...`"
            ));
        }
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            "its address cannot be read: expected postgresql://USER[:PASSWORD]@HOST[:PORT]/NAME".to_owned()
        })?;
        let options = options.application_name("mlctl migrations");
        let host = options
            .get_socket()
            .map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
        let name = options.get_database().unwrap_or_else(|| options.get_username());
        let shown = format!("{host}:{}/{name}", options.get_port());
        Ok(Self { options, shown })
    }
}

/// Opens a database.
pub(super) async fn open(attempt: &Attempt) -> Result<PgConnection, StoreError> {
    let connecting = PgConnection::connect_with(&attempt.address.options);
    let Ok(opened) = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await else {
        let waited = CONNECT_TIMEOUT.as_secs();
        let reason =
            format!("{} did not let us in within {waited} s: is it there, and well?", attempt.address);
        return Err(StoreError { unreachable: true, ..attempt.refused(reason) });
    };
    let mut connection = opened.map_err(|error| attempt.failed(&error))?;
    settle(&mut connection, attempt.busy_timeout).await.map_err(|error| attempt.failed(&error))?;
    Ok(connection)
}

/// Makes the session's settings ours, whatever a migration made of them (dumps empty the search path).
///
/// The server ends by itself what a lost runner leaves: a statement whose client is gone, and a transaction in which
/// nothing happens.
pub(super) async fn settle(connection: &mut PgConnection, busy_timeout: Duration) -> sqlx::Result<()> {
    connection.execute("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL").await?;
    sqlx::query(
        "SELECT set_config('lock_timeout', $1, false),
                set_config('statement_timeout', '0', false),
                set_config('idle_in_transaction_session_timeout', '60s', false),
                set_config('tcp_keepalives_idle', '15', false),
                set_config('tcp_keepalives_interval', '5', false),
                set_config('client_connection_check_interval', '1s', false)
         FROM (SELECT) AS any_version",
    )
    .bind(format!("{}ms", busy_timeout.as_millis()))
    .execute(connection)
    .await
    .map(drop)
}

/// Waits until no other runner works on the database; the lock goes with the session.
///
/// It is asked for again and again and not waited for in the server: a session that waits there holds a snapshot, and
/// the other's `CREATE INDEX CONCURRENTLY` waits for every snapshot, so each would wait for the other.
pub(super) async fn take_turn(connection: &mut PgConnection, attempt: &Attempt) -> Result<(), StoreError> {
    let began = Instant::now();
    loop {
        let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *connection)
            .await
            .map_err(|error| attempt.failed(&error))?;
        if taken {
            return Ok(());
        }
        if began.elapsed() >= attempt.busy_timeout {
            let holder = holder(connection).await.map_err(|error| attempt.failed(&error))?;
            let waited = attempt.busy_timeout.as_secs_f64();
            let who = holder.unwrap_or_else(|| "another runner".to_owned());
            let reason = format!(
                "{} was locked by another migration for {waited} s; it is held by {who}: wait for it, or end it",
                attempt.address
            );
            return Err(StoreError { unreachable: true, ..attempt.refused(reason) });
        }
        tokio::time::sleep(LOOK.min(attempt.busy_timeout)).await;
    }
}

/// Says who has the lock of the migrations, as the server knows it.
async fn holder(connection: &mut PgConnection) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "SELECT coalesce(nullif(a.application_name, ''), a.usename::text, 'a session') || ' (backend ' || l.pid
                || coalesce(', from ' || host(a.client_addr), '') || ')'
         FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND ((l.classid::bigint << 32) | l.objid::bigint) = $1",
    )
    .bind(LOCK)
    .fetch_optional(connection)
    .await
}

/// Sends one statement as it stands; the rows it gives are nobody's.
pub(super) async fn send(connection: &mut PgConnection, statement: &Statement<'_>) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.text)).execute(connection).await.map(drop)
}

/// What was being done, for the errors of one database.
#[derive(Clone)]
pub(super) struct Attempt {
    /// The verb.
    pub(super) operation: &'static str,
    /// The service, or its migration.
    pub(super) subject: String,
    /// The database.
    pub(super) address: Arc<Address>,
    /// How long others were waited for.
    pub(super) busy_timeout: Duration,
}

impl Attempt {
    /// Returns the attempt at one file of it.
    pub(super) fn at(&self, file_name: &str) -> Self {
        Self { subject: format!("{} {file_name}", self.subject), ..self.clone() }
    }

    /// Returns an error of our own finding.
    pub(super) fn refused(&self, reason: impl Into<String>) -> StoreError {
        StoreError {
            operation: self.operation,
            subject: self.subject.clone(),
            reason: reason.into(),
            unreachable: false,
        }
    }

    /// Says what an error of the database means and what to do about it.
    pub(super) fn failed(&self, error: &sqlx::Error) -> StoreError {
        let (reason, unreachable) = match database_error(error) {
            Some(error) => self.told(error, error.message().to_owned()),
            None => (format!("{} does not answer: {}", self.address, broken(error)), true),
        };
        StoreError { unreachable, ..self.refused(reason) }
    }

    /// Says which statement of a migration failed, and why.
    pub(super) fn failed_at(
        &self,
        number: usize,
        statement: &Statement<'_>,
        error: &sqlx::Error,
    ) -> StoreError {
        let mut failed = match database_error(error) {
            Some(error) => {
                // A server repeats the word that it stumbles over, and that may be the password.
                let words = if statement.holds_password() {
                    format!("the server refuses it ({}), in words that may hold the password", error.code())
                } else {
                    sentence(error, statement.text)
                };
                let (reason, unreachable) = self.told(error, words);
                StoreError { unreachable, ..self.refused(reason) }
            }
            None => self.failed(error),
        };
        failed.reason = format!("statement {number}, `{}`: {}", statement.shown(), failed.reason);
        failed
    }

    /// Returns what an answer of the server means, and whether it is one of a server that is away.
    fn told(&self, error: &PgDatabaseError, words: String) -> (String, bool) {
        let address = &self.address;
        match error.code() {
            "3D000" => {
                (format!("{address}: {words}: deploy the infrastructure phase first, or create it"), true)
            }
            "28000" | "28P01" => (format!("{address} does not let us in: {words}"), true),
            "55P03" => {
                let waited = self.busy_timeout.as_secs_f64();
                let hint = "another session holds a lock on what it changes";
                (format!("{hint} and kept it for {waited} s: try again when it is done ({words})"), true)
            }
            "25006" => (format!("{address} may not be written: it is a standby, or set to read only"), true),
            "42501" => (format!("{words}: grant it to the user of the migrations"), false),
            code if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
                (format!("{address}: {words}"), true)
            }
            _ => (words, false),
        }
    }
}

fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    match error {
        sqlx::Error::Database(error) => error.try_downcast_ref(),
        _ => None,
    }
}

/// Says what broke a connection, without naming the driver.
fn broken(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// Returns the server's own words, with the place in the statement when it names one.
fn sentence(error: &PgDatabaseError, sql: &str) -> String {
    let near = match error.position() {
        Some(PgErrorPosition::Original(position)) => {
            let rest = sql.char_indices().nth(position.saturating_sub(1)).map_or("", |(at, _)| &sql[at..]);
            rest.lines().next().unwrap_or_default().trim()
        }
        _ => "",
    };
    let words = error.message();
    if near.is_empty() { words.to_owned() } else { format!("{words}, at `{near}`") }
}
