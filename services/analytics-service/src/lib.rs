//! analytics-service: counts the events of the system per user, type and hour, each exactly once, and answers queries.
//!
//! Modules in reading order: [`event`] reads the envelope, [`fold`] adds a batch up, [`store`] keeps counts and position
//! in one transaction, [`consumer`] drives both, [`query`] and [`routes`] answer clients.
//!
//! Absent on purpose: nothing here publishes events, and nothing migrates the database (`mlctl db migrate` does).

pub mod config;
pub mod consumer;
mod error;
pub mod event;
pub mod fold;
pub mod metrics;
pub mod query;
pub mod routes;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use service_kit::eventlog::EventLog;
use service_kit::health::Kind;
use service_kit::lease::Lease;
use service_kit::pools::{self, ConnectionPool};
use service_kit::postgres::{self, PostgresError};
use service_kit::sqlite::SqliteError;
use service_kit::{DatabaseUrl, Identity, Kit, Listener, Place, ServeError, Shutdown};
use uuid::Uuid;

pub use crate::config::Config;
use crate::consumer::{Consumer, partition};
use crate::metrics::ConsumerMetrics;
use crate::routes::App;
use crate::store::AnalyticsStore;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;

/// Who this service is.
pub const IDENTITY: Identity = Identity::new("analytics-service", env!("CARGO_PKG_VERSION"), 3004);

/// Time between two looks of a health check.
const CHECK_PERIOD: Duration = Duration::from_millis(500);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The event log cannot be opened.
    #[error("cannot start without the event log")]
    Log(#[from] SqliteError),
    /// The address of the database cannot be read.
    #[error("cannot use the database")]
    Database(#[from] PostgresError),
    /// A store that this build cannot reach.
    #[error("this build has no adapter for {0}")]
    NoAdapter(&'static str),
    /// A listening socket broke.
    #[error("cannot go on serving")]
    Serve(#[from] ServeError),
}

/// Runs the service until `shutdown`.
///
/// # Errors
/// [`RunError`] when the event log cannot be opened at the start, or a socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), RunError> {
    let kit =
        Kit::new(IDENTITY, &config.base).announce(routes::ROUTES).openapi(include_str!("../openapi.json"));
    let (store, pool) = open_database(&config)?;
    let log = open_events(&config).await?;
    pools::register(&kit.metrics, &[&*pool, log.pool()]);
    let metrics = ConsumerMetrics::register(&kit.metrics, &partition());
    watch(&kit, &store, &shutdown);

    let consumer = Consumer::new(
        Arc::clone(&store),
        log,
        config.clock.clone(),
        metrics,
        kit.health.check("consumer", Kind::Info),
        Lease::new(Uuid::new_v4().to_string()),
    );
    let (tracer, counting, stop) = (kit.tracer.clone(), Arc::clone(&store), shutdown.clone());
    let consumer = tokio::spawn(async move { tracer.scope(consume(counting, consumer, stop)).await });
    let app = App { store, verifier: config.verifier, clock: config.clock };
    let served = kit.serve(routes::router(app), listener, shutdown).await;
    if served.is_err() {
        // Nobody asked for the drain, so the consumer would go on for ever; each batch is all or nothing.
        consumer.abort();
    }
    match consumer.await {
        Err(error) if !error.is_cancelled() => tracing::error!(%error, "the consumer ended early"),
        _ => {}
    }
    Ok(served?)
}

/// The database, and its pool for the metrics.
fn open_database(config: &Config) -> Result<(Arc<dyn AnalyticsStore>, Arc<dyn ConnectionPool>), RunError> {
    match &config.database {
        DatabaseUrl::Sqlite(path) => {
            let store = Arc::new(SqliteStore::new(path));
            let pool = Arc::new(store.pool().clone());
            Ok((store, pool))
        }
        DatabaseUrl::Postgres(url) => {
            let pool = postgres::Pool::new("postgresql", IDENTITY.name, url, config.pool_size)?;
            Ok((Arc::new(PostgresStore::new(pool.clone())), Arc::new(pool)))
        }
    }
}

/// The event log.
async fn open_events(config: &Config) -> Result<EventLog, RunError> {
    match &config.events {
        Place::Embedded(folder) => Ok(EventLog::open(folder, config.clock.clone()).await?),
        Place::Server(_) => Err(RunError::NoAdapter("Kafka")),
    }
}

/// Waits for the migrations, then consumes.
async fn consume(store: Arc<dyn AnalyticsStore>, consumer: Consumer, shutdown: Shutdown) {
    while store.migrated().await.is_err() {
        tokio::select! {
            () = shutdown.draining() => return,
            () = tokio::time::sleep(CHECK_PERIOD) => {}
        }
    }
    consumer.run(shutdown).await;
}

/// The database makes the service ready; how far the consumer is behind is shown and decides nothing.
fn watch(kit: &Kit, store: &Arc<dyn AnalyticsStore>, shutdown: &Shutdown) {
    let look = Arc::clone(store);
    kit.health.watch("migrations", Kind::Startup, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&look);
        async move { store.migrated().await }
    });
    let look = Arc::clone(store);
    kit.health.watch("postgresql", Kind::Ready, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&look);
        async move { store.check().await.map_err(|error| error.to_string()) }
    });
}
