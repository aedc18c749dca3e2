//! The simulator, a noting catalog, a key server, and the service between them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use integration_service::config::Config;
use integration_service::{IDENTITY, RunError, run_at};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use service_kit::client::{Answer, Client};
use service_kit::clock::ManualClock;
use service_kit::eventlog::{EventLog, ML_EVENTS};
use service_kit::testing::{Running, TestIdentity, client, migrate};
use service_kit::{Clock, Configuration, Environment, ServeError};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) const WEBHOOK_SECRET: &str = "webhook-secret-0123456789";
const REDIRECT: &str = "http://127.0.0.1:8080/api/auth/ml/callback";
const VERIFIER: &str = "a-verifier-of-sufficient-length-0123456789abc";
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) service: Running<RunError>,
    pub(crate) sim: Client,
    pub(crate) hand: ManualClock,
    client: Client,
    identity: TestIdentity,
    /// What the catalog was given.
    pub(crate) upserts: mpsc::UnboundedReceiver<Value>,
    catalog_answer: Arc<Mutex<(StatusCode, Value)>>,
    sim_running: Running<ServeError>,
    clock: Clock,
}

/// A user of ours.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) tenant: &'static str,
    pub(crate) bearer: String,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these variables on top of the usual ones.
    pub(crate) async fn with(variables: &[(&str, &str)]) -> Self {
        let sim_environment = Environment::of([("SIM_CLOCK", "2027-01-15T08:00:00Z")]);
        let sim_config =
            ml_api_sim::config::Config::from_environment(ml_api_sim::IDENTITY, &sim_environment).unwrap();
        let sim_running =
            Running::start(|listener, shutdown| ml_api_sim::run(sim_config, listener, shutdown))
                .await
                .unwrap();

        let (clock, hand) = Clock::manual("2027-01-15T08:00:00Z".parse::<Timestamp>().unwrap());
        let identity = TestIdentity::new(clock.clone()).unwrap();
        let (sender, upserts) = mpsc::unbounded_channel();
        let catalog_answer = Arc::new(Mutex::new((StatusCode::OK, json!({}))));
        let catalog = NotingCatalog { sender, answer: Arc::clone(&catalog_answer) };
        let others = others(identity.jwks().unwrap(), catalog).await;

        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ml.db");
        migrate(&database, concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite").as_ref()).unwrap();
        let mut environment = Environment::of([
            ("DATABASE_URL", format!("sqlite:{}", database.display()).as_str()),
            ("EMBEDDED_DIR", folder.path().to_str().unwrap()),
            ("ML_API_URL", &sim_running.url()),
            ("ML_CLIENT_ID", "app"),
            ("ML_CLIENT_SECRET", "secret"),
            ("ML_API_TIMEOUT", "2000"),
            ("ML_REDIRECT_URI", REDIRECT),
            ("TOKEN_ENCRYPTION_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("WEBHOOK_SECRET", WEBHOOK_SECRET),
            ("INTERNAL_TOKEN", "internal"),
            ("USER_SERVICE_URL", &others),
            ("CATALOG_SERVICE_URL", &others),
            ("DRAIN_SECONDS", "0"),
        ]);
        for (name, value) in variables {
            environment = environment.with(name, value);
        }
        let config = Config::from_environment(IDENTITY, &environment).unwrap();
        let at = clock.clone();
        let service =
            Running::start(|listener, shutdown| run_at(config, at, listener, shutdown)).await.unwrap();
        service.ready(LIMIT).await.unwrap();
        let sim = client(sim_running.address).unwrap();
        let client = service.client().unwrap();
        Self { folder, service, sim, hand, client, identity, upserts, catalog_answer, sim_running, clock }
    }

    pub(crate) fn user(&self) -> User {
        self.user_of("default")
    }

    pub(crate) fn user_of(&self, tenant: &'static str) -> User {
        let id = Uuid::new_v4();
        User { id, tenant, bearer: self.identity.bearer(id, tenant).unwrap() }
    }

    /// The same user with a token that has its whole life before it.
    pub(crate) fn signed_in_again(&self, user: &User) -> User {
        User { bearer: self.identity.bearer(user.id, user.tenant).unwrap(), ..user.clone() }
    }

    /// Consents at MercadoLibre, as a new seller or as this one, and hands the code over as user-service does.
    pub(crate) async fn connect(&self, user: &User, seller: Option<u64>) -> Answer {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let redirect = REDIRECT.replace(':', "%3A").replace('/', "%2F");
        let mut path = format!(
            "/authorization?response_type=code&client_id=app&redirect_uri={redirect}&state=s\
             &code_challenge={challenge}&code_challenge_method=S256"
        );
        if let Some(seller) = seller {
            path.push_str(&format!("&sim_seller={seller}"));
        }
        let consent: Value =
            self.sim.get(&path, &[("accept", "application/json")]).await.unwrap().json().unwrap();
        let body = json!({
            "user_id": user.id, "tenant": user.tenant, "code": consent["code"],
            "code_verifier": VERIFIER, "redirect_uri": REDIRECT,
        });
        self.internal(Method::POST, "/internal/ml/accounts", &body).await
    }

    /// A user with a connected account; its MercadoLibre id.
    pub(crate) async fn connected(&self) -> (User, u64) {
        let user = self.user();
        let answer = self.connect(&user, None).await;
        assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.body);
        (user, answer.json::<Value>().unwrap()["ml_user_id"].as_u64().unwrap())
    }

    pub(crate) async fn get(&self, user: &User, path: &str) -> Answer {
        self.client.get(path, &[("authorization", &user.bearer)]).await.unwrap()
    }

    pub(crate) async fn send(&self, user: &User, method: Method, path: &str, body: &Value) -> Answer {
        self.send_with(user, method, path, &[], body).await
    }

    pub(crate) async fn send_with(
        &self,
        user: &User,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let mut all = vec![("authorization", user.bearer.as_str())];
        all.extend_from_slice(headers);
        self.client.send_json(method, path, &all, body).await.unwrap()
    }

    pub(crate) async fn internal(&self, method: Method, path: &str, body: &Value) -> Answer {
        self.client.send_json(method, path, &[("x-internal-token", "internal")], body).await.unwrap()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn ids(&self, user: &User) -> Vec<String> {
        let page: Value = self.get(user, "/ml/items").await.json().unwrap();
        let ids = page["results"].as_array().unwrap_or_else(|| panic!("{page}"));
        ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn fault(&self, rule: Value) {
        let answer = self.sim.send_json(Method::POST, "/sim/faults", &[], &rule).await.unwrap();
        assert_eq!(answer.status.as_u16(), 201);
    }

    /// Requests that reached MercadoLibre at this endpoint.
    pub(crate) async fn calls(&self, endpoint: &str) -> usize {
        let page: Value = self.sim.get("/sim/ledger", &[]).await.unwrap().json().unwrap();
        page["entries"].as_array().unwrap().iter().filter(|entry| entry["endpoint"] == endpoint).count()
    }

    pub(crate) async fn summary(&self) -> Value {
        self.sim.get("/sim/ledger/summary", &[]).await.unwrap().json().unwrap()
    }

    /// Events of the log, by type.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Value> {
        let log = EventLog::open(self.folder.path(), self.clock.clone()).await.unwrap();
        let records = log.read(ML_EVENTS, 0, 10_000).await.unwrap();
        records.into_iter().map(|record| record.payload).filter(|event| event["type"] == kind).collect()
    }

    /// The next items that the catalog is given.
    pub(crate) async fn upsert(&mut self) -> Value {
        tokio::time::timeout(LIMIT, self.upserts.recv()).await.unwrap().unwrap()
    }

    /// The catalog answers so from now on.
    pub(crate) fn catalog_answers(&self, status: u16, body: Value) {
        *self.catalog_answer.lock() = (StatusCode::from_u16(status).unwrap(), body);
    }

    pub(crate) async fn health(&self) -> Value {
        self.client.get("/ml/health", &[]).await.unwrap().json().unwrap()
    }

    pub(crate) async fn stop(self) {
        self.service.stop().await.unwrap().unwrap();
        self.sim_running.stop().await.unwrap().unwrap();
    }
}

/// A catalog-service that tells what it is given, and answers as told.
#[derive(Clone)]
struct NotingCatalog {
    sender: mpsc::UnboundedSender<Value>,
    answer: Arc<Mutex<(StatusCode, Value)>>,
}

/// user-service's keys and catalog-service's upsert on one port.
async fn others(jwks: Value, catalog: NotingCatalog) -> String {
    async fn upsert(
        State(catalog): State<NotingCatalog>,
        headers: axum::http::HeaderMap,
        Json(body): Json<Value>,
    ) -> (StatusCode, Json<Value>) {
        assert_eq!(headers["x-internal-token"], "internal");
        catalog.sender.send(body).unwrap();
        let (status, answer) = catalog.answer.lock().clone();
        (status, Json(answer))
    }
    let routes = Router::new()
        .route("/.well-known/jwks.json", get(move || async move { Json(jwks) }))
        .route("/internal/products/upsert", post(upsert))
        .with_state(catalog);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, routes).await });
    url
}
