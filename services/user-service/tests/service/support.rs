//! The world that a test runs in.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use service_kit::auth::Signer;
use service_kit::client::Answer;
use service_kit::clock::ManualClock;
use service_kit::extract::Json;
use service_kit::testing::{Running, migrate};
use service_kit::{Base, Clock, Configuration as _, Environment, Identity, Kit, ServeError};
use tempfile::TempDir;
use tokio::sync::{Mutex, mpsc};
use user_service::password::Cost;
use user_service::random::SystemEntropy;
use user_service::settings::Settings;
use user_service::{IDENTITY, Ports, RunError};

pub const OPERATOR: &str = "operator-token";
pub const INTERNAL: &str = "internal-token";
pub const REDIRECT: &str = "https://api.example.com/api/auth/ml/callback";
pub const PASSWORD: &str = "correct horse battery staple";

/// Longest wait for something that happens at once unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running user-service and everything around it.
pub struct World {
    pub folder: TempDir,
    pub service: Running<RunError>,
    pub integration: Integration,
    pub clock: ManualClock,
}

impl World {
    /// A service over migrated stores, ready.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        migrate(&folder.path().join("app.db"), &migrations()).unwrap();
        let world = Self::unmigrated(folder, change).await;
        world.service.ready(PATIENCE).await.unwrap();
        world
    }

    /// A service over whatever is in `folder`.
    pub async fn unmigrated(folder: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let integration = Integration::start().await;
        let mut settings = settings(&folder, &integration.running.url());
        change(&mut settings);
        let (clock, hand) = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
        let ports = Ports { clock, entropy: Arc::new(SystemEntropy) };
        let service =
            Running::start(|listener, shutdown| user_service::run_with(settings, ports, listener, shutdown))
                .await
                .unwrap();
        Self { folder, service, integration, clock: hand }
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.service.client().unwrap().send_json(Method::POST, path, headers, body).await.unwrap()
    }

    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.service.client().unwrap().get(path, headers).await.unwrap()
    }

    pub async fn register(&self, email: &str) -> SignedIn {
        let answer = self.post("/auth/register", &[], &json!({"email": email, "password": PASSWORD})).await;
        SignedIn::read(&answer, 201)
    }

    pub async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/auth/login", &[], &json!({"email": email, "password": password})).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", &[], &json!({"refresh_token": token})).await
    }

    pub async fn me(&self, user: &SignedIn) -> Answer {
        self.get("/users/me", &[("authorization", &user.bearer())]).await
    }

    pub async fn leave(&self, user: &SignedIn) -> Answer {
        let client = self.service.client().unwrap();
        let bearer = user.bearer();
        let headers = [("authorization", bearer.as_str())];
        client.call(Method::DELETE, "/users/me", &headers, bytes::Bytes::new()).await.unwrap()
    }

    /// The value of one series of the metrics page.
    pub async fn metric(&self, series: &str) -> f64 {
        let page = self.service.scrape().await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(series)).map(str::trim);
        line.unwrap_or_else(|| panic!("{series} is missing from\n{page}")).parse().unwrap()
    }
}

/// Settings as the environment would give them, with hashes that cost nothing.
fn settings(folder: &TempDir, integration: &str) -> Settings {
    let path = |name: &str| folder.path().join(name).display().to_string();
    let environment = Environment::of([
        ("DATABASE_URL", format!("sqlite:{}", path("app.db"))),
        ("EMBEDDED_DIR", path("embedded")),
        ("JWT_KEYS", Signer::generate_pem().unwrap().expose_secret().to_owned()),
        ("INTEGRATION_SERVICE_URL", integration.to_owned()),
        ("INTERNAL_TOKEN", INTERNAL.to_owned()),
        ("OPERATOR_TOKEN", OPERATOR.to_owned()),
        ("ML_AUTH_URL", "https://auth.example.com".to_owned()),
        ("ML_CLIENT_ID", "1234".to_owned()),
        ("ML_REDIRECT_URI", REDIRECT.to_owned()),
    ]);
    let mut settings = Settings::from_environment(IDENTITY, &environment).unwrap();
    settings.hash_cost = Cost { memory_kib: 64, passes: 1 };
    settings
}

pub fn migrations() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite")
}

/// The tokens of an answer.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub body: Value,
    pub access: String,
    pub refresh: String,
}

impl SignedIn {
    /// Reads an answer that must have this status.
    pub fn read(answer: &Answer, status: u16) -> Self {
        assert_eq!(answer.status.as_u16(), status, "{}", text(answer));
        let body: Value = answer.json().unwrap();
        let field = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: field("access_token"), refresh: field("refresh_token"), body }
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.access)
    }

    pub fn id(&self) -> &str {
        self.body["user"]["id"].as_str().unwrap()
    }
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// Status and error code of an answer.
pub fn refusal(answer: &Answer) -> (u16, String) {
    let body: Value = answer.json().unwrap_or_default();
    (answer.status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
}

/// A call that integration-service received.
#[derive(Debug)]
pub struct Call {
    pub method: &'static str,
    pub headers: HeaderMap,
    /// Body of a POST, user id of a DELETE.
    pub content: Value,
}

/// An integration-service that records and answers as told.
pub struct Integration {
    pub running: Running<ServeError>,
    calls: Mutex<mpsc::UnboundedReceiver<Call>>,
    answer: Arc<parking_lot::Mutex<(StatusCode, Value)>>,
}

#[derive(Clone)]
struct Script {
    calls: mpsc::UnboundedSender<Call>,
    answer: Arc<parking_lot::Mutex<(StatusCode, Value)>>,
}

impl Integration {
    async fn start() -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let answer = Arc::new(parking_lot::Mutex::new((StatusCode::CREATED, json!({"ml_user_id": 4711}))));
        let script = Script { calls: sender, answer: Arc::clone(&answer) };
        let identity = Identity::new("integration-service", "0.0.0", 3002);
        let routes = Router::new()
            .route("/internal/ml/accounts", post(exchange))
            .route("/internal/ml/accounts/{user_id}", delete(disconnect))
            .with_state(script);
        let running = Running::start(|listener, shutdown| async move {
            Kit::new(identity, &Base::new(identity)).serve(routes, listener, shutdown).await
        })
        .await
        .unwrap();
        Self { running, calls: Mutex::new(calls), answer }
    }

    /// Answers every further call so.
    pub fn answer(&self, status: u16, body: Value) {
        *self.answer.lock() = (StatusCode::from_u16(status).unwrap(), body);
    }

    /// The next call, waited for.
    pub async fn call(&self) -> Call {
        let next = async { self.calls.lock().await.recv().await.unwrap() };
        tokio::time::timeout(PATIENCE, next).await.unwrap()
    }

    /// How many calls came that nobody looked at.
    pub async fn unseen(&self) -> usize {
        self.calls.lock().await.len()
    }
}

async fn exchange(State(script): State<Script>, headers: HeaderMap, Json(content): Json<Value>) -> Response {
    script.calls.send(Call { method: "POST", headers, content }).unwrap();
    let (status, body) = script.answer.lock().clone();
    (status, Json(body)).into_response()
}

async fn disconnect(
    State(script): State<Script>,
    Path(user_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    script.calls.send(Call { method: "DELETE", headers, content: user_id.into() }).unwrap();
    let (status, body) = script.answer.lock().clone();
    if status.is_success() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (status, Json(body)).into_response()
    }
}
