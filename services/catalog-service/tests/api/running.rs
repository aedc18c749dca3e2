//! A running catalog, and clients of it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use catalog_service::{Config, IDENTITY, RunError};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use service_kit::clock::ManualClock;
use service_kit::eventlog::{EventLog, Headers, ML_EVENTS, NewRecord, Record};
use service_kit::events::Publish;
use service_kit::testing::{Running, TestIdentity, eventually};
use service_kit::{Clock, Configuration as _, Environment};
use tempfile::TempDir;
use uuid::Uuid;

/// The longest that anything in these tests may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What several replicas share: the folder of the stores, the keys, the time.
pub struct System {
    folder: TempDir,
    mongodb: Option<SecretString>,
    identity: TestIdentity,
    clock: Clock,
    pub hand: ManualClock,
    pub log: EventLog,
}

impl System {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(Timestamp::now());
        let identity = TestIdentity::new(clock.clone()).unwrap();
        let log = EventLog::open(folder.path(), clock.clone()).await.unwrap();
        Self { folder, mongodb: None, identity, clock, hand, log }
    }

    /// The same with the documents on a server.
    pub async fn on_mongodb(url: &SecretString) -> Self {
        Self { mongodb: Some(url.clone()), ..Self::new().await }
    }

    /// Starts a replica and waits until it is ready.
    pub async fn start(&self) -> Replica {
        self.start_with(&[]).await
    }

    /// Starts a replica with more variables, and waits until it is ready.
    pub async fn start_with(&self, more: &[(&str, &str)]) -> Replica {
        let replica = self.begin(more).await;
        replica.0.ready(LIMIT).await.unwrap();
        replica
    }

    /// Starts a replica whose store may be away.
    pub async fn start_unready(&self) -> Replica {
        self.begin(&[]).await
    }

    async fn begin(&self, more: &[(&str, &str)]) -> Replica {
        let mut environment = Environment::of([
            ("EMBEDDED_DIR", self.folder.path().to_str().unwrap()),
            ("INTERNAL_TOKEN", "internal-secret"),
            ("USER_SERVICE_URL", "http://127.0.0.1:9"),
            ("DRAIN_SECONDS", "0"),
        ]);
        if let Some(url) = &self.mongodb {
            environment = environment.with("MONGODB_URL", url.expose_secret());
        }
        for (name, value) in more {
            environment = environment.with(name, value);
        }
        let mut config = Config::from_environment(IDENTITY, &environment).unwrap();
        config.clock = self.clock.clone();
        config.verifier = self.identity.verifier();
        let running = Running::start(|listener, shutdown| catalog_service::run(config, listener, shutdown))
            .await
            .unwrap();
        Replica(running)
    }

    /// A client of `replica` with a token of its own.
    pub fn user(&self, replica: &Replica, tenant: &str) -> User {
        let id = Uuid::new_v4();
        let bearer = self.identity.bearer(id, tenant).unwrap();
        User { id, tenant: tenant.to_owned(), bearer: Arc::from(bearer), client: replica.0.client().unwrap() }
    }

    /// The same user with a token of this moment.
    pub fn renewed(&self, user: &User) -> User {
        User { bearer: Arc::from(self.identity.bearer(user.id, &user.tenant).unwrap()), ..user.clone() }
    }

    /// Waits until the log holds `count` events, and checks that it holds no more.
    pub async fn events(&self, count: usize) -> Vec<Record> {
        eventually("the events", || async {
            let events = self.log.read(ML_EVENTS, 0, 10_000).await.unwrap();
            assert!(events.len() <= count, "{} events instead of {count}: {events:#?}", events.len());
            (events.len() == count).then_some(events)
        })
        .await
    }

    /// Publishes an event as another service would.
    pub async fn publish(&self, event_type: &str, user: &User) {
        self.publish_to(&self.log, event_type, user).await;
    }

    /// [`System::publish`] to a log of one's own.
    pub async fn publish_to(&self, log: &dyn Publish, event_type: &str, user: &User) {
        let id = Uuid::new_v4().to_string();
        let payload = json!({
            "id": id, "type": event_type, "tenant": user.tenant, "user_id": user.id, "at": self.clock.now(), "data": {},
        });
        let record = NewRecord { id, payload, headers: Headers::new() };
        log.publish(ML_EVENTS, &user.id.to_string(), vec![record]).await.unwrap();
    }
}

/// One process of the service.
pub struct Replica(Running<RunError>);

impl Replica {
    pub async fn stop(self) {
        tokio::time::timeout(LIMIT, self.0.stop()).await.expect("the stop takes too long").unwrap().unwrap();
    }

    /// The value of one series.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.0.scrape().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in:\n{text}")).parse().unwrap()
    }

    /// Hands items over as integration-service does; answers status and body.
    pub async fn hand_over(&self, token: &str, body: &Value) -> (u16, Value) {
        let headers = [("x-internal-token", token)];
        let client = self.0.client().unwrap();
        let answer =
            client.send_json(Method::POST, "/internal/products/upsert", &headers, body).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }

    /// Tells of a deleted user directly, as user-service does for verification traffic.
    pub async fn erase(&self, token: &str, user: &User) -> u16 {
        let path = format!("/internal/products/users/{}?tenant={}", user.id, user.tenant);
        let headers = [("x-internal-token", token)];
        let client = self.0.client().unwrap();
        client.call(Method::DELETE, &path, &headers, axum::body::Bytes::new()).await.unwrap().status.as_u16()
    }

    /// The status of a health route.
    pub async fn status(&self, path: &str) -> u16 {
        self.0.client().unwrap().get(path, &[]).await.unwrap().status.as_u16()
    }

    /// An answer to a request without any token.
    pub async fn get_anonymously(&self, path: &str) -> (u16, Value) {
        let answer = self.0.client().unwrap().get(path, &[]).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }
}

/// A client with an access token.
#[derive(Clone)]
pub struct User {
    pub id: Uuid,
    pub tenant: String,
    bearer: Arc<str>,
    client: service_kit::client::Client,
}

impl User {
    /// The same user at another replica.
    pub fn at(&self, replica: &Replica) -> Self {
        Self { client: replica.0.client().unwrap(), ..self.clone() }
    }

    pub async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let headers = [("authorization", &*self.bearer)];
        let answer = self.client.send_json(method, path, &headers, body).await.unwrap();
        let body = if answer.body.is_empty() { Value::Null } else { answer.json().unwrap() };
        (answer.status.as_u16(), body)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, &Value::Null).await
    }

    pub async fn post(&self, body: &Value) -> (u16, Value) {
        self.call(Method::POST, "/products", body).await
    }

    /// Makes a product under an idempotency key; answers status, whether it was answered before, and body.
    pub async fn post_once(&self, body: &Value, key: &str) -> (u16, bool, Value) {
        let headers = [("authorization", &*self.bearer), ("idempotency-key", key)];
        let answer = self.client.send_json(Method::POST, "/products", &headers, body).await.unwrap();
        let replayed = answer.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
        (answer.status.as_u16(), replayed, answer.json().unwrap())
    }

    pub async fn put(&self, id: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PUT, &format!("/products/{id}"), body).await
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.call(Method::DELETE, path, &Value::Null).await
    }

    /// Makes a product and answers it.
    pub async fn product(&self, title: &str) -> Value {
        let (status, product) = self.post(&json!({"title": title, "price": 10})).await;
        assert_eq!(status, 201, "{product}");
        product
    }

    /// Titles that a search finds, in its order.
    pub async fn titles(&self, query: &str) -> Vec<String> {
        let (status, page) = self.get(&format!("/products{query}")).await;
        assert_eq!(status, 200, "{page}");
        let products = page["products"].as_array().unwrap();
        products.iter().map(|product| product["title"].as_str().unwrap().to_owned()).collect()
    }

    /// The body of a hand-over of this user's items.
    pub fn hand_over(&self, source: &str, items: &[Value]) -> Value {
        json!({"tenant": self.tenant, "user_id": self.id, "source": source, "items": items})
    }
}

/// The identity of a product.
pub fn id(product: &Value) -> &str {
    product["id"].as_str().unwrap()
}
