//! analytics-service: counts the events of the system per user, type and hour, each exactly once, and answers queries.
//!
//! Modules in reading order: [`event`] reads the envelope, [`fold`] adds a batch up, [`store`] keeps counts and position
//! in one transaction, [`consumer`] drives both from the embedded log and [`counting`] from Kafka, [`pruning`] removes what is old, [`query`] and [`routes`] answer clients.
//!
//! Absent on purpose: nothing here publishes events, and nothing migrates the database (`mlctl db migrate` does).

pub mod config;
pub mod consumer;
pub mod counting;
mod error;
pub mod event;
pub mod fold;
pub mod metrics;
pub mod pruning;
pub mod query;
pub mod routes;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use service_kit::eventlog::ML_EVENTS;
use service_kit::events::{Events, OpenError};
use service_kit::health::Kind;
use service_kit::lease::Lease;
use service_kit::pools::{self, ConnectionPool};
use service_kit::postgres::{self, PostgresError};
use service_kit::{DatabaseUrl, Identity, Kit, Listener, ServeError, Shutdown, kafka};
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use crate::config::Config;
use crate::consumer::{Consumer, GROUP, partition};
use crate::counting::Counting;
use crate::metrics::ConsumerMetrics;
use crate::pruning::Pruning;
use crate::routes::App;
use crate::store::AnalyticsStore;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;

/// Who this service is.
pub const IDENTITY: Identity = Identity::new("analytics-service", env!("CARGO_PKG_VERSION"), 3004);

/// Time between two looks of a health check.
const CHECK_PERIOD: Duration = Duration::from_millis(500);

/// The database, and its pool for the metrics.
type Database = (Arc<dyn AnalyticsStore>, Arc<dyn ConnectionPool>);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The event log cannot be opened.
    #[error("cannot start without the event log")]
    Log(#[from] OpenError),
    /// The address of the database cannot be read.
    #[error("cannot use the database")]
    Database(#[from] PostgresError),
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
    let events = Events::open(&config.events, IDENTITY, config.clock.clone()).await?;
    let mut pools: Vec<&dyn ConnectionPool> = vec![&*pool];
    pools.extend(events.pool());
    pools::register(&kit.metrics, &pools);
    watch(&kit, &store, &shutdown);
    events.watch(&kit.health, &shutdown);

    let consumer = start(&config, &kit, Arc::clone(&store), events, shutdown.clone());
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
fn open_database(config: &Config) -> Result<Database, RunError> {
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

/// Starts the consumer of the event log.
fn start(
    config: &Config,
    kit: &Kit,
    store: Arc<dyn AnalyticsStore>,
    events: Events,
    shutdown: Shutdown,
) -> JoinHandle<()> {
    let check = kit.health.check("consumer", Kind::Info);
    let (clock, tracer) = (config.clock.clone(), kit.tracer.clone());
    match events {
        Events::Embedded(log) => {
            let metrics = ConsumerMetrics::register(&kit.metrics, Some(&partition()));
            let lease = Lease::new(Uuid::new_v4().to_string());
            let consumer = Consumer::new(Arc::clone(&store), log, clock, metrics, check, lease);
            let consuming = async move {
                if migrated(&*store, &shutdown).await {
                    consumer.run(shutdown).await;
                }
            };
            tokio::spawn(async move { tracer.scope(consuming).await })
        }
        Events::Kafka(settings, producer) => {
            let metrics = ConsumerMetrics::register(&kit.metrics, None);
            let shown = kafka::Shown { lag: metrics.by_partition(), check };
            let counting = Arc::new(Counting::new(Arc::clone(&store), clock.clone(), metrics));
            let consuming = async move {
                // Joining the group later keeps partitions with replicas that can count.
                if !migrated(&*store, &shutdown).await {
                    return;
                }
                let pruning = Pruning::new(clock.now()).run(store, clock, shutdown.clone());
                let made =
                    kafka::Consumer::new(&settings, ML_EVENTS, GROUP, counting, producer, shown.clone());
                match made {
                    Ok(consumer) => {
                        tokio::join!(consumer.run(shutdown), pruning);
                    }
                    Err(error) => {
                        tracing::error!(%error, "the consumer of Kafka cannot be set up");
                        shown.check.failing("the consumer of Kafka cannot be set up");
                    }
                }
            };
            tokio::spawn(async move { tracer.scope(consuming).await })
        }
    }
}

/// Waits for the migrations; false when the stop comes first.
async fn migrated(store: &dyn AnalyticsStore, shutdown: &Shutdown) -> bool {
    while store.migrated().await.is_err() {
        tokio::select! {
            () = shutdown.draining() => return false,
            () = tokio::time::sleep(CHECK_PERIOD) => {}
        }
    }
    true
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
