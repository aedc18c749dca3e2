//! The services' real binaries on real stores, told by nothing but their environment.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlctl_tests::stores::{Kafka, Mongodb, Postgresql, Program, Redis, Store, wrapped};
use mlctl_tests::{free_ports, note, repository, service};
use serde_json::json;
use tempfile::TempDir;

use crate::{client, sql};

/// Time for a service to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for one question.
const QUESTION: Duration = Duration::from_secs(2);
/// All services that have tables share one database, as in `mlctl.yaml`.
const DATABASE: &str = "ml_ecosystem";
/// The services, in the order they start, and the number of replicas.
const SERVICES: [(&str, usize); 6] = [
    ("ml-api-sim", 1),
    ("user-service", 2),
    ("integration-service", 2),
    ("catalog-service", 2),
    ("analytics-service", 2),
    ("gateway", 1),
];

/// The stores of a system: the cache and what must not be evicted are two servers of Redis.
pub(crate) struct Stores {
    pub(crate) postgresql: Postgresql,
    pub(crate) cache: Redis,
    pub(crate) state: Redis,
    pub(crate) mongodb: Mongodb,
    pub(crate) kafka: Kafka,
}

impl Stores {
    /// Starts all of them side by side.
    pub(crate) fn start() -> Self {
        std::thread::scope(|scope| {
            let kafka = scope.spawn(Kafka::start);
            let mongodb = scope.spawn(Mongodb::start);
            let postgresql = Postgresql::start().unwrap();
            let cache = Redis::start_with(&[("maxmemory-policy", "allkeys-lru"), ("timeout", "300")]);
            let state = Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]);
            Self {
                postgresql,
                cache: cache.unwrap(),
                state: state.unwrap(),
                mongodb: mongodb.join().unwrap().unwrap(),
                kafka: kafka.join().unwrap().unwrap(),
            }
        })
    }

    /// Makes what a deploy makes: the database with its tables, and the topics.
    pub(crate) fn prepared(self) -> Self {
        sql(&self.postgresql.url(), &format!("create database {DATABASE}")).unwrap();
        for (name, _) in SERVICES {
            let folder = repository().join("services").join(name).join("migrations/postgres");
            let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
            let mut files: Vec<PathBuf> =
                entries.filter(|path| path.to_string_lossy().ends_with(".up.sql")).collect();
            files.sort();
            for file in files {
                let file = file.display().to_string();
                let words = ["psql", "-XAtq", "-1", "-v", "ON_ERROR_STOP=1", &self.database(), "-f", &file];
                client(20, &words).unwrap();
            }
        }
        self.kafka.create_topic("ml-events", 6).unwrap();
        self.kafka.create_topic("ml-events.dead", 1).unwrap();
        self
    }

    /// Returns each of them.
    pub(crate) fn each(&mut self) -> [&mut dyn Store; 5] {
        let Self { postgresql, cache, state, mongodb, kafka } = self;
        [postgresql, cache, state, mongodb, kafka]
    }

    /// Returns the address of the services' database.
    pub(crate) fn database(&self) -> String {
        self.postgresql.database(DATABASE)
    }
}

/// The services.
pub(crate) struct System {
    programs: Vec<Program>,
    gateway: String,
    // After the programs: they end before it goes.
    folder: TempDir,
}

impl System {
    /// Starts all services on these stores, each with its replicas behind one address.
    pub(crate) fn start(stores: &Stores) -> Self {
        let folder = tempfile::Builder::new().prefix("mlctl-system-").tempdir().unwrap();
        let keys = folder.path().join("keys.pem");
        let make = "umask 77; openssl genpkey -algorithm ed25519 -out \"$0\"";
        client(10, &["sh", "-c", make, &keys.display().to_string()]).unwrap();
        let count: usize = SERVICES.iter().map(|(_, replicas)| replicas).sum();
        let mut ports = free_ports(count).into_iter();
        let placed: Vec<(&str, Vec<u16>)> = SERVICES
            .iter()
            .map(|(name, replicas)| (*name, ports.by_ref().take(*replicas).collect()))
            .collect();
        let url = |name: &str, replica: usize| {
            let ports = &placed.iter().find(|(other, _)| *other == name).unwrap().1;
            format!("http://127.0.0.1:{}", ports[replica % ports.len()])
        };
        let gateway = url("gateway", 0);
        let routes = folder.path().join("routes.json");
        std::fs::write(&routes, self::routes(|name| url(name, 0))).unwrap();

        let mut programs = Vec::new();
        for (name, ports) in &placed {
            for (replica, port) in ports.iter().enumerate() {
                // Those that are called by others than the gateway have their second replica called too.
                let mut line: Vec<OsString> = wrapped(Path::new("env"), false, None);
                line.extend(environment(stores, &|name| url(name, replica), &gateway).map(OsString::from));
                line.push(format!("JWT_KEYS_FILE={}", keys.display()).into());
                line.push(format!("ROUTES_FILE={}", routes.display()).into());
                line.push(format!("PORT={port}").into());
                line.push(service(name).into());
                let port = *port;
                let title = format!("{name}-{replica}");
                let mut program = Program::new(&title, line, folder.path(), PATIENCE, move || is_ready(port));
                program.start().unwrap();
                programs.push(program);
            }
        }
        Self { programs, gateway, folder }
    }

    /// Returns the base URL of the gateway.
    pub(crate) fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Asserts that all services live: none was ended by what happened to a store.
    #[track_caller]
    pub(crate) fn lives(&mut self) {
        for program in &mut self.programs {
            assert!(program.runs(), "a service has ended");
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // A test failed: what the services complained about is the evidence.
        let logs = std::fs::read_dir(self.folder.path()).into_iter().flatten().filter_map(Result::ok);
        let logs = logs.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(".log"));
        for path in logs.filter(|_| std::thread::panicking()) {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let complains = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
            let lines: Vec<&str> = text.lines().filter(complains).collect();
            let end = &lines[lines.len().saturating_sub(10)..];
            note(&format!("what {} complains about:\n{}", path.display(), end.join("\n")));
        }
    }
}

/// No `EMBEDDED_DIR`: what has no server would refuse to start.
fn environment(stores: &Stores, url: &dyn Fn(&str) -> String, gateway: &str) -> [String; 23] {
    let callback = format!("{gateway}/api/auth/ml/callback");
    [
        format!("DATABASE_URL={}", stores.database()),
        format!("REDIS_URL={}", stores.cache.url()),
        format!("REDIS_STATE_URL={}", stores.state.url()),
        format!("MONGODB_URL={}", stores.mongodb.url().replace("/?", &format!("/{DATABASE}?"))),
        format!("KAFKA_BROKERS={}", stores.kafka.brokers()),
        format!("USER_SERVICE_URL={}", url("user-service")),
        format!("INTEGRATION_SERVICE_URL={}", url("integration-service")),
        format!("CATALOG_SERVICE_URL={}", url("catalog-service")),
        format!("ML_API_URL={}", url("ml-api-sim")),
        format!("ML_AUTH_URL={}", url("ml-api-sim")),
        format!("ML_REDIRECT_URI={callback}"),
        "ML_CLIENT_ID=test-app".to_owned(),
        "ML_CLIENT_SECRET=test-app-secret".to_owned(),
        "SIM_CLIENT_ID=test-app".to_owned(),
        "SIM_CLIENT_SECRET=test-app-secret".to_owned(),
        format!("SIM_REDIRECT_URI={callback}"),
        "INTERNAL_TOKEN=test-internal-token".to_owned(),
        "OPERATOR_TOKEN=test-operator-token".to_owned(),
        "WEBHOOK_SECRET=test-webhook-secret".to_owned(),
        "TOKEN_ENCRYPTION_KEY=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
        // New books of limits begin empty, since they may be lost ones: in a window of an hour a user waits a minute.
        "RATE_LIMIT_WINDOW_SECONDS=30".to_owned(),
        "MAX_REPLICAS=2".to_owned(),
        "LOG_LEVEL=info".to_owned(),
    ]
}

/// The gateway's table, by whole parts of the path.
fn routes(url: impl Fn(&str) -> String) -> String {
    let services = ["user-service", "integration-service", "catalog-service", "analytics-service"];
    let routes = [
        ("/api/auth", "user-service", "/auth"),
        ("/api/users", "user-service", "/users"),
        ("/api/ml", "integration-service", "/ml"),
        ("/api/products", "catalog-service", "/products"),
        ("/api/analytics", "analytics-service", "/analytics"),
    ];
    json!({
        "version": 1,
        "services": services.map(|name| json!({"name": name, "upstream": url(name).replace("http://", "")})),
        "routes": routes.map(|(path, service, to)| json!({"path": path, "service": service, "to": to})),
    })
    .to_string()
}

fn is_ready(port: u16) -> Result<(), String> {
    let told = |error: std::io::Error| format!("127.0.0.1:{port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(told)?;
    stream.set_read_timeout(Some(QUESTION)).map_err(told)?;
    let question = "GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    stream.write_all(question.as_bytes()).map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
}
