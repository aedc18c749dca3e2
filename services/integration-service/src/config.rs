//! The environment of integration-service.

use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use service_kit::client::HttpUrl;
use service_kit::{Base, Configuration, DatabaseUrl, Place, Reader, kafka};

use crate::breaker::Policy;
use crate::limiter::Limits;
use crate::limiter::gcra::Mode;
use crate::ml::Credentials;
use crate::seal::Sealer;

/// What the environment says.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `DATABASE_URL`.
    pub database: DatabaseUrl,
    /// `DATABASE_POOL_SIZE`: connections to it at most.
    pub pool_size: u32,
    /// `REDIS_STATE_URL` or `REDIS_URL`, else a file under `EMBEDDED_DIR`: limits.
    pub state: Place<SecretString>,
    /// `REDIS_URL`, else the same file: caches.
    pub cache: Place<SecretString>,
    /// `KAFKA_BROKERS`, else the log under `EMBEDDED_DIR`.
    pub events: Place<kafka::Settings>,
    /// `ML_API_URL`.
    pub ml_api: Url,
    /// `ML_CLIENT_ID`, `ML_CLIENT_SECRET`.
    pub credentials: Credentials,
    /// `ML_REDIRECT_URI`: when set, no other address is exchanged.
    pub redirect_uri: Option<String>,
    /// `ML_API_TIMEOUT`: milliseconds for one whole call.
    pub ml_timeout: Duration,
    /// `GLOBAL_`, `USER_`, `ML_API_RATE_LIMIT_PER_HOUR`, `RATE_LIMIT_MODE`, `MAX_REPLICAS`,
    /// `RATE_LIMIT_WINDOW_SECONDS`.
    pub limits: Limits,
    /// `CIRCUIT_BREAKER_ENABLED`, `_FAILURE_THRESHOLD`, `_RECOVERY_TIMEOUT` (ms).
    pub breaker: Policy,
    /// `TOKEN_ENCRYPTION_KEY`.
    pub sealer: Sealer,
    /// `WEBHOOK_SECRET`: the unguessable part of the notifications' path.
    pub webhook_secret: SecretString,
    /// `INTERNAL_TOKEN`.
    pub internal: SecretString,
    /// `USER_SERVICE_URL`.
    pub users: HttpUrl,
    /// `CATALOG_SERVICE_URL`.
    pub catalog: HttpUrl,
    /// `JWT_SECRET`: accepted in place of user-service's keys.
    pub jwt_secret: Option<SecretString>,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let database = env.database("DATABASE_URL");
        let pool_size = env.pool_size();
        let state = env.state_store();
        let cache = env.cache_store();
        let events = env.event_log();
        let ml_api = env.required("ML_API_URL", "http(s)://HOST[:PORT][/PATH]", api_url);
        // Used by user-service; accepted here so that both may share one environment.
        let ml_auth = env.optional("ML_AUTH_URL", "an address", |text| Some(text.to_owned()));
        let client_id = env.text("ML_CLIENT_ID");
        let client_secret = env.secret("ML_CLIENT_SECRET");
        let redirect_uri = env.optional("ML_REDIRECT_URI", "an address", |text| Some(text.to_owned()));
        let ml_timeout = env.millis_or("ML_API_TIMEOUT", 5_000, 50..=60_000);
        let limits = limits(env);
        let breaker = breaker(env);
        let sealer = env.secret("TOKEN_ENCRYPTION_KEY").and_then(|text| {
            Sealer::from_text(text.expose_secret())
                .map_err(|error| env.problem("TOKEN_ENCRYPTION_KEY", error.to_string()))
                .ok()
        });
        let webhook_secret = env.required("WEBHOOK_SECRET", "16 or more letters, digits, - or _", |text| {
            let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            (plain && text.len() >= 16).then(|| SecretString::from(text.to_owned()))
        });
        let internal = env.secret("INTERNAL_TOKEN");
        let users = env.url("USER_SERVICE_URL");
        let catalog = env.url("CATALOG_SERVICE_URL");
        let jwt_secret = env.optional_secret("JWT_SECRET");
        ml_auth?;
        Some(Self {
            base,
            database: database?,
            pool_size: pool_size?,
            state: state?,
            cache: cache?,
            events: events?,
            ml_api: ml_api?,
            credentials: Credentials { client_id: client_id?, client_secret: client_secret? },
            redirect_uri: redirect_uri?,
            ml_timeout: ml_timeout?,
            limits: limits?,
            breaker: breaker?,
            sealer: sealer?,
            webhook_secret: webhook_secret?,
            internal: internal?,
            users: users?,
            catalog: catalog?,
            jwt_secret: jwt_secret?,
        })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}

fn limits(env: &mut Reader<'_>) -> Option<Limits> {
    let mut limit = |name, default| env.number_or(name, default, 2..=10_000_000);
    let global = limit("GLOBAL_RATE_LIMIT_PER_HOUR", 50_000);
    let user = limit("USER_RATE_LIMIT_PER_HOUR", 5_000);
    let ml_api = limit("ML_API_RATE_LIMIT_PER_HOUR", 45_000);
    let mode = env.one_of(
        "RATE_LIMIT_MODE",
        Mode::Normal,
        &[("normal", Mode::Normal), ("conservative", Mode::Conservative)],
    );
    let replicas = env.number_or("MAX_REPLICAS", 10, 1..=1_000);
    // For tests, and for applications with another contract than MercadoLibre's hour: the limits count per window.
    let window = env.seconds_or("RATE_LIMIT_WINDOW_SECONDS", 3_600, 1..=86_400);
    let small = |number: u64| u32::try_from(number).ok();
    Some(Limits {
        global: small(global?)?,
        user: small(user?)?,
        ml_api: small(ml_api?)?,
        mode: mode?,
        replicas: small(replicas?)?,
        window: window?,
    })
}

fn breaker(env: &mut Reader<'_>) -> Option<Policy> {
    let enabled = env.boolean_or("CIRCUIT_BREAKER_ENABLED", true);
    let threshold = env.number_or("CIRCUIT_BREAKER_FAILURE_THRESHOLD", 10, 1..=10_000);
    let recovery = env.millis_or("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", 60_000, 1..=600_000);
    Some(Policy {
        enabled: enabled?,
        failure_threshold: u32::try_from(threshold?).ok()?,
        recovery: recovery?,
        jitter: rand::random::<f64>,
        ..Policy::default()
    })
}

/// Plain HTTP is for the simulator and for proxies inside the cluster; a build without TLS has nothing else.
fn api_url(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let scheme = url.scheme() == "http" || (cfg!(feature = "tls") && url.scheme() == "https");
    let bare =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.has_host();
    (scheme && bare).then_some(url)
}

#[cfg(test)]
mod tests {
    use service_kit::Environment;

    use super::*;
    use crate::IDENTITY;

    fn environment() -> Environment {
        Environment::of([
            ("DATABASE_URL", "sqlite:/nowhere/ml.db"),
            ("EMBEDDED_DIR", "/nowhere"),
            ("ML_API_URL", "http://127.0.0.1:3900"),
            ("ML_CLIENT_ID", "app"),
            ("ML_CLIENT_SECRET", "secret"),
            ("TOKEN_ENCRYPTION_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("WEBHOOK_SECRET", "0123456789abcdef"),
            ("INTERNAL_TOKEN", "internal"),
            ("USER_SERVICE_URL", "http://127.0.0.1:3001"),
            ("CATALOG_SERVICE_URL", "http://127.0.0.1:3003"),
        ])
    }

    fn read(environment: &Environment) -> Result<Config, String> {
        Config::from_environment(IDENTITY, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_plans_defaults_stand() {
        let config = read(&environment()).unwrap();
        assert_eq!((config.limits.global, config.limits.user, config.limits.ml_api), (50_000, 5_000, 45_000));
        assert_eq!(
            (config.breaker.failure_threshold, config.breaker.recovery),
            (10, Duration::from_secs(60))
        );
        assert_eq!((config.breaker.enabled, config.limits.mode), (true, Mode::Normal));
    }

    #[test]
    fn every_problem_is_named_and_no_value_shown() {
        let wrong = environment()
            .with("ML_API_URL", "ftp://hunter2")
            .with("RATE_LIMIT_MODE", "careless")
            .with("CIRCUIT_BREAKER_ENABLED", "yes")
            .with("USER_RATE_LIMIT_PER_HOUR", "1")
            .with("TOKEN_ENCRYPTION_KEY", "hunter2")
            .with("WEBHOOK_SECRET", "hunter2")
            .with("REDIS_URL", "http://hunter2");
        let error = read(&wrong).unwrap_err();
        for variable in [
            "ML_API_URL",
            "RATE_LIMIT_MODE",
            "CIRCUIT_BREAKER_ENABLED",
            "USER_RATE_LIMIT_PER_HOUR",
            "TOKEN_ENCRYPTION_KEY",
            "WEBHOOK_SECRET",
            "REDIS_URL",
        ] {
            assert!(error.contains(variable), "{variable}: {error}");
        }
        assert!(!error.contains("hunter2"), "{error}");
    }
}
