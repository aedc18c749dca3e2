//! The environment: every problem at once, no value shown.

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use service_kit::{Base, Configuration, DatabaseUrl, Environment, Identity, Place, Reader};

const IDENTITY: Identity = Identity::new("test-service", "1.2.3", 3999);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Normal,
    Conservative,
}

#[derive(Debug)]
struct Config {
    base: Base,
    database: DatabaseUrl,
    state: Place<SecretString>,
    events: Place<service_kit::kafka::Settings>,
    secret: SecretString,
    mode: Mode,
    limit: u64,
    enabled: bool,
    wait: Duration,
    url: String,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let database = env.database("DATABASE_URL");
        let state = env.state_store();
        let events = env.event_log();
        let secret = env.secret("TOKEN");
        let mode = env.one_of(
            "MODE",
            Mode::Normal,
            &[("normal", Mode::Normal), ("conservative", Mode::Conservative)],
        );
        let limit = env.number_or("LIMIT", 10, 1..=100);
        let enabled = env.boolean_or("ENABLED", true);
        let wait = env.millis_or("WAIT", 250, 0..=10_000);
        let url = env.url("PEER_URL");
        Some(Self {
            base,
            database: database?,
            state: state?,
            events: events?,
            secret: secret?,
            mode: mode?,
            limit: limit?,
            enabled: enabled?,
            wait: wait?,
            url: url?.to_string(),
        })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}

fn good() -> Environment {
    Environment::of([
        ("DATABASE_URL", "sqlite:/data/db.sqlite"),
        ("EMBEDDED_DIR", "/data"),
        ("TOKEN", "hunter2"),
        ("PEER_URL", "http://127.0.0.1:3001"),
    ])
}

fn problems(environment: &Environment) -> Vec<String> {
    match Config::from_environment(IDENTITY, environment) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn defaults_and_values_are_read() {
    let config = Config::from_environment(IDENTITY, &good()).unwrap();
    assert_eq!((config.base.port, config.base.metrics_port), (3999, None));
    assert_eq!((config.base.drain, config.base.log_level.as_str()), (Duration::from_secs(5), "info"));
    assert!(matches!(config.database, DatabaseUrl::Sqlite(path) if path == Path::new("/data/db.sqlite")));
    assert!(matches!(config.state, Place::Embedded(folder) if folder == Path::new("/data")));
    assert!(matches!(config.events, Place::Embedded(folder) if folder == Path::new("/data")));
    assert_eq!(config.secret.expose_secret(), "hunter2");
    assert_eq!((config.mode, config.limit, config.enabled), (Mode::Normal, 10, true));
    assert_eq!((config.wait, config.url.as_str()), (Duration::from_millis(250), "http://127.0.0.1:3001"));

    let changed = good()
        .with("PORT", "4000")
        .with("METRICS_PORT", "10000")
        .with("LOG_LEVEL", "DEBUG")
        .with("MODE", "conservative")
        .with("ENABLED", "false")
        .with("NODE_ENV", "production")
        .with("LIMIT", "");
    let config = Config::from_environment(IDENTITY, &changed).unwrap();
    assert_eq!((config.base.port, config.base.metrics_port), (4000, Some(10000)));
    assert_eq!(config.base.log_level, "debug");
    assert_eq!((config.mode, config.enabled, config.limit), (Mode::Conservative, false, 10));
}

#[test]
fn stores_are_servers_where_one_is_named() {
    let servers = Environment::of([
        ("DATABASE_URL", "postgresql://user:hunter2@host/db"),
        ("REDIS_URL", "redis://:hunter2@cache"),
        ("REDIS_STATE_URL", "redis://:hunter2@state"),
        ("KAFKA_BROKERS", "one:9092,two:9092"),
        ("TOKEN", "t"),
        ("PEER_URL", "http://h:1"),
    ]);
    let config = Config::from_environment(IDENTITY, &servers).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(matches!(config.database, DatabaseUrl::Postgres(_)));
    assert!(matches!(config.state, Place::Server(url) if url.expose_secret().ends_with("state")));
    assert!(
        matches!(config.events, Place::Server(kafka) if kafka == service_kit::kafka::Settings::new("one:9092,two:9092"))
    );
    let shared = servers.with("REDIS_STATE_URL", "");
    let config = Config::from_environment(IDENTITY, &shared).unwrap();
    assert!(matches!(config.state, Place::Server(url) if url.expose_secret().ends_with("cache")));
}

#[test]
fn every_problem_is_told_at_once_and_no_value() {
    let environment = Environment::of([
        ("PORT", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("REDIS_URL", "http://:hunter2@host"),
        ("MODE", "hunter2"),
        ("LIMIT", "101"),
        ("PEER_URL", "https://host"),
        ("SERVICE_REVISION", "two words"),
    ]);
    let problems = problems(&environment);
    assert_eq!(
        problems,
        [
            "PORT: expected a port, 1 to 65535",
            "LOG_LEVEL: expected error, warn, info, debug or trace",
            "SERVICE_REVISION: expected 1 to 128 visible ASCII characters",
            "DATABASE_URL: expected postgresql://USER@HOST:PORT/NAME or sqlite:PATH",
            "REDIS_URL: expected redis://HOST:PORT",
            "EMBEDDED_DIR: is not set; expected a path, for the stores that no server is named for (or EMBEDDED_DIR_FILE naming a file)",
            "TOKEN: is not set; expected a secret (or TOKEN_FILE naming a file)",
            "MODE: expected normal or conservative",
            "LIMIT: expected a whole number from 1 to 100",
            "PEER_URL: expected http://HOST:PORT[/PATH]",
        ]
    );
    assert!(!problems.join("\n").contains("hunter2"));
}

#[test]
fn every_variable_may_be_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "from a file\r\n").unwrap();
    let mut pairs = vec![("DATABASE_URL", "sqlite:x"), ("EMBEDDED_DIR", "d"), ("PEER_URL", "http://h:1")];
    pairs.push(("TOKEN_FILE", file.to_str().unwrap()));
    let environment = Environment::of(pairs);
    let config = Config::from_environment(IDENTITY, &environment).unwrap();
    assert_eq!(config.secret.expose_secret(), "from a file");

    let both = environment.clone().with("TOKEN", "direct");
    assert_eq!(problems(&both), ["TOKEN: both it and TOKEN_FILE are set; keep one"]);
    let away = environment.with("TOKEN_FILE", "/nonexistent/token");
    assert!(problems(&away)[0].starts_with("TOKEN_FILE: cannot read the file /nonexistent/token: "));
}
