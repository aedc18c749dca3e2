//! catalog-service: the products of every user, searchable, with optimistic versions and a trail of events.
//!
//! Modules in reading order: [`product`] and [`price`] say what a product is, [`item`] what an item of MercadoLibre
//! does to one, [`catalog`] holds the operations over a [`store`], [`search`] the query, [`routes`] the HTTP face,
//! and [`background`] what goes on beside the requests: [`relay`] publishes the events of [`event`], [`erasure`]
//! removes the products of deleted users.
//!
//! Absent on purpose: nothing here calls MercadoLibre (integration-service hands items over), and no answer holds
//! another owner's product.

pub mod background;
pub mod catalog;
pub mod config;
pub mod erasure;
mod error;
pub mod event;
pub mod item;
pub mod metrics;
pub mod price;
pub mod product;
pub mod relay;
pub mod routes;
#[cfg(test)]
mod schema;
pub mod search;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use service_kit::eventlog::ML_EVENTS;
use service_kit::events::{Events, Lag, OpenError};
use service_kit::health::Kind;
use service_kit::lease::Lease;
use service_kit::pools::{self, ConnectionPool};
use service_kit::{Clock, Identity, Kit, Listener, Place, ServeError, Shutdown, kafka};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::background::Background;
use crate::catalog::Catalog;
pub use crate::config::Config;
use crate::erasure::{Erasing, Erasure, GROUP};
use crate::metrics::ProductUpdates;
use crate::relay::Relay;
use crate::routes::App;
use crate::store::mongo::MongoStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{ProductStore, StoreError};

/// Who this service is.
pub const IDENTITY: Identity = Identity::new("catalog-service", env!("CARGO_PKG_VERSION"), 3003);

/// Time between two looks of a health check.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The document store cannot be opened.
    #[error("cannot start without the document store")]
    Store(#[from] StoreError),
    /// The event log cannot be opened.
    #[error("cannot start without the event log")]
    Log(#[from] OpenError),
    /// A listening socket broke.
    #[error("cannot go on serving")]
    Serve(#[from] ServeError),
}

/// Runs the service until `shutdown`.
///
/// # Errors
/// [`RunError`] when a store cannot be opened at the start, or a socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), RunError> {
    let kit =
        Kit::new(IDENTITY, &config.base).announce(routes::ROUTES).openapi(include_str!("../openapi.json"));
    let (store, pool) = open_documents(&config).await?;
    let events = Events::open(&config.events, IDENTITY, config.clock.clone()).await?;
    let mut pools: Vec<&dyn ConnectionPool> = vec![&*pool];
    pools.extend(events.pool());
    pools::register(&kit.metrics, &pools);
    watch(&kit, &store, &shutdown);
    // The log only makes events wait, so it is shown and decides nothing.
    events.watch(&kit.health, &shutdown);

    let wake = Arc::new(Notify::new());
    let catalog = Catalog::new(
        Arc::clone(&store),
        config.clock.clone(),
        Arc::new(Uuid::new_v4),
        ProductUpdates::register(&kit.metrics),
        Arc::clone(&wake),
    );
    let publisher = events.publisher();
    let (erasure, consumer) = follow(&kit, &store, events, &config.clock, &shutdown);
    let background = Background::new(
        Arc::clone(&store),
        Relay::new(store, Arc::clone(&publisher)),
        erasure,
        config.clock,
        Lease::new(Uuid::new_v4().to_string()),
        wake,
    );
    // The background ends after the last request, whose event it still publishes.
    let (stop, stopped) = Shutdown::channel();
    let tracer = kit.tracer.clone();
    let background = tokio::spawn(async move { tracer.scope(background.run(stopped)).await });
    let app = App { catalog: Arc::new(catalog), verifier: config.verifier, internal: config.internal };
    let served = kit.serve(routes::router(app), listener, shutdown).await;
    stop.drain();
    if let Err(error) = background.await {
        tracing::error!(%error, "the background work ended early");
    }
    if let Some(consumer) = consumer {
        if served.is_err() {
            // Nobody asked for the drain; what is not committed is done again.
            consumer.abort();
        }
        match consumer.await {
            Err(error) if !error.is_cancelled() => tracing::error!(%error, "the consumer ended early"),
            _ => {}
        }
    }
    publisher.flush().await;
    Ok(served?)
}

/// The documents, and their pool for the metrics.
async fn open_documents(
    config: &Config,
) -> Result<(Arc<dyn ProductStore>, Arc<dyn ConnectionPool>), RunError> {
    match &config.documents {
        Place::Embedded(folder) => {
            let store = Arc::new(SqliteStore::open(folder).await?);
            let pool = Arc::new(store.pool().clone());
            Ok((store, pool))
        }
        Place::Server(url) => {
            let store = Arc::new(MongoStore::new(url, config.pool_size).await?);
            let pool = Arc::clone(store.pool());
            Ok((store, pool))
        }
    }
}

/// Who follows the events of deleted users: the background work in the embedded log, a consumer of its own in Kafka.
fn follow(
    kit: &Kit,
    store: &Arc<dyn ProductStore>,
    events: Events,
    clock: &Clock,
    shutdown: &Shutdown,
) -> (Option<Erasure>, Option<JoinHandle<()>>) {
    let (settings, producer) = match events {
        Events::Embedded(log) => return (Some(Erasure::new(Arc::clone(store), log)), None),
        Events::Kafka(settings, producer) => (settings, producer),
    };
    let shown = kafka::Shown {
        lag: Lag::register(&kit.metrics, &[]),
        check: kit.health.check("consumer", Kind::Info),
    };
    let erasing = Arc::new(Erasing::new(Arc::clone(store), clock.clone()));
    match kafka::Consumer::new(&settings, ML_EVENTS, GROUP, erasing, producer, shown.clone()) {
        Ok(consumer) => (None, Some(tokio::spawn(consumer.run(shutdown.clone())))),
        Err(error) => {
            tracing::error!(%error, "the consumer of Kafka cannot be set up");
            shown.check.failing("the consumer of Kafka cannot be set up");
            (None, None)
        }
    }
}

/// The store makes the service ready.
fn watch(kit: &Kit, store: &Arc<dyn ProductStore>, shutdown: &Shutdown) {
    let store = Arc::clone(store);
    kit.health.watch("mongodb", Kind::Ready, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&store);
        async move { store.check().await.map_err(|error| error.to_string()) }
    });
}
