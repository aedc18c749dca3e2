//! integration-service: the only caller of the MercadoLibre API and the keeper of its tokens.
//!
//! Reading order: [`config`], [`ml`] (how it is called: [`breaker`], [`limiter`], tokens sealed by [`seal`]),
//! [`items`] of their [`owners`] through the [`cache`], [`accounts`], [`webhook`], what others learn by [`publish`], and the stores behind
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
pub mod owners;
pub mod publish;
mod routes;
pub mod seal;
pub mod store;
pub mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use service_kit::auth::{SharedToken, Verifier};
use service_kit::client::Client;
use service_kit::events::{Events, OpenError};
use service_kit::health::Kind;
use service_kit::pools::{self, ConnectionPool};
use service_kit::postgres::{self, PostgresError};
use service_kit::redis::{Redis, RedisError};
use service_kit::sqlite::Pool;
use service_kit::{Clock, DatabaseUrl, Identity, Kit, Listener, Place, ServeError, Shutdown};

use crate::accounts::Accounts;
use crate::cache::ItemCache;
use crate::config::Config;
use crate::items::Items;
use crate::limiter::Limiter;
use crate::metrics::Metrics;
use crate::ml::{Group, MlClient, Session, Tokens};
use crate::owners::Owners;
use crate::publish::Publisher;
use crate::store::{
    CacheStore, LimitStore, PostgresStore, RedisCache, RedisLimits, SqliteState, SqliteStore, Store,
    StoreError,
};
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

/// The service could not start or ended in trouble.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state store.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The address of a state store.
    #[error("use the state store")]
    Redis(#[from] RedisError),
    /// The event log.
    #[error("open the event log")]
    Events(#[from] OpenError),
    /// The address of the database cannot be read.
    #[error("cannot use the database")]
    Database(#[from] PostgresError),
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
    let kit =
        Kit::new(IDENTITY, &config.base).announce(routes::ANNOUNCED).openapi(include_str!("../openapi.json"));
    let metrics = Metrics::register(&kit.metrics);

    let (store, database) = open_database(&config)?;
    let State { limits, cache, pools: state_pools } = open_state(&config, &clock).await?;
    let events = Events::open(&config.events, IDENTITY, clock.clone()).await?;
    let mut pools: Vec<&dyn ConnectionPool> = vec![&*database];
    pools.extend(events.pool());
    pools.extend(state_pools.iter().map(|pool| &**pool));
    pools::register(&kit.metrics, &pools);
    events.watch(&kit.health, &shutdown);
    watch(&kit, &store, &limits, &cache, &shutdown);

    let limiter = Limiter::new(Arc::clone(&limits), config.limits, clock.clone(), metrics.clone());
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
    let item_cache = Arc::new(ItemCache::new(Arc::clone(&cache), clock.clone(), metrics.clone(), dice));
    let owners = Arc::new(Owners::new(Arc::clone(&store)));
    let items = Arc::new(Items::new(
        Arc::clone(&store),
        Arc::clone(&owners),
        session.clone(),
        Arc::clone(&item_cache),
        Arc::clone(&publisher),
        clock.clone(),
    ));
    let accounts = Arc::new(Accounts::new(
        Arc::clone(&store),
        owners,
        session.clone(),
        Arc::clone(&publisher),
        clock.clone(),
    ));
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
        let (tracer, shutdown) = (kit.tracer.clone(), shutdown.clone());
        tokio::spawn(async move { tracer.scope(inbox.run(&shutdown)).await })
    };
    let keeper = tokio::spawn(keep(client, store, limits, cache, clock, shutdown.clone()));
    let listener_of_drops = tokio::spawn(item_cache.run());
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
    listener_of_drops.abort();
    events.publisher().flush().await;
    Ok(served?)
}

/// A store and its pool.
type Opened<S> = (Arc<S>, Arc<dyn ConnectionPool>);

/// Accounts, the inbox and listings, and their pool for the metrics.
fn open_database(config: &Config) -> Result<Opened<dyn Store>, RunError> {
    match &config.database {
        DatabaseUrl::Sqlite(path) => {
            let pool = Pool::new("postgresql", path, 4);
            Ok((Arc::new(SqliteStore::new(pool.clone())), Arc::new(pool)))
        }
        DatabaseUrl::Postgres(url) => {
            let pool = postgres::Pool::new("postgresql", IDENTITY.name, url, config.pool_size)?;
            Ok((Arc::new(PostgresStore::new(pool.clone())), Arc::new(pool)))
        }
    }
}

/// A question to the limits waits so long; then the process goes on with its local share.
const LIMITS_DEADLINE: Duration = Duration::from_millis(50);
/// A question to the cache waits so long; then the item is loaded.
const CACHE_DEADLINE: Duration = Duration::from_millis(50);

/// Limits and caches, and their pools for the metrics.
struct State {
    limits: Arc<dyn LimitStore>,
    cache: Arc<dyn CacheStore>,
    pools: Vec<Arc<dyn ConnectionPool>>,
}

/// The embedded state, opened once.
async fn embedded(
    file: &mut Option<Arc<SqliteState>>,
    pools: &mut Vec<Arc<dyn ConnectionPool>>,
    folder: &Path,
    clock: &Clock,
) -> Result<Arc<SqliteState>, RunError> {
    if let Some(open) = file {
        return Ok(Arc::clone(open));
    }
    let pool = SqliteState::pool(folder);
    pools.push(Arc::new(pool.clone()));
    let open = Arc::new(SqliteState::open(pool, clock.clone()).await?);
    Ok(Arc::clone(file.insert(open)))
}

async fn open_state(config: &Config, clock: &Clock) -> Result<State, RunError> {
    let mut pools: Vec<Arc<dyn ConnectionPool>> = Vec::new();
    // One file for both, where both are embedded.
    let mut file: Option<Arc<SqliteState>> = None;
    let limits: Arc<dyn LimitStore> = match &config.state {
        Place::Embedded(folder) => embedded(&mut file, &mut pools, folder, clock).await?,
        Place::Server(url) => {
            let redis = Redis::new("redis-state", url, LIMITS_DEADLINE)?;
            pools.push(Arc::new(redis.clone()));
            Arc::new(RedisLimits::new(redis))
        }
    };
    let cache: Arc<dyn CacheStore> = match &config.cache {
        Place::Embedded(folder) => embedded(&mut file, &mut pools, folder, clock).await?,
        Place::Server(url) => {
            let redis = Redis::new("redis", url, CACHE_DEADLINE)?;
            pools.push(Arc::new(redis.clone()));
            Arc::new(RedisCache::new(redis))
        }
    };
    Ok(State { limits, cache, pools })
}

fn watch(
    kit: &Kit,
    store: &Arc<dyn Store>,
    limits: &Arc<dyn LimitStore>,
    cache: &Arc<dyn CacheStore>,
    shutdown: &Shutdown,
) {
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
    let look = Arc::clone(limits);
    kit.health.watch("state", Kind::Info, Duration::from_secs(2), shutdown, move || {
        let limits = Arc::clone(&look);
        async move { limits.reachable().await }
    });
    let look = Arc::clone(cache);
    kit.health.watch("cache", Kind::Info, Duration::from_secs(2), shutdown, move || {
        let cache = Arc::clone(&look);
        async move { cache.reachable().await }
    });
}

/// Keeps gauges fresh and stores small, until the drain.
async fn keep(
    client: Arc<MlClient>,
    store: Arc<dyn Store>,
    limits: Arc<dyn LimitStore>,
    cache: Arc<dyn CacheStore>,
    clock: Clock,
    shutdown: Shutdown,
) {
    client.limiter().open().await;
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
                let purged =
                    [store.purge(now - KEPT_MS).await, limits.purge(now).await, cache.purge(now).await];
                for result in purged {
                    if let Err(error) = result {
                        tracing::warn!(error = &error as &dyn std::error::Error, "old rows were not removed");
                    }
                }
            }
            () = shutdown.draining() => return,
        }
    }
}
