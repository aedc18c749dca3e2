//! A running analytics-service, a log to publish to, and clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use analytics_service::{Config, IDENTITY, RunError};
use jiff::Timestamp;
use serde_json::{Value, json};
use service_kit::client::Client;
use service_kit::eventlog::{EventLog, Headers, ML_EVENTS, NewRecord};
use service_kit::testing::{Running, TestIdentity, eventually};
use service_kit::{Clock, Configuration as _, Environment};
use tempfile::TempDir;
use uuid::Uuid;

/// The longest that anything in these tests may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The moment at which the clock of these tests stands.
pub const NOW: &str = "2026-11-24T03:15:00Z";

/// What several replicas share: the stores, the keys, the time.
pub struct System {
    folder: TempDir,
    identity: TestIdentity,
    clock: Clock,
    log: EventLog,
}

impl System {
    /// Stores as `mlctl db migrate` leaves them.
    pub async fn new() -> Self {
        let system = Self::without_migrations().await;
        system.migrate();
        system
    }

    pub async fn without_migrations() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, _) = Clock::manual(NOW.parse().unwrap());
        let identity = TestIdentity::new(clock.clone()).unwrap();
        let log = EventLog::open(folder.path(), clock.clone()).await.unwrap();
        Self { folder, identity, clock, log }
    }

    pub fn migrate(&self) {
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
        service_kit::testing::migrate(&self.database(), &migrations).unwrap();
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("database.db")
    }

    /// Starts a replica; it may have to wait for its tables.
    pub async fn start(&self) -> Replica {
        let database = format!("sqlite:{}", self.database().display());
        let environment = Environment::of([
            ("DATABASE_URL", database.as_str()),
            ("EMBEDDED_DIR", self.folder.path().to_str().unwrap()),
            ("USER_SERVICE_URL", "http://127.0.0.1:9"),
            ("DRAIN_SECONDS", "0"),
        ]);
        let mut config = Config::from_environment(IDENTITY, &environment).unwrap();
        config.clock = self.clock.clone();
        config.verifier = self.identity.verifier();
        let running = Running::start(|listener, shutdown| analytics_service::run(config, listener, shutdown))
            .await
            .unwrap();
        Replica(running)
    }

    /// A user with a token, asking `replica`.
    pub fn user(&self, replica: &Replica, tenant: &str) -> User {
        let id = Uuid::new_v4();
        let bearer = self.identity.bearer(id, tenant).unwrap();
        User { id, tenant: tenant.to_owned(), bearer, client: replica.client() }
    }

    /// Appends one record with this payload.
    pub async fn append(&self, payload: Value) {
        let id = payload["id"].as_str().unwrap_or("none").to_owned();
        let record = NewRecord { id, payload, headers: Headers::new() };
        self.log.append(ML_EVENTS, "key", vec![record]).await.unwrap();
    }
}

/// One event of a user, now.
pub fn event(event_type: &str, user: &User) -> Value {
    event_at(event_type, user, NOW)
}

/// One event of a user.
pub fn event_at(event_type: &str, user: &User, at: &str) -> Value {
    let at: Timestamp = at.parse().unwrap();
    json!({
        "id": Uuid::new_v4(), "type": event_type, "tenant": user.tenant, "user_id": user.id, "at": at, "data": {"n": 1},
    })
}

/// One process of the service.
pub struct Replica(Running<RunError>);

impl Replica {
    pub async fn ready(&self) {
        self.0.ready(LIMIT).await.unwrap();
    }

    pub async fn stop(self) {
        tokio::time::timeout(LIMIT, self.0.stop()).await.expect("the stop takes too long").unwrap().unwrap();
    }

    pub fn client(&self) -> Client {
        self.0.client().unwrap()
    }

    /// Status and body of an answer to a request without a token.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.client().get(path, &[]).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }

    /// Status of an answer to a request without a token.
    pub async fn status(&self, path: &str) -> u16 {
        self.client().get(path, &[]).await.unwrap().status.as_u16()
    }

    /// The value of one series.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.0.scrape().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no series {series} in:\n{text}")).parse().unwrap()
    }

    /// Records of the log that ended with this outcome.
    pub async fn outcome(&self, outcome: &str) -> f64 {
        self.metric(&format!("analytics_events_total{{outcome=\"{outcome}\"}}")).await
    }
}

/// A client with an access token.
pub struct User {
    pub id: Uuid,
    pub tenant: String,
    bearer: String,
    client: Client,
}

impl User {
    /// The same user at another replica.
    pub fn at(self, replica: &Replica) -> Self {
        Self { client: replica.client(), ..self }
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.client.get(path, &[("authorization", &self.bearer)]).await.unwrap();
        (answer.status.as_u16(), answer.json().unwrap())
    }

    pub async fn summary(&self) -> Value {
        let (status, summary) = self.get("/analytics/summary").await;
        assert_eq!(status, 200, "{summary}");
        summary
    }

    /// Waits until this many events of the user are counted, and answers the summary.
    pub async fn counted(&self, events: u64) -> Value {
        eventually(&format!("{events} events"), || async {
            let summary = self.summary().await;
            let total = summary["events_total"].as_u64().unwrap();
            assert!(total <= events, "{total} events instead of {events}: {summary}");
            (total == events).then_some(summary)
        })
        .await
    }
}
