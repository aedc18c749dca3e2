//! PostgreSQL for an asynchronous service: a bounded pool that connects when it is first needed.
//!
//! One connection a request, given back at its end; a checked-out connection that idled is asked whether it lives. The
//! server bounds what a lost client can hold: a statement, a lock and an idle transaction each have a limit.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Postgres};

use crate::pools::{ConnectionPool, Measures};

/// How long a call waits for a free connection before it fails as busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that idled longer is asked before it is used: the server may have closed it meanwhile.
const CHECK_AFTER: Duration = Duration::from_secs(1);
/// How long a whole call may take: longer than the server allows one statement, so its own verdict comes first.
const CALL_LIMIT: Duration = Duration::from_secs(6);
/// How long a connection that comes back may take to answer; a server that vanished never would.
const RETURN_LIMIT: Duration = Duration::from_secs(2);
/// Limits that the server itself keeps, by its own names.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "5s"), ("lock_timeout", "3s"), ("idle_in_transaction_session_timeout", "10s")];

/// A store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The address cannot be read. What it says is not repeated: it may hold a password.
    #[error("the address of the database cannot be read; expected postgresql://USER@HOST:PORT/NAME")]
    Address,
    /// No connection came free, or none could be made, in time.
    #[error("no connection to {store} within {} ms", waited.as_millis())]
    Exhausted {
        /// Name of the pool.
        store: &'static str,
        /// How long the call waited.
        waited: Duration,
    },
    /// The server took what it was asked and did not answer; whether it was done is unknown.
    #[error("{store} did not answer within {} ms", waited.as_millis())]
    Silent {
        /// Name of the pool.
        store: &'static str,
        /// How long the call waited.
        waited: Duration,
    },
    /// A statement failed, or the connection under it.
    #[error("a statement failed")]
    Statement(#[from] sqlx::Error),
    /// What is stored is not what the service wrote there.
    #[error("the store holds {what} that cannot be read")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PostgresError {
    /// True when trying again later may help: the server is away, full, or chose this transaction as a victim.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Exhausted { .. } | Self::Silent { .. } => true,
            Self::Statement(sqlx::Error::Database(error)) => {
                // https://www.postgresql.org/docs/current/errcodes-appendix.html: connection exceptions, rollbacks
                // (deadlock, serialization), insufficient resources, operator intervention, lock and other timeouts.
                let code = error.code().unwrap_or_default();
                // 25006: the server became a standby after this connection was made.
                ["08", "40", "53", "57", "55", "25006"].iter().any(|class| code.starts_with(class))
            }
            Self::Statement(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::Protocol(_)
            ),
            Self::Address | Self::Corrupt { .. } => false,
        }
    }

    /// Name of the unique or primary key constraint that refused the row.
    #[must_use]
    pub fn duplicate_of(&self) -> Option<&str> {
        let Self::Statement(sqlx::Error::Database(error)) = self else { return None };
        error.is_unique_violation().then(|| error.constraint().unwrap_or_default())
    }
}

/// A pool of connections to one database; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    store: &'static str,
    size: u32,
    pool: PgPool,
    measures: Measures,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, at most {})", self.0.store, self.0.size)
    }
}

impl ConnectionPool for Pool {
    fn store(&self) -> &'static str {
        self.0.store
    }

    fn size(&self) -> usize {
        self.0.size as usize
    }

    fn measures(&self) -> &Measures {
        &self.0.measures
    }
}

impl Pool {
    /// A pool of at most `size` connections; `store` is its name in metrics and errors, `service` what the server shows
    /// as `application_name`. Opens nothing yet, so a service starts while its database is away.
    ///
    /// # Errors
    /// [`PostgresError::Address`].
    pub fn new(
        store: &'static str,
        service: &str,
        url: &SecretString,
        size: u32,
    ) -> Result<Self, PostgresError> {
        let options = PgConnectOptions::from_str(url.expose_secret()).map_err(|_| PostgresError::Address)?;
        let options = options.application_name(service).options(LIMITS);
        let pool = PgPoolOptions::new()
            .max_connections(size.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, seen| {
                Box::pin(async move {
                    if seen.idle_for < CHECK_AFTER {
                        return Ok(true);
                    }
                    Ok(connection.ping().await.is_ok())
                })
            })
            // Bounded here, because the pool's own question on return is not: connections to a server that vanished
            // would stay out of the pool until the kernel gives them up, a quarter of an hour later.
            .after_release(|connection, _| {
                Box::pin(async move {
                    match tokio::time::timeout(RETURN_LIMIT, connection.ping()).await {
                        Ok(answered) => answered.map(|()| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
            .connect_lazy_with(options);
        Ok(Self(Arc::new(Inner { store, size: size.max(1), pool, measures: Measures::default() })))
    }

    /// A connection, until it is dropped.
    ///
    /// # Errors
    /// [`PostgresError::Exhausted`] after two seconds, [`PostgresError::Statement`] when the server refuses.
    pub async fn acquire(&self) -> Result<Held, PostgresError> {
        let connection = self.waiting(self.0.pool.acquire()).await?;
        Ok(Held { connection, _active: Active::enter(&self.0) })
    }

    /// A transaction of its own connection; dropped without [`Open::commit`], it is rolled back.
    ///
    /// # Errors
    /// As [`Pool::acquire`].
    pub async fn begin(&self) -> Result<Open, PostgresError> {
        let transaction = self.waiting(self.0.pool.begin()).await?;
        Ok(Open { transaction, _active: Active::enter(&self.0) })
    }

    async fn waiting<T>(
        &self,
        given: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, PostgresError> {
        let began = Instant::now();
        let given = given.await;
        let waited = began.elapsed();
        self.0.measures.waited(waited.as_secs_f64());
        given.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => PostgresError::Exhausted { store: self.0.store, waited },
            other => PostgresError::Statement(other),
        })
    }

    /// Runs one whole call, from the connection to the commit, and gives it up when the server stays silent: a frozen
    /// server closes no connection, and its own limits do not run either.
    ///
    /// # Errors
    /// [`PostgresError::Silent`], or what `work` answers.
    pub async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        let silent = PostgresError::Silent { store: self.0.store, waited: CALL_LIMIT };
        tokio::time::timeout(CALL_LIMIT, work).await.unwrap_or(Err(silent))
    }

    /// Answers `Ok` when all these tables exist, else a sentence for a startup check: services never migrate their
    /// database themselves, they wait until it has been done.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub async fn has_tables(&self, tables: &'static [&'static str]) -> Result<(), String> {
        let missing = async {
            let mut connection = self.acquire().await?;
            let missing: Option<String> = sqlx::query_scalar(
                "SELECT wanted FROM unnest($1::text[]) AS wanted WHERE to_regclass(wanted) IS NULL LIMIT 1",
            )
            .bind(tables)
            .fetch_optional(&mut *connection)
            .await?;
            Ok::<_, PostgresError>(missing)
        };
        match self.bounded(missing).await {
            Ok(None) => Ok(()),
            Ok(Some(table)) => Err(format!("waiting for the migrations: table {table} does not exist")),
            Err(error) => Err(crate::error::chain(&error)),
        }
    }

    /// Answers `Ok` when the database answers; for readiness checks.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn is_reachable(&self) -> Result<(), String> {
        let asked = async {
            let mut connection = self.acquire().await?;
            sqlx::query("SELECT 1").execute(&mut *connection).await?;
            Ok::<_, PostgresError>(())
        };
        self.bounded(asked).await.map_err(|error| crate::error::chain(&error))
    }

    /// Closes every connection, at the end of a service.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }
}

/// A connection given out by a [`Pool`].
pub struct Held {
    connection: sqlx::pool::PoolConnection<Postgres>,
    _active: Active,
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// An open transaction of a [`Pool`].
pub struct Open {
    transaction: sqlx::Transaction<'static, Postgres>,
    _active: Active,
}

impl Open {
    /// Makes what was written last.
    ///
    /// # Errors
    /// [`PostgresError::Statement`]; whether it was written is unknown when the connection broke.
    pub async fn commit(self) -> Result<(), PostgresError> {
        Ok(self.transaction.commit().await?)
    }
}

impl Deref for Open {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}

/// Counts a connection as in use until it is dropped.
struct Active(Arc<Inner>);

impl Active {
    fn enter(pool: &Arc<Inner>) -> Self {
        pool.measures.active(1.0);
        Self(Arc::clone(pool))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.measures.active(-1.0);
    }
}
