//! The public front of a system: one table of routes, everything else is 404.
//!
//! It knows no service by name. What it forwards, and where to, is in the file that `ROUTES_FILE` names; a new file
//! is taken over without losing a request. Nothing of a business is decided here, and nothing is stored.
//!
//! Modules in reading order: [`config`], [`table`] the routes, [`reload`] how a new table comes in, [`front`] what
//! answers a request, `forward` the way to an upstream and back, `upstream` and `kept` its connections, `headers` what may cross, `health` and
//! `maintenance` the two answers of its own.

pub mod config;
mod forward;
pub mod front;
mod headers;
mod health;
mod kept;
mod maintenance;
mod metrics;
pub mod reload;
pub mod table;
mod upstream;

use std::time::Duration;

use service_kit::auth::SharedToken;
use service_kit::health::Kind;
use service_kit::{Identity, Kit, Listener, ServeError, Shutdown};

pub use config::Config;
use front::Front;
use kept::Kept;
use metrics::GatewayMetrics;
use reload::{Routes, RoutesError};

/// Who this service is.
pub const IDENTITY: Identity = Identity::new("gateway", env!("CARGO_PKG_VERSION"), 8080);

/// The longest request body that is forwarded, in bytes.
const BODY_LIMIT: usize = 10 << 20;
/// How often the routes file is looked at.
const RELOAD_PERIOD: Duration = Duration::from_millis(250);

/// The gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first table of routes is unusable; later ones are only refused.
    #[error("cannot start without a table of routes")]
    Routes(#[from] RoutesError),
    /// The listening socket broke.
    #[error("the gateway stopped answering")]
    Serve(#[from] ServeError),
}

/// Runs the gateway until `shutdown`.
///
/// # Errors
/// [`Error`] when there is no valid table to start with, or the socket breaks.
pub async fn run(config: Config, listener: Listener, shutdown: Shutdown) -> Result<(), Error> {
    let kit = Kit::new(IDENTITY, &config.base).body_limit(BODY_LIMIT);
    let metrics = GatewayMetrics::register(&kit.metrics);
    let routes = Routes::load(&config.routes_file).await?;
    routes.table().announce(&kit);
    metrics.show_maintenance(routes.table().maintenance.is_some());
    let check = kit.health.check("routes", Kind::Info);
    check.detail(routes.table().summary());
    let watcher =
        reload::Watcher { routes: routes.clone(), check, metrics: metrics.clone(), kit: kit.clone() };
    let watching = tokio::spawn(watcher.watch(RELOAD_PERIOD, shutdown.clone()));
    let operator = config.operator_token.map(SharedToken::new);
    let kept = Kept::default();
    let sweeping = tokio::spawn(kept.clone().sweep(shutdown.clone()));
    let front = Front::new(routes, operator, kit.metrics.clone(), kit.health.clone(), metrics, kept);
    let kit = kit.health_handler(front.health_handler());
    let served = kit.serve(front.router(), listener, shutdown).await;
    watching.abort();
    sweeping.abort();
    Ok(served?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use service_openapi::parts::BEARER;
    use service_openapi::{Document, committed};

    use super::IDENTITY;

    /// Of the gateway's own addresses; all others are its table's, and described by the services behind it.
    #[test]
    fn the_document_is_what_the_gateway_answers_itself() {
        let mut document = Document::of(IDENTITY, "The public front of the system; its own few addresses.");
        // What leads to services is for their users to know; this text stays in the repository.
        document.without("/openapi.json");
        let report = json!({ "$ref": "#/components/schemas/Health" });
        let health = "A service's own word on its health.";
        document.plain("GET", "/api/{service}/health", health, |operation| {
            operation
                .placeholder::<String>()
                .narrowed("service", json!({ "type": "string", "examples": ["user-service"] }))
                .answers_with(200, report.clone())
                .answers_with(503, report)
                .refuses(&[400, 404, 408, 502, 504]);
        });
        document.plain(
            "GET",
            "/metrics",
            "The gateway's metrics, for a holder of the operator token.",
            |operation| {
                let text = json!({ "type": "string", "contentMediaType": "application/openmetrics-text" });
                operation.secured(BEARER).answers_with(200, text).refuses(&[401, 404]);
            },
        );
        document.covers(&[("GET", "/api/{service}/health"), ("GET", "/metrics")]);
        committed::check(env!("CARGO_MANIFEST_DIR"), document);
    }
}
