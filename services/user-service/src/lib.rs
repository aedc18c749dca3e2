//! user-service: who somebody is. It registers people, signs them in and out, signs the access tokens that every other
//! service verifies, and starts the connection of a MercadoLibre account.
//!
//! Modules in reading order: [`account`] and [`token`] are the words; [`accounts`] and [`connections`] the use cases;
//! [`password`], [`throttle`], [`consent`], [`browser`] and [`random`] what they lean on; [`store`], [`integration`],
//! [`catalog`] and [`followup`] the seams to the outside; [`routes`] the HTTP surface; [`settings`] the environment.

pub mod account;
pub mod accounts;
pub mod browser;
pub mod catalog;
pub mod connections;
pub mod consent;
pub mod error;
pub mod followup;
pub mod integration;
pub mod metrics;
pub mod password;
pub mod random;
pub mod routes;
pub mod settings;
pub mod store;
pub mod throttle;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use service_kit::events::{Events, OpenError};
use service_kit::health::Kind;
use service_kit::pools::{self, ConnectionPool};
use service_kit::postgres::{self, PostgresError};
use service_kit::redis::{Redis, RedisError};
use service_kit::sqlite::Pool;
use service_kit::{Clock, DatabaseUrl, Identity, Kit, Listener, Place, ServeError, Shutdown};
use tokio::sync::Notify;

use crate::accounts::Accounts;
use crate::catalog::CatalogService;
use crate::connections::Connections;
use crate::followup::FollowUps;
use crate::integration::IntegrationService;
use crate::metrics::Metrics;
use crate::password::{HashError, Hasher};
use crate::random::{Entropy, SystemEntropy};
use crate::routes::App;
use crate::settings::{Settings, SigningKeys};
use crate::store::{
    AccountStore, EmbeddedThrottle, PostgresAccounts, RedisThrottle, SqliteAccounts, StoreError,
    ThrottleStore,
};
use crate::throttle::Throttle;
use crate::token::KeyError;

/// Who this service is.
pub const IDENTITY: Identity = Identity::new("user-service", env!("CARGO_PKG_VERSION"), 3001);

/// How often a starting service looks whether the migrations have run.
const STARTUP_PERIOD: Duration = Duration::from_millis(250);

/// How often a started one looks whether the database answers.
const CHECK_PERIOD: Duration = Duration::from_secs(1);

/// How long the follow-up worker may go on after the last request is answered.
const WORKER_GRACE: Duration = Duration::from_secs(2);

/// Connections to the database and to the throttle's file. SQLite writes one at a time, so more would only wait.
const CONNECTIONS: usize = 4;

/// A question about login failures waits so long; then the process goes by its own count.
const THROTTLE_DEADLINE: Duration = Duration::from_millis(50);

/// People, sessions and consents, and their pool for the metrics.
type Database = (Arc<dyn AccountStore>, Arc<dyn ConnectionPool>);

/// user-service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The keys were good when the settings were read.
    #[error("cannot use the signing keys")]
    Keys(#[from] KeyError),
    /// The hasher could not be made.
    #[error("cannot prepare password hashing")]
    Hasher(#[from] HashError),
    /// A store under `EMBEDDED_DIR` could not be opened.
    #[error("cannot open the embedded stores")]
    Throttle(#[from] StoreError),
    /// The address of the throttle's store.
    #[error("cannot use the store of login failures")]
    Redis(#[from] RedisError),
    /// The event log could not be opened.
    #[error("cannot start without the event log")]
    EventLog(#[from] OpenError),
    /// The address of the database cannot be read.
    #[error("cannot use the database")]
    Database(#[from] PostgresError),
    /// The listening socket broke.
    #[error("cannot go on serving")]
    Serve(#[from] ServeError),
}

/// What tests decide and production takes from the machine.
pub struct Ports {
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Ports {
    /// The machine's clock and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Clock::system(), entropy: Arc::new(SystemEntropy) }
    }
}

/// Serves until the shutdown has drained everything.
///
/// # Errors
/// [`RunError`].
pub async fn run(settings: Settings, listener: Listener, shutdown: Shutdown) -> Result<(), RunError> {
    run_with(settings, Ports::system(), listener, shutdown).await
}

/// [`run`] with a clock and randomness of one's own.
///
/// # Errors
/// [`RunError`].
pub async fn run_with(
    settings: Settings,
    ports: Ports,
    listener: Listener,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let Ports { clock, entropy } = ports;
    if matches!(settings.keys, SigningKeys::SharedSecret(_)) {
        tracing::warn!(
            "JWT_SECRET signs with HS256: every verifier could forge tokens; set JWT_KEYS instead"
        );
    }
    let kit =
        Kit::new(IDENTITY, &settings.base).announce(&routes::ROUTES).openapi(include_str!("../openapi.json"));
    let metrics = Metrics::new(&kit.metrics);

    let (store, database) = open_database(&settings)?;
    let (throttle, state) = open_state(&settings).await?;
    let events = Events::open(&settings.events, IDENTITY, clock.clone()).await?;
    let mut pools: Vec<&dyn ConnectionPool> = vec![&*database, &*state];
    pools.extend(events.pool());
    pools::register(&kit.metrics, &pools);
    events.watch(&kit.health, &shutdown);
    let throttle = Throttle::new(throttle, clock.clone(), metrics.clone());
    watch_store(&kit, &store, &shutdown);

    let internal = settings.internal_token;
    let catalog = settings.catalog.map(|url| CatalogService::new(url, internal.clone()));
    let integration = Arc::new(IntegrationService::new(settings.integration, internal));
    let hasher = Hasher::new(
        settings.hash_cost,
        settings.hash_workers,
        settings.hash_queue,
        Arc::clone(&entropy),
        metrics.clone(),
    )?;
    let wake = Arc::new(Notify::new());
    let follow_ups = FollowUps::new(
        Arc::clone(&store),
        Arc::clone(&integration),
        catalog,
        events.publisher(),
        clock.clone(),
        Arc::clone(&wake),
    );
    let accounts = Accounts {
        store: Arc::clone(&store),
        hasher,
        throttle,
        keyring: Arc::new(settings.keys.keyring(clock.clone())?),
        clock: clock.clone(),
        entropy: Arc::clone(&entropy),
        metrics: metrics.clone(),
        wake,
    };
    let connections = Connections { store, integration, page: settings.consent, clock, entropy, metrics };
    let app = App {
        accounts: Arc::new(accounts),
        connections: Arc::new(connections),
        operator_token: settings.operator_token,
    };

    let mut worker = {
        let (tracer, shutdown) = (kit.tracer.clone(), shutdown.clone());
        tokio::spawn(async move { tracer.scope(follow_ups.run(shutdown)).await })
    };
    let served = kit.serve(routes::router(app), listener, shutdown).await;
    // The worker stops by itself after the attempt at hand, if the drain has not waited long enough already. Cutting
    // it off loses nothing: what is not struck off is done by another replica.
    if tokio::time::timeout(WORKER_GRACE, &mut worker).await.is_err() {
        worker.abort();
    }
    events.publisher().flush().await;
    Ok(served?)
}

/// People, sessions and consents, and their pool for the metrics.
fn open_database(settings: &Settings) -> Result<Database, RunError> {
    match &settings.database {
        DatabaseUrl::Sqlite(path) => {
            let pool = Pool::new("postgresql", path, CONNECTIONS);
            Ok((Arc::new(SqliteAccounts::new(pool.clone())), Arc::new(pool)))
        }
        DatabaseUrl::Postgres(url) => {
            let pool = postgres::Pool::new("postgresql", IDENTITY.name, url, settings.pool_size)?;
            Ok((Arc::new(PostgresAccounts::new(pool.clone())), Arc::new(pool)))
        }
    }
}

/// Where failures are counted, and its pool for the metrics.
async fn open_state(
    settings: &Settings,
) -> Result<(Arc<dyn ThrottleStore>, Arc<dyn ConnectionPool>), RunError> {
    match &settings.state {
        Place::Embedded(folder) => {
            let pool = Pool::new("redis", &folder.join("redis").join("state.db"), CONNECTIONS);
            Ok((Arc::new(EmbeddedThrottle::open(pool.clone()).await?), Arc::new(pool)))
        }
        Place::Server(url) => {
            let redis = Redis::new("redis", url, THROTTLE_DEADLINE)?;
            Ok((Arc::new(RedisThrottle::new(redis.clone())), Arc::new(redis)))
        }
    }
}

/// Started when the migrations have run, ready while the database answers.
fn watch_store(kit: &Kit, store: &Arc<dyn AccountStore>, shutdown: &Shutdown) {
    let (migrated, reachable) = (Arc::clone(store), Arc::clone(store));
    kit.health.watch("migrations", Kind::Startup, STARTUP_PERIOD, shutdown, move || {
        let store = Arc::clone(&migrated);
        async move { store.migrated().await }
    });
    kit.health.watch("database", Kind::Ready, CHECK_PERIOD, shutdown, move || {
        let store = Arc::clone(&reachable);
        async move { store.reachable().await }
    });
}
