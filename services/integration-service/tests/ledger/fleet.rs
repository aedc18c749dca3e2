//! Three processes of the service, MercadoLibre, a catalog that takes notes, a key server, and the stores.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::Method;
use axum::routing::{get, post};
use axum::{Json, Router};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service_kit::client::Client;
use service_kit::testing::{RedisServer, Running, TestIdentity, client, servers};
use service_kit::{Clock, Configuration, Environment, ServeError};

use crate::{GLOBAL, ML_API, USER, WINDOW};

pub(crate) const REDIRECT: &str = "http://127.0.0.1:8080/api/auth/ml/callback";
const WEBHOOK_SECRET: &str = "webhook-secret-0123456789";
const PROCESSES: usize = 3;
/// Time for a process to be ready, and for what waits to be worked in.
const PATIENCE: Duration = Duration::from_secs(60);

/// The newest version of each item that the catalog was given: `last_updated` and the whole.
type Noted = Arc<Mutex<BTreeMap<String, Value>>>;

pub(crate) struct Fleet {
    pub(crate) cache: tokio::sync::Mutex<RedisServer>,
    pub(crate) state: tokio::sync::Mutex<RedisServer>,
    pub(crate) processes: Vec<Client>,
    pub(crate) sim: Client,
    pub(crate) sim_url: String,
    pub(crate) identity: TestIdentity,
    pub(crate) noted: Noted,
    metrics: Vec<Client>,
    children: Mutex<Vec<Child>>,
    _sim: Running<ServeError>,
    folder: tempfile::TempDir,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.children.lock().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let clock = Clock::system();
        let identity = TestIdentity::new(clock.clone()).unwrap();
        let noted = Noted::default();
        let others = others(identity.jwks().unwrap(), Arc::clone(&noted)).await;
        // Tokens that live for seconds, so that they are refreshed all the time; no limit but ours.
        let sim_environment = Environment::of([
            ("SIM_ITEMS", "40"),
            ("SIM_TOKEN_SECONDS", "10"),
            ("SIM_RATE_LIMIT_PER_MINUTE", "0"),
            ("SIM_SEED", "1"),
        ]);
        let config =
            ml_api_sim::config::Config::from_environment(ml_api_sim::IDENTITY, &sim_environment).unwrap();
        let sim_running =
            Running::start(|listener, shutdown| ml_api_sim::run(config, listener, shutdown)).await.unwrap();
        let sim = client(sim_running.address).unwrap();
        let idle = ("timeout", "1");
        let cache = [idle, ("maxmemory", "8mb"), ("maxmemory-policy", "allkeys-lru")];
        let cache = RedisServer::start(&cache).unwrap();
        let state = [idle, ("maxmemory-policy", "noeviction"), ("appendonly", "yes")];
        let state = RedisServer::start(&state).unwrap();
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
        let database = servers::postgresql(&migrations).await.unwrap();
        let folder = tempfile::tempdir().unwrap();

        let (mut children, mut processes, mut metrics) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..PROCESSES {
            let (port, metrics_port) = (free_port(), free_port());
            let log = std::fs::File::create(folder.path().join(format!("{number}.log"))).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_integration-service"));
            command.env_clear().envs([
                ("PORT", port.to_string().as_str()),
                ("METRICS_PORT", &metrics_port.to_string()),
                ("LOG_LEVEL", "warn"),
                ("DATABASE_URL", database.expose_secret()),
                ("EMBEDDED_DIR", folder.path().to_str().unwrap()),
                ("REDIS_URL", cache.url().expose_secret()),
                ("REDIS_STATE_URL", state.url().expose_secret()),
                ("ML_API_URL", &sim_running.url()),
                ("ML_CLIENT_ID", "app"),
                ("ML_CLIENT_SECRET", "secret"),
                ("ML_API_TIMEOUT", "5000"),
                ("ML_REDIRECT_URI", REDIRECT),
                ("TOKEN_ENCRYPTION_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                ("WEBHOOK_SECRET", WEBHOOK_SECRET),
                ("INTERNAL_TOKEN", "internal"),
                ("USER_SERVICE_URL", &others),
                ("CATALOG_SERVICE_URL", &others),
                ("GLOBAL_RATE_LIMIT_PER_HOUR", &GLOBAL.to_string()),
                ("USER_RATE_LIMIT_PER_HOUR", &USER.to_string()),
                ("ML_API_RATE_LIMIT_PER_HOUR", &ML_API.to_string()),
                ("RATE_LIMIT_WINDOW_SECONDS", &WINDOW.as_secs().to_string()),
                ("MAX_REPLICAS", &PROCESSES.to_string()),
            ]);
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            children.push(command.spawn().unwrap());
            processes.push(client(([127, 0, 0, 1], port).into()).unwrap());
            metrics.push(client(([127, 0, 0, 1], metrics_port).into()).unwrap());
        }
        let sim_url = sim_running.url();
        let fleet = Self {
            cache: cache.into(),
            state: state.into(),
            processes,
            sim,
            sim_url,
            identity,
            noted,
            metrics,
            children: Mutex::new(children),
            _sim: sim_running,
            folder,
        };
        for process in &fleet.processes {
            let until = Instant::now() + PATIENCE;
            while !process.get("/readyz", &[]).await.is_ok_and(|answer| answer.status.as_u16() == 200) {
                assert!(Instant::now() < until, "not ready");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // The books are opened at the start; the first users come when they count.
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.notify().await;
        fleet
    }

    /// What the processes said last is part of why a test fails.
    pub(crate) fn logs_on_panic(&self) {
        let folder = self.folder.path().to_owned();
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            for number in 0..PROCESSES {
                let log = std::fs::read_to_string(folder.join(format!("{number}.log"))).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                println!("--- process {number}\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
            }
            told(panic);
        }));
    }

    /// Notifications go to one of the processes and are repeated within seconds.
    async fn notify(&self) {
        let url = format!("http://{}/ml/notifications/{WEBHOOK_SECRET}", self.address(0));
        let manner = json!({ "callback_url": url, "attempts": 12, "retry_ms": 100 });
        let answer = self.sim.send_json(Method::POST, "/sim/notifications", &[], &manner).await.unwrap();
        assert_eq!(answer.status.as_u16(), 200);
    }

    fn address(&self, process: usize) -> String {
        self.processes[process]
            .url()
            .to_string()
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned()
    }

    /// All of MercadoLibre's books.
    pub(crate) async fn ledger(&self) -> Vec<Value> {
        let (mut entries, mut since) = (Vec::new(), 0);
        loop {
            let page: Value =
                self.sim.get(&format!("/sim/ledger?since={since}"), &[]).await.unwrap().json().unwrap();
            let new = page["entries"].as_array().unwrap();
            if new.is_empty() {
                return entries;
            }
            since = page["next"].as_u64().unwrap();
            entries.extend(new.iter().cloned());
        }
    }

    /// Waits until every notification is acknowledged and worked in.
    pub(crate) async fn drained(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let health: Value = self.processes[0].get("/ml/health", &[]).await.unwrap().json().unwrap();
            let open = crate::judge::unacknowledged(&self.ledger().await);
            if health["notifications_waiting"] == 0 && open.is_empty() {
                return;
            }
            assert!(
                Instant::now() < until,
                "{} notifications, unacknowledged {open:?}",
                health["notifications_waiting"]
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn scraped(&self) -> String {
        let mut pages = String::new();
        for process in &self.metrics {
            let answer = process.get("/metrics", &[]).await.unwrap();
            pages.push_str(&String::from_utf8_lossy(&answer.body));
        }
        pages
    }

    /// The longest round trip to MercadoLibre, by the services' own histogram (the bound of its bucket).
    pub(crate) async fn round_trip(&self) -> Duration {
        let page = self.scraped().await;
        let mut counts = BTreeMap::<u64, u64>::new();
        for line in page.lines().filter(|line| line.starts_with("ml_api_request_duration_seconds_bucket")) {
            let (_, bound) = line.split_once("le=\"").unwrap();
            let bound = bound.split('"').next().unwrap();
            let count = line.split_once("} ").unwrap().1.split_whitespace().next().unwrap();
            let bound: f64 = if bound == "+Inf" { 1_000.0 } else { bound.parse().unwrap() };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds")]
            let bound = (bound * 1_000.0) as u64;
            *counts.entry(bound).or_default() += count.parse::<u64>().unwrap();
        }
        let all = *counts.values().next_back().unwrap();
        let holds = |share: u64| counts.iter().find(|(_, count)| **count >= all - all / share).unwrap();
        println!(
            "    | {all} calls to MercadoLibre: half below {} ms, 99 % below {} ms, 99.9 % below {} ms, all below {} ms",
            holds(2).0,
            holds(100).0,
            holds(1_000).0,
            holds(u64::MAX).0
        );
        Duration::from_millis(*holds(1_000).0)
    }

    /// What happened to the stores was told by metrics.
    pub(crate) async fn alarmed(&self) {
        let page = self.scraped().await;
        for name in ["rate_limit_fallbacks_total{store=\"redis\"}", "cache_failures_total{store=\"redis\"}"] {
            let counts = page.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            let count: f64 = counts.sum();
            println!("    | {name} {count}");
            assert!(count > 0.0, "{name}");
        }
        let alone: Vec<&str> = page.lines().filter(|line| line.starts_with("rate_limit_local{")).collect();
        assert!(alone.iter().all(|line| line.ends_with(" 0.0")), "all share again at the end: {alone:?}");
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// user-service's keys and catalog-service's upsert on one port. As the real one, it keeps the newer version.
async fn others(jwks: Value, noted: Noted) -> String {
    async fn upsert(State(noted): State<Noted>, Json(body): Json<Value>) -> Json<Value> {
        let mut noted = noted.lock();
        for item in body["items"].as_array().unwrap() {
            let at = |item: &Value| item["last_updated"].as_str().unwrap_or_default().to_owned();
            let known = noted.entry(item["id"].as_str().unwrap().to_owned()).or_insert(Value::Null);
            if at(known) <= at(item) {
                *known = item.clone();
            }
        }
        Json(json!({}))
    }
    let routes = Router::new()
        .route("/.well-known/jwks.json", get(move || async move { Json(jwks) }))
        .route("/internal/products/upsert", post(upsert))
        .layer(DefaultBodyLimit::max(16 << 20))
        .with_state(noted);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, routes).await });
    url
}
