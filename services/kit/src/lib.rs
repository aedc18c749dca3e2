//! What every service of the system shares, and nothing of a business: configuration from the environment, the
//! listening socket, the serve loop with its drain, health, metrics, logs, identity, the embedded stores.
//!
//! A service is `run(config, listener, shutdown)` in its own library and ten lines of `main`:
//!
//! ```no_run
//! # use service_kit::{Base, Configuration, Identity, Kit, Listener, Reader, ServeError, Shutdown};
//! const IDENTITY: Identity = Identity::new("echo-service", env!("CARGO_PKG_VERSION"), 3009);
//!
//! struct Config {
//!     base: Base,
//! }
//!
//! impl Configuration for Config {
//!     fn read(base: Base, _env: &mut Reader<'_>) -> Option<Self> {
//!         Some(Config { base })
//!     }
//!
//!     fn base(&self) -> &Base {
//!         &self.base
//!     }
//! }
//!
//! async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), ServeError> {
//!     let kit = Kit::new(IDENTITY, &config.base);
//!     kit.serve(axum::Router::new(), listener, shutdown).await
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     service_kit::main(IDENTITY, run)
//! }
//! ```
//!
//! Modules in reading order: [`process`] starts and stops the program, [`config`] reads the environment,
//! [`listener`] and [`shutdown`] are what `run` is given, [`app`] puts a service's routes together with
//! [`health`], [`metrics`], [`log`] and [`trace`], [`serve`] is the loop that answers connections and drains them; [`auth`],
//! [`client`], [`sqlite`], [`postgres`], [`redis`], [`eventlog`], [`events`], [`kafka`] and [`lease`] are what services
//! are built from.

pub mod app;
pub mod auth;
pub mod client;
pub mod clock;
pub mod config;
pub mod error;
pub mod eventlog;
pub mod events;
pub mod extract;
pub mod health;
pub mod kafka;
pub mod lease;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod pools;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod routes;
pub mod serve;
pub mod shutdown;
pub mod sqlite;
pub mod testing;
pub mod trace;

pub use app::Kit;
pub use clock::Clock;
pub use config::{Base, ConfigError, Configuration, DatabaseUrl, Environment, Place, Reader};
pub use error::ApiError;
pub use health::Health;
pub use listener::Listener;
pub use metrics::Metrics;
pub use process::main;
pub use routes::Routes;
pub use serve::ServeError;
pub use shutdown::{Shutdown, ShutdownTrigger};

/// The tenant of verification traffic: it is left out of business metrics and leaves no event behind.
pub const PROBE_TENANT: &str = "mlctl-probe";

/// Who a service is: fixed at compile time, shown in `/health`, in logs and as the `service` label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the binary, for example `user-service`.
    pub name: &'static str,
    /// Version of the package.
    pub version: &'static str,
    /// Port that the service listens on when `PORT` is absent and no socket was passed.
    pub port: u16,
}

impl Identity {
    /// Names a service, its version and its default port.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, port: u16) -> Self {
        Self { name, version, port }
    }
}
