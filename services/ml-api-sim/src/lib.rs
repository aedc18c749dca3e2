//! A MercadoLibre API for development and tests: the same paths, rules and moods, deterministic, with a ledger of
//! every request and faults on demand. It holds everything in memory and forgets it when it stops.
//!
//! Reading order: [`world`] is the marketplace, [`fault`], [`ledger`] and [`notify`] are what a test works with,
//! `routes` speaks HTTP, [`config`] reads the environment.

pub mod clock;
pub mod config;
pub mod error;
pub mod fault;
pub mod ledger;
pub mod notify;
mod routes;
pub mod simulator;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use service_kit::client::{Client, HttpUrl};
use service_kit::{Identity, Kit, Listener, ServeError, Shutdown};

use crate::config::Config;
use crate::notify::Carrier;

/// This service.
pub const IDENTITY: Identity = Identity::new("ml-api-sim", env!("CARGO_PKG_VERSION"), 3900);

/// Serves the simulator until the shutdown.
///
/// # Errors
/// [`ServeError`] when a listening socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), ServeError> {
    let simulator = config.simulator();
    let kit = Kit::new(IDENTITY, &config.base).announce(routes::ANNOUNCED);
    let clock = Arc::clone(&simulator);
    let sending = Arc::clone(&simulator.notifier).run(Arc::new(HttpCarrier), move || clock.clock.now_ms());
    tokio::select! {
        served = kit.serve(routes::router(simulator), listener, shutdown) => served,
        // It never ends by itself; what still waits when serving ends is forgotten with everything else.
        () = sending => Ok(()),
    }
}

/// Posts notifications by plain HTTP.
#[derive(Debug)]
struct HttpCarrier;

impl Carrier for HttpCarrier {
    async fn post(&self, url: String, body: Vec<u8>) -> Option<u16> {
        let url: HttpUrl = url.parse().ok()?;
        let client = Client::new(url, Duration::from_secs(5));
        let headers = [("content-type", "application/json")];
        match client.call(axum::http::Method::POST, "", &headers, body.into()).await {
            Ok(answer) => Some(answer.status.as_u16()),
            Err(error) => {
                tracing::debug!(%error, "a notification was not delivered");
                None
            }
        }
    }
}
