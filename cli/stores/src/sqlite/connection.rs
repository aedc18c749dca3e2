//! Opening a database, and saying what went wrong with one.

use std::path::Path;
use std::time::Duration;

use mlctl_core::ports::StoreError;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Batch, Connection, ErrorCode, OpenFlags};

use super::holder;

/// Opens a database for reading; none when there is no such file, which is not created.
pub(super) fn open_to_read(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    // Reading a WAL database writes its shared-memory file, so the file is opened for writing and the statements
    // are kept from it.
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(Some(connection))
}

/// Opens a database for writing, making it where it is not there, in WAL mode so that readers never wait.
pub(super) fn open_to_write(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags() | OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.busy_timeout(busy_timeout)?;
    enter_wal(&connection)?;
    // See the module page: a table cannot be rebuilt with foreign keys on. They are checked before each commit.
    connection.pragma_update(None, "foreign_keys", false)?;
    Ok(connection)
}

/// Turns a database to WAL mode, where it stays.
fn enter_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        let busy = match connection.query_row("PRAGMA journal_mode = wal", [], |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => error,
            done => return done,
        };
        tries += 1;
        if tries == WAL_TRIES {
            return Err(busy);
        }
        // The switch itself does not wait for others, so a transaction waits in its place: when it has its turn,
        // whoever was in the way is gone, perhaps after making the switch for us.
        connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
    }
}

/// Two that make a database at the same time meet once; more tries are for more of them.
const WAL_TRIES: u32 = 20;

const fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// Runs the statements of a migration inside the transaction that is open. It may not end that transaction, nor
/// reach another database: half a migration could stay in then, or lie where its record is not.
pub(super) fn run_script(connection: &Connection, sql: &str) -> Result<(), Failure> {
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Transaction { .. } | AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Authorization::Deny
        }
        _ => Authorization::Allow,
    }))?;
    let done = run_statements(connection, sql);
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    done
}

/// Runs statement by statement, so that the one which fails can be told.
fn run_statements(connection: &Connection, sql: &str) -> Result<(), Failure> {
    let mut batch = Batch::new(connection, sql);
    let mut rest = sql;
    for number in 1.. {
        let at = |text: &str, source| Failure { number, text: text.to_owned(), source };
        let Some(mut statement) = batch.next().map_err(|source| at(rest, source))? else { break };
        let text = statement.expanded_sql().unwrap_or_default();
        rest = rest.split_once(&text).map_or(rest, |(_, after)| after);
        let mut rows = statement.raw_query();
        while rows.next().map_err(|source| at(&text, source))?.is_some() {}
    }
    Ok(())
}

/// A statement that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Its place in the file, from 1.
    number: usize,
    /// Its text, and perhaps what follows it.
    text: String,
    source: rusqlite::Error,
}

impl From<rusqlite::Error> for Failure {
    fn from(source: rusqlite::Error) -> Self {
        Self { number: 0, text: String::new(), source }
    }
}

/// What was being done, for the errors of one database.
pub(super) struct Attempt<'a> {
    /// The verb.
    pub(super) operation: &'static str,
    /// The service, or its migration.
    pub(super) subject: String,
    /// The database.
    pub(super) path: &'a Path,
    /// How long a busy database was waited for.
    pub(super) busy_timeout: Duration,
}

impl Attempt<'_> {
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
    pub(super) fn failed(&self, error: &rusqlite::Error) -> StoreError {
        let path = self.path.display();
        let (reason, unreachable) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (self.busy(), true),
            Some(ErrorCode::CannotOpen) => {
                (format!("{path} cannot be opened: deploy the infrastructure phase first, or check its folder"), true)
            }
            Some(ErrorCode::NotADatabase) => (format!("{path} is not a SQLite database"), false),
            Some(ErrorCode::ReadOnly) => (format!("{path} may not be written: check its owner and mode"), true),
            Some(ErrorCode::DiskFull) => (format!("the disk of {path} is full"), true),
            Some(ErrorCode::AuthorizationForStatementDenied) => (
                "it begins or ends a transaction, or attaches another database: remove that statement, for each \
                 migration runs in one transaction together with its record"
                    .to_owned(),
                false,
            ),
            _ => (sentence(error), false),
        };
        StoreError { operation: self.operation, subject: self.subject.clone(), reason, unreachable }
    }

    /// Says which statement of a migration failed, and why.
    pub(super) fn failed_at(&self, failure: &Failure) -> StoreError {
        let mut error = self.failed(&failure.source);
        if failure.number > 0 {
            let line = first_line(&failure.text);
            error.reason = format!("statement {}, `{line}`: {}", failure.number, error.reason);
        }
        error
    }

    fn busy(&self) -> String {
        let path = self.path.display();
        let waited = self.busy_timeout.as_secs_f64();
        let writers = holder::writers(self.path);
        let who = if writers.is_empty() {
            format!("look for another mlctl, or for who has it open: `fuser -v {path}`")
        } else {
            format!("it is held by {}: wait for it, or end it", writers.join(", "))
        };
        format!("{path} was locked by another writer for {waited} s; {who}")
    }
}

/// Returns the first line of a statement that is neither empty nor a comment, cut to what people read.
fn first_line(statement: &str) -> String {
    let mut lines = statement.trim_start_matches(';').lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with("--")).unwrap_or_default();
    line.chars().take(120).collect()
}

/// Returns the database's own words, with the place in the statement when it names one.
fn sentence(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            let before = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset)).unwrap_or("");
            let rest = sql.get(before.len()..).unwrap_or("");
            let near = rest.lines().next().unwrap_or("").trim();
            if near.is_empty() { msg.clone() } else { format!("{msg}, at `{near}`") }
        }
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}
