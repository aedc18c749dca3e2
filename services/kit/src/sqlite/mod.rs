//! SQLite for an asynchronous service: a bounded pool whose calls run on blocking threads.
//!
//! Several processes share each file. So: WAL (readers never wait for the writer), `BEGIN IMMEDIATE` for every
//! writing transaction (a lock taken late is a lock that fails half way), 5 s of busy timeout, and
//! `synchronous=NORMAL`: a crash of the process loses nothing, a crash of the machine at most the last commits.

mod pool;

pub use pool::{Pool, Transaction};

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The file cannot be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
    /// The folder of the file cannot be made.
    #[error("cannot make the folder of the database {}", path.display())]
    Folder {
        /// The database file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Every connection was in use for too long.
    #[error("no connection to {store} became free within {} ms", waited.as_millis())]
    Exhausted {
        /// Name of the pool.
        store: &'static str,
        /// How long the call waited.
        waited: Duration,
    },
    /// A statement failed.
    #[error("a statement failed")]
    Statement(#[from] rusqlite::Error),
    /// Stored text is not what the service wrote there.
    #[error("the store holds {what} that cannot be read")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The call itself broke: it panicked, or the process is ending.
    #[error("a call to {store} did not finish")]
    Lost {
        /// Name of the pool.
        store: &'static str,
    },
}

impl SqliteError {
    /// True when trying again later may help.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Exhausted { .. } => true,
            Self::Statement(error) | Self::Open { source: error, .. } => {
                matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
            _ => false,
        }
    }

    /// True when a unique or primary key constraint refused the row.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        let Self::Statement(rusqlite::Error::SqliteFailure(failure, _)) = self else { return false };
        matches!(
            failure.extended_code,
            rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        )
    }
}

/// Opens one connection with the settings of this module, making the file and its folder when they are not there.
pub(crate) fn open(path: &Path) -> Result<Connection, SqliteError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|source| SqliteError::Folder { path: path.to_owned(), source })?;
    }
    let configure = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(connection)
    };
    configure().map_err(|source| SqliteError::Open { path: path.to_owned(), source })
}
