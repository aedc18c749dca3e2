//! The whole system: gateway, four services, MercadoLibre as its simulator, and a collector of traces.

use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service_kit::auth::Signer;
use service_kit::client::{Answer, Client};
use service_kit::testing::{Collector, Running, client, migrate};
use service_kit::{Configuration, Environment, Identity, Listener, ServeError};
use user_service::password::Cost;

pub const INTERNAL: &str = "canary-internal-token";
pub const OPERATOR: &str = "canary-operator-token";
pub const WEBHOOK: &str = "canary-webhook-secret";
pub const CLIENT_SECRET: &str = "canary-client-secret";
/// `canary-token-encryption-key-1234` in base64.
pub const ENCRYPTION_KEY: &str = "Y2FuYXJ5LXRva2VuLWVuY3J5cHRpb24ta2V5LTEyMzQ=";
const REDIRECT: &str = "http://127.0.0.1:8080/api/auth/ml/callback";
const PATIENCE: Duration = Duration::from_secs(10);

/// Every process of the system.
pub struct System {
    pub gateway: Running<gateway::Error>,
    pub users: Running<user_service::RunError>,
    pub integration: Running<integration_service::RunError>,
    pub catalog: Running<catalog_service::RunError>,
    pub analytics: Running<analytics_service::RunError>,
    pub sim: Running<ServeError>,
    pub collector: Collector,
    /// Of the key that signs access tokens.
    pub pem: String,
    _folder: tempfile::TempDir,
}

fn config<C: Configuration>(identity: Identity, environment: &Environment) -> C {
    C::from_environment(identity, environment).unwrap()
}

fn url(listener: &Listener) -> String {
    format!("http://{}", listener.local_addr().unwrap())
}

impl System {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        for service in ["user-service", "integration-service", "analytics-service"] {
            let services = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            migrate(&database, &services.join(service).join("migrations/sqlite")).unwrap();
        }
        let collector = Collector::start().await.unwrap();
        let sim_environment = Environment::of([
            ("SIM_CLIENT_ID", "app"),
            ("SIM_CLIENT_SECRET", CLIENT_SECRET),
            ("SIM_REDIRECT_URI", REDIRECT),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
        ]);
        let settings: ml_api_sim::config::Config = config(ml_api_sim::IDENTITY, &sim_environment);
        let sim = Running::start(|listener, stop| ml_api_sim::run(settings, listener, stop)).await.unwrap();

        let for_users = Listener::loopback().await.unwrap();
        let for_integration = Listener::loopback().await.unwrap();
        let for_catalog = Listener::loopback().await.unwrap();
        let for_analytics = Listener::loopback().await.unwrap();
        let services = [
            ("user-service", &for_users),
            ("integration-service", &for_integration),
            ("catalog-service", &for_catalog),
            ("analytics-service", &for_analytics),
        ];
        let routes = folder.path().join("routes.json");
        std::fs::write(&routes, table(&services).to_string()).unwrap();
        let pem = Signer::generate_pem().unwrap().expose_secret().to_owned();
        let environment = Environment::of([
            ("DATABASE_URL", format!("sqlite:{}", database.display())),
            ("EMBEDDED_DIR", folder.path().display().to_string()),
            ("ROUTES_FILE", routes.display().to_string()),
            ("JWT_KEYS", pem.clone()),
            ("INTERNAL_TOKEN", INTERNAL.to_owned()),
            ("OPERATOR_TOKEN", OPERATOR.to_owned()),
            ("WEBHOOK_SECRET", WEBHOOK.to_owned()),
            ("TOKEN_ENCRYPTION_KEY", ENCRYPTION_KEY.to_owned()),
            ("ML_CLIENT_ID", "app".to_owned()),
            ("ML_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("ML_REDIRECT_URI", REDIRECT.to_owned()),
            ("ML_AUTH_URL", sim.url()),
            ("ML_API_URL", sim.url()),
            ("USER_SERVICE_URL", url(&for_users)),
            ("INTEGRATION_SERVICE_URL", url(&for_integration)),
            ("CATALOG_SERVICE_URL", url(&for_catalog)),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
            ("DRAIN_SECONDS", "0".to_owned()),
        ]);

        let mut settings: user_service::settings::Settings = config(user_service::IDENTITY, &environment);
        settings.hash_cost = Cost { memory_kib: 64, passes: 1 };
        let users =
            Running::start_on(for_users, |listener, stop| user_service::run(settings, listener, stop))
                .unwrap();
        let settings: integration_service::config::Config =
            config(integration_service::IDENTITY, &environment);
        let integration = Running::start_on(for_integration, |listener, stop| {
            integration_service::run(settings, listener, stop)
        })
        .unwrap();
        let settings: catalog_service::Config = config(catalog_service::IDENTITY, &environment);
        let catalog =
            Running::start_on(for_catalog, |listener, stop| catalog_service::run(settings, listener, stop))
                .unwrap();
        let settings: analytics_service::Config = config(analytics_service::IDENTITY, &environment);
        let analytics = Running::start_on(for_analytics, |listener, stop| {
            analytics_service::run(settings, listener, stop)
        })
        .unwrap();
        let settings: gateway::Config = config(gateway::IDENTITY, &environment);
        let gateway = Running::start(|listener, stop| gateway::run(settings, listener, stop)).await.unwrap();
        users.ready(PATIENCE).await.unwrap();
        integration.ready(PATIENCE).await.unwrap();
        catalog.ready(PATIENCE).await.unwrap();
        analytics.ready(PATIENCE).await.unwrap();
        gateway.ready(PATIENCE).await.unwrap();
        Self { gateway, users, integration, catalog, analytics, sim, collector, pem, _folder: folder }
    }

    /// A client of the gateway.
    pub fn front(&self) -> Client {
        self.gateway.client().unwrap()
    }

    /// Consents at MercadoLibre as a browser would; the callback's query.
    pub async fn consent(&self, authorize_url: &str) -> String {
        let path = authorize_url.strip_prefix(&self.sim.url()).unwrap();
        let answer = client(self.sim.address).unwrap().get(path, &[]).await.unwrap();
        let location = answer.headers["location"].to_str().unwrap();
        location.split_once('?').unwrap().1.to_owned()
    }

    /// What every metrics page says.
    pub async fn metrics(&self) -> String {
        let mut pages = self.users.scrape().await.unwrap();
        pages.push_str(&self.integration.scrape().await.unwrap());
        pages.push_str(&self.catalog.scrape().await.unwrap());
        pages.push_str(&self.analytics.scrape().await.unwrap());
        pages.push_str(&self.gateway.scrape().await.unwrap());
        pages.push_str(&self.sim.scrape().await.unwrap());
        pages
    }

    /// Stops everything, front first, and keeps the collector.
    pub async fn stop(self) -> Collector {
        self.gateway.stop().await.unwrap().unwrap();
        self.users.stop().await.unwrap().unwrap();
        self.integration.stop().await.unwrap().unwrap();
        self.catalog.stop().await.unwrap().unwrap();
        self.analytics.stop().await.unwrap().unwrap();
        self.sim.stop().await.unwrap().unwrap();
        self.collector
    }
}

/// The gateway's table.
fn table(services: &[(&str, &Listener)]) -> Value {
    let entries = services.iter().map(|(name, listener)| {
        json!({"name": name, "upstream": listener.local_addr().unwrap().to_string(), "health_path": "/health"})
    });
    let route = |(path, service): (&str, &str)| json!({"path": path, "service": service, "to": path.strip_prefix("/api").unwrap(), "timeout_ms": 10_000});
    let routes = [
        ("/api/auth", "user-service"),
        ("/api/users", "user-service"),
        ("/api/ml", "integration-service"),
        ("/api/products", "catalog-service"),
        ("/api/analytics", "analytics-service"),
    ];
    json!({
        "version": 1, "maintenance": null,
        "services": entries.collect::<Vec<_>>(), "routes": routes.map(route),
    })
}

/// Sends a request that must be answered so.
pub async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
    status: u16,
) -> Answer {
    let answer = client.send_json(method.clone(), path, headers, body).await.unwrap();
    assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
    answer
}
