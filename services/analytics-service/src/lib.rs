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
use service_kit::sqlite::{Pool, SqliteError};
use service_kit::{Identity, Kit, Listener, ServeError, Shutdown};
use uuid::Uuid;

pub use crate::config::Config;
use crate::consumer::{Consumer, partition};
use crate::metrics::ConsumerMetrics;
use crate::routes::App;
use crate::store::AnalyticsStore;
use crate::store::sqlite::{SqliteStore, TABLES};

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
    /// A listening socket broke.
    #[error("cannot go on serving")]
    Serve(#[from] ServeError),
}

/// Runs the service until `shutdown`.
///
/// # Errors
/// [`RunError`] when the event log cannot be opened at the start, or a socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), RunError> {
    let kit = Kit::new(IDENTITY, &config.base).announce(routes::ROUTES);
    let sqlite = Arc::new(SqliteStore::new(&config.database));
    let log = EventLog::open(&config.embedded, config.clock.clone()).await?;
    service_kit::pools::register(&kit.metrics, &[sqlite.pool(), log.pool()]);
    let metrics = ConsumerMetrics::register(&kit.metrics, &partition());
    watch(&kit, &sqlite, &shutdown);

    let store: Arc<dyn AnalyticsStore> = sqlite.clone();
    let consumer = Consumer::new(
        Arc::clone(&store),
        log,
        config.clock.clone(),
        metrics,
        kit.health.check("consumer", Kind::Info),
        Lease::new(Uuid::new_v4().to_string()),
    );
    let (tracer, stop) = (kit.tracer.clone(), shutdown.clone());
    let consumer = tokio::spawn(async move { tracer.scope(consume(sqlite, consumer, stop)).await });
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

/// Waits for the migrations, then consumes.
async fn consume(sqlite: Arc<SqliteStore>, consumer: Consumer, shutdown: Shutdown) {
    while sqlite.pool().has_tables(TABLES).await.is_err() {
        tokio::select! {
            () = shutdown.draining() => return,
            () = tokio::time::sleep(CHECK_PERIOD) => {}
        }
    }
    consumer.run(shutdown).await;
}

/// The database makes the service ready; how far the consumer is behind is shown and decides nothing.
fn watch(kit: &Kit, sqlite: &Arc<SqliteStore>, shutdown: &Shutdown) {
    let store = Arc::clone(sqlite);
    kit.health.watch("migrations", Kind::Startup, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&store);
        async move { store.pool().has_tables(TABLES).await }
    });
    let store = Arc::clone(sqlite);
    kit.health.watch("postgresql", Kind::Ready, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&store);
        async move { store.check().await.map_err(|error| error.to_string()) }
    });
}
