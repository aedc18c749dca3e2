//! integration-service: the only caller of the MercadoLibre API and the keeper of its tokens.
//!
//! Reading order: [`config`], [`ml`] (how it is called: [`breaker`], [`limiter`], tokens sealed by [`seal`]),
//! [`items`] through the [`cache`], [`accounts`], [`webhook`], what others learn by [`publish`], and the stores behind
//! it all in [`store`]. The routes are thin.

pub mod accounts;
pub mod breaker;
pub mod cache;
pub mod config;
pub mod error;
pub mod fixture;
pub mod items;
pub mod limiter;
pub mod metrics;
pub mod ml;
pub mod publish;
mod routes;
pub mod seal;
pub mod store;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use service_kit::auth::{SharedToken, Verifier};
use service_kit::client::Client;
use service_kit::events::{Events, OpenError};
use service_kit::health::Kind;
use service_kit::pools::{self, ConnectionPool};
use service_kit::sqlite::Pool;
use service_kit::{Clock, DatabaseUrl, Identity, Kit, Listener, Place, ServeError, Shutdown};

use crate::accounts::Accounts;
use crate::cache::ItemCache;
use crate::config::Config;
use crate::items::Items;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::ml::{Group, MlClient, Session, Tokens};
use crate::publish::Publisher;
use crate::store::{SqliteState, SqliteStore, StateStore, Store, StoreError};
use crate::webhook::Inbox;

/// This service.
pub const IDENTITY: Identity = Identity::new("integration-service", env!("CARGO_PKG_VERSION"), 3002);

/// Calls to catalog-service wait at most this long.
const CATALOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How often gauges are brought up to date and limits looked at.
const GAUGES: Duration = Duration::from_secs(5);
/// How often what is old is removed.
const PURGE: Duration = Duration::from_secs(600);
/// Notifications and listings are kept for two days, as long as MercadoLibre keeps missed feeds.
const KEPT_MS: i64 = 2 * 24 * 3_600_000;
/// How long the end waits for a refresh that is under way.
const SETTLE: Duration = Duration::from_secs(10);

/// Accounts, the inbox and listings, and their pool for the metrics.
type Database = (Arc<dyn Store>, Arc<dyn ConnectionPool>);

/// The service could not start or ended in trouble.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state store.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The event log.
    #[error("open the event log")]
    Events(#[from] OpenError),
    /// A store that this build cannot reach.
    #[error("this build has no adapter for {0}")]
    NoAdapter(&'static str),
    /// The client of MercadoLibre.
    #[error("set up the client of MercadoLibre")]
    Client(#[source] reqwest::Error),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves until the shutdown, then finishes what is under way.
///
/// # Errors
/// [`RunError`] when a store of the embedded folder cannot be opened or a listening socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), RunError> {
    run_at(config, Clock::system(), listener, shutdown).await
}

/// As [`run`], at the time that `clock` shows.
///
/// # Errors
/// As [`run`].
pub async fn run_at(
    config: Config,
    clock: Clock,
    listener: Listener,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let kit = Kit::new(IDENTITY, &config.base).announce(routes::ANNOUNCED);
    let metrics = Metrics::register(&kit.metrics);

    let (store, database) = open_database(&config)?;
    let (state, state_pool) = open_state(&config).await?;
    let events = Events::open(&config.events, IDENTITY, clock.clone()).await?;
    let mut pools: Vec<&dyn ConnectionPool> = vec![&*database, &*state_pool];
    pools.extend(events.pool());
    pools::register(&kit.metrics, &pools);
    events.watch(&kit.health, &shutdown);
    watch(&kit, &store, &state, &shutdown);

    let limiter = Limiter::new(Arc::clone(&state), config.limits, clock.clone(), metrics.clone());
    let dice = rand::random::<f64>;
    let client = MlClient::new(
        config.ml_api,
        config.ml_timeout,
        config.credentials,
        config.breaker,
        limiter,
        metrics.clone(),
        dice,
    );
    let client = Arc::new(client.map_err(RunError::Client)?);
    let tokens =
        Tokens::new(Arc::clone(&store), config.sealer, Arc::clone(&client), clock.clone(), metrics.clone());
    let session = Session::new(Arc::clone(&client), Arc::clone(&tokens));
    let internal = SharedToken::new(config.internal);
    let catalog = Client::new(config.catalog, CATALOG_TIMEOUT);
    let publisher = Arc::new(Publisher::new(events.publisher(), catalog, internal.clone(), clock.clone()));
    let cache = ItemCache::new(Arc::clone(&state), clock.clone(), metrics.clone(), dice);
    let items = Arc::new(Items::new(
        Arc::clone(&store),
        session.clone(),
        cache,
        Arc::clone(&publisher),
        clock.clone(),
    ));
    let accounts =
        Arc::new(Accounts::new(Arc::clone(&store), session.clone(), Arc::clone(&publisher), clock.clone()));
    let inbox = Arc::new(Inbox::new(
        Arc::clone(&store),
        session,
        Arc::clone(&items),
        publisher,
        clock.clone(),
        metrics,
    ));
    let verifier = match &config.jwt_secret {
        Some(secret) => {
            tracing::warn!("JWT_SECRET is set: access tokens are checked with a shared secret (HS256)");
            Verifier::with_secret(secret, clock.clone())
        }
        None => Verifier::fetching(config.users, clock.clone()),
    };

    let app = routes::App {
        verifier,
        internal,
        webhook_secret: SharedToken::new(config.webhook_secret),
        redirect_uri: config.redirect_uri.map(Arc::from),
        items,
        accounts,
        inbox: Arc::clone(&inbox),
        client: Arc::clone(&client),
        store: Arc::clone(&store),
    };
    let worker = {
        let shutdown = shutdown.clone();
        tokio::spawn(async move { inbox.run(&shutdown).await })
    };
    let keeper = tokio::spawn(keep(client, store, state, clock, shutdown.clone()));
    let served = kit.serve(routes::router(app), listener, shutdown).await;
    // The worker stops between two notifications; a refresh must reach its commit, or the account is lost.
    let finish = async {
        if worker.await.is_err() || keeper.await.is_err() {
            tracing::error!("a task of the service ended early");
        }
        tokens.settled().await;
    };
    if tokio::time::timeout(SETTLE, finish).await.is_err() {
        tracing::warn!("the process ends although work is still under way");
    }
    events.publisher().flush().await;
    Ok(served?)
}

/// Accounts, the inbox and listings, and their pool for the metrics.
fn open_database(config: &Config) -> Result<Database, RunError> {
    match &config.database {
        DatabaseUrl::Sqlite(path) => {
            let pool = Pool::new("postgresql", path, 4);
            Ok((Arc::new(SqliteStore::new(pool.clone())), Arc::new(pool)))
        }
        DatabaseUrl::Postgres(_) => Err(RunError::NoAdapter("PostgreSQL")),
    }
}

/// Limits and caches, and their pool for the metrics.
async fn open_state(config: &Config) -> Result<(Arc<dyn StateStore>, Arc<dyn ConnectionPool>), RunError> {
    match (&config.state, &config.cache) {
        (Place::Embedded(folder), Place::Embedded(_)) => {
            let pool = SqliteState::pool(folder);
            Ok((Arc::new(SqliteState::open(pool.clone()).await?), Arc::new(pool)))
        }
        _ => Err(RunError::NoAdapter("Redis")),
    }
}

fn watch(kit: &Kit, store: &Arc<dyn Store>, state: &Arc<dyn StateStore>, shutdown: &Shutdown) {
    let look = Arc::clone(store);
    kit.health.watch("migrations", Kind::Startup, Duration::from_millis(250), shutdown, move || {
        let store = Arc::clone(&look);
        async move { store.migrated().await }
    });
    let look = Arc::clone(store);
    kit.health.watch("database", Kind::Ready, Duration::from_secs(2), shutdown, move || {
        let store = Arc::clone(&look);
        async move { store.reachable().await }
    });
    // Only shown: without it the limits fall back to a local share and the caches to the process's own.
    let look = Arc::clone(state);
    kit.health.watch("state", Kind::Info, Duration::from_secs(2), shutdown, move || {
        let state = Arc::clone(&look);
        async move { state.reachable().await }
    });
}

/// Keeps gauges fresh and stores small, until the drain.
async fn keep(
    client: Arc<MlClient>,
    store: Arc<dyn Store>,
    state: Arc<dyn StateStore>,
    clock: Clock,
    shutdown: Shutdown,
) {
    let mut gauges = tokio::time::interval(GAUGES);
    let mut purge = tokio::time::interval(PURGE);
    // The first tick of an interval is at once; the tables may not be there yet.
    purge.reset();
    loop {
        tokio::select! {
            _ = gauges.tick() => {
                if client.limiter().usage().await.is_none() {
                    tracing::debug!("the limits' gauges were not brought up to date");
                }
                for group in Group::ALL {
                    client.publish_state(group);
                }
            }
            _ = purge.tick() => {
                let now = clock.now().as_millisecond();
                for result in [store.purge(now - KEPT_MS).await, state.purge(now).await] {
                    if let Err(error) = result {
                        tracing::warn!(error = &error as &dyn std::error::Error, "old rows were not removed");
                    }
                }
            }
            () = shutdown.draining() => return,
        }
    }
}
