//! A bounded set of connections to one file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use tokio::sync::Semaphore;

use super::{SqliteError, open};
use crate::pools::{ConnectionPool, Measures};

pub use rusqlite::Transaction;

/// How long a call waits for a free connection before it fails as busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// Attempts to open a connection while another process switches the file to WAL.
const OPEN_ATTEMPTS: u32 = 100;
/// Pause between them.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// A pool of connections to one database file; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    store: &'static str,
    path: PathBuf,
    size: usize,
    permits: Arc<Semaphore>,
    /// Connections not in use; opened on first need, so a service starts while its store is away.
    idle: Mutex<Vec<Connection>>,
    active: AtomicUsize,
    measures: Measures,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Pool({} at {}, {} of {} in use)",
            self.0.store,
            self.0.path.display(),
            self.active(),
            self.0.size
        )
    }
}

impl ConnectionPool for Pool {
    fn store(&self) -> &'static str {
        self.0.store
    }

    fn size(&self) -> usize {
        self.0.size
    }

    fn measures(&self) -> &Measures {
        &self.0.measures
    }
}

impl Pool {
    /// A pool of at most `size` connections; `store` is its name in metrics and errors. Opens nothing yet.
    #[must_use]
    pub fn new(store: &'static str, path: &Path, size: usize) -> Self {
        let size = size.max(1);
        Self(Arc::new(Inner {
            store,
            path: path.to_owned(),
            size,
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::new(Vec::new()),
            active: AtomicUsize::new(0),
            measures: Measures::default(),
        }))
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Connections in use at this moment.
    #[must_use]
    pub fn active(&self) -> usize {
        self.0.active.load(Ordering::Relaxed)
    }

    /// Runs `work` with a connection on a blocking thread. The work is never broken off half way: when the caller goes
    /// away, it still finishes and the connection comes back.
    ///
    /// # Errors
    /// [`SqliteError`] of the pool, or what `work` answers.
    pub async fn call<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    {
        let inner = self.0.clone();
        let began = Instant::now();
        let permit = tokio::time::timeout(ACQUIRE_TIMEOUT, inner.permits.clone().acquire_owned())
            .await
            .map_err(|_| SqliteError::Exhausted { store: inner.store, waited: ACQUIRE_TIMEOUT })?
            .map_err(|_| SqliteError::Lost { store: inner.store })?;
        inner.measures.waited(began.elapsed().as_secs_f64());
        let store = inner.store;
        let kept = inner.idle.lock().pop();
        let mut connection = match kept {
            Some(connection) => connection,
            None => inner.open().await?,
        };
        let span = tracing::Span::current();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _active = Active::enter(&inner);
            span.in_scope(|| {
                let result = work(&mut connection);
                // A transaction left open would make every later call on this connection part of it.
                if connection.is_autocommit() {
                    inner.idle.lock().push(connection);
                }
                result
            })
        });
        done.await.map_err(|_| SqliteError::Lost { store })?
    }

    /// Runs `work` in a transaction that holds the write lock from its beginning; commits when `work` is `Ok`.
    ///
    /// # Errors
    /// [`SqliteError`] of the pool or of the commit, or what `work` answers; nothing is written then.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<SqliteError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        self.call(|connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(SqliteError::from)?;
            let value = work(&transaction)?;
            transaction.commit().map_err(SqliteError::from)?;
            Ok(value)
        })
        .await
    }

    /// Answers `Ok` when all these tables exist, else a sentence for a startup check: services never migrate their
    /// database themselves, they wait until it has been done.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub async fn has_tables(&self, tables: &'static [&'static str]) -> Result<(), String> {
        let missing = self
            .call(move |connection| {
                let mut query = connection
                    .prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?;
                for table in tables {
                    if query.query_row([table], |_| Ok(())).optional()?.is_none() {
                        return Ok(Some(*table));
                    }
                }
                Ok::<_, SqliteError>(None)
            })
            .await;
        match missing {
            Ok(None) => Ok(()),
            Ok(Some(table)) => Err(format!("waiting for the migrations: table {table} does not exist")),
            Err(error) => Err(crate::error::chain(&error)),
        }
    }

    /// Answers `Ok` when the file can be read; for readiness checks.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn is_reachable(&self) -> Result<(), String> {
        self.call(|connection| {
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
            Ok::<_, SqliteError>(())
        })
        .await
        .map_err(|error| crate::error::chain(&error))
    }
}

impl Inner {
    /// Opens one more connection. Processes that start together switch a new file to WAL together, and SQLite answers
    /// "busy" to all but one of them at once, whatever the busy timeout: waiting would be a deadlock.
    async fn open(&self) -> Result<Connection, SqliteError> {
        for _ in 1..OPEN_ATTEMPTS {
            match self.open_once().await {
                Err(error) if error.is_busy() => tokio::time::sleep(OPEN_PAUSE).await,
                done => return done,
            }
        }
        self.open_once().await
    }

    async fn open_once(&self) -> Result<Connection, SqliteError> {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&path));
        opened.await.map_err(|_| SqliteError::Lost { store: self.store })?
    }
}

/// Counts a connection as in use, also when the work panics.
struct Active<'a>(&'a Inner);

impl<'a> Active<'a> {
    fn enter(inner: &'a Inner) -> Self {
        inner.active.fetch_add(1, Ordering::Relaxed);
        let entered = Self(inner);
        entered.publish(1.0);
        entered
    }

    fn publish(&self, change: f64) {
        self.0.measures.active(change);
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
        self.publish(-1.0);
    }
}
