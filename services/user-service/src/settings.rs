//! Configuration, read once from the environment.

use std::num::NonZero;

use secrecy::SecretString;
use service_kit::auth::SharedToken;
use service_kit::client::HttpUrl;
use service_kit::{Base, Clock, Configuration, DatabaseUrl, Place, Reader, kafka};

use crate::consent::ConsentPage;
use crate::password::Cost;
use crate::token::{KeyError, Keyring};

/// Waiting password hashes per worker: about half a second of work.
const QUEUE_PER_WORKER: u64 = 32;

/// How access tokens are signed.
#[derive(Debug, Clone)]
pub enum SigningKeys {
    /// `JWT_KEYS`: Ed25519 private keys in PEM, the signing one first.
    Ed25519(SecretString),
    /// `JWT_SECRET`: HS256.
    SharedSecret(SecretString),
}

impl SigningKeys {
    /// Makes the keyring.
    ///
    /// # Errors
    /// [`KeyError`]; reading the settings has shown already that there is none.
    pub fn keyring(&self, clock: Clock) -> Result<Keyring, KeyError> {
        match self {
            Self::Ed25519(pem) => Keyring::ed25519(pem, clock),
            Self::SharedSecret(secret) => Keyring::shared_secret(secret, clock),
        }
    }
}

/// Everything that configures this service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What every service has.
    pub base: Base,
    /// `DATABASE_URL`: people, sessions and consents.
    pub database: DatabaseUrl,
    /// `DATABASE_POOL_SIZE`: connections to it at most.
    pub pool_size: u32,
    /// `REDIS_STATE_URL` or `REDIS_URL`, else a file under `EMBEDDED_DIR`: failures that all replicas count together.
    pub state: Place<SecretString>,
    /// `KAFKA_BROKERS`, else the log under `EMBEDDED_DIR`.
    pub events: Place<kafka::Settings>,
    /// `JWT_KEYS` or `JWT_SECRET`.
    pub keys: SigningKeys,
    /// `INTEGRATION_SERVICE_URL`.
    pub integration: HttpUrl,
    /// `CATALOG_SERVICE_URL`: told directly of removed probe users; without it they are published like all others.
    pub catalog: Option<HttpUrl>,
    /// `INTERNAL_TOKEN`, for calls to other services.
    pub internal_token: SharedToken,
    /// `OPERATOR_TOKEN`: whoever holds it may register users of the operator's tenants. Nobody may without.
    pub operator_token: Option<SharedToken>,
    /// `ML_AUTH_URL`, `ML_CLIENT_ID`, `ML_REDIRECT_URI`.
    pub consent: ConsentPage,
    /// `PASSWORD_HASH_WORKERS`: parallel password hashes, by default one per core but one: a flood of logins
    /// leaves that core to everybody else.
    pub hash_workers: usize,
    /// `PASSWORD_HASH_QUEUE`: hashes that may wait, by default 32 per worker.
    pub hash_queue: usize,
    /// Cost of a password hash. Not a variable: nobody should lower it, and raising it is a decision of a release.
    pub hash_cost: Cost,
}

impl Configuration for Settings {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let database = env.database("DATABASE_URL");
        let pool_size = env.pool_size();
        let state = env.state_store();
        let events = env.event_log();
        let keys = signing_keys(env);
        let integration = env.url("INTEGRATION_SERVICE_URL");
        let catalog = env.optional_url("CATALOG_SERVICE_URL");
        let internal_token =
            env.required("INTERNAL_TOKEN", "a secret of visible ASCII characters", header_secret);
        let operator_token =
            env.optional("OPERATOR_TOKEN", "a secret of visible ASCII characters", header_secret);
        let auth_url = env.required("ML_AUTH_URL", "https://HOST or http://HOST, without a query", |text| {
            web_address(text).filter(|address| !address.contains('?'))
        });
        let client_id = env.text("ML_CLIENT_ID");
        let redirect_uri = env.required("ML_REDIRECT_URI", "an https:// or http:// address", |text| {
            web_address(text).map(|_| text.to_owned())
        });
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let hash_workers = env.number_or("PASSWORD_HASH_WORKERS", (cores - 1).clamp(1, 64), 1..=64);
        let hash_queue =
            env.number_or("PASSWORD_HASH_QUEUE", hash_workers.unwrap_or(1) * QUEUE_PER_WORKER, 0..=4096);
        Some(Self {
            base,
            database: database?,
            pool_size: pool_size?,
            state: state?,
            events: events?,
            keys: keys?,
            integration: integration?,
            catalog: catalog?,
            internal_token: internal_token?,
            operator_token: operator_token?,
            consent: ConsentPage { base: auth_url?, client_id: client_id?, redirect_uri: redirect_uri? },
            hash_workers: usize::try_from(hash_workers?).ok()?,
            hash_queue: usize::try_from(hash_queue?).ok()?,
            hash_cost: Cost::default(),
        })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}

/// `JWT_KEYS`, or else `JWT_SECRET`; read wholly now, so that a bad key is a configuration error.
fn signing_keys(env: &mut Reader<'_>) -> Option<SigningKeys> {
    let pem = env.optional_secret("JWT_KEYS");
    let secret = env.optional_secret("JWT_SECRET");
    let (variable, keys) = match (pem?, secret?) {
        (Some(pem), _) => ("JWT_KEYS", SigningKeys::Ed25519(pem)),
        (None, Some(secret)) => ("JWT_SECRET", SigningKeys::SharedSecret(secret)),
        (None, None) => {
            env.problem(
                "JWT_KEYS",
                "is not set; expected one or more Ed25519 private keys in PEM (or JWT_KEYS_FILE naming their file)",
            );
            return None;
        }
    };
    match keys.keyring(Clock::system()) {
        Ok(_) => Some(keys),
        Err(error) => {
            env.problem(variable, format!("expected keys that can sign: {error}"));
            None
        }
    }
}

/// It is sent and compared as a header, so only visible ASCII is allowed.
fn header_secret(text: &str) -> Option<SharedToken> {
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| SharedToken::new(text.to_owned().into()))
}

/// An address that a browser can be sent to, without a trailing slash.
fn web_address(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let plain =
        !rest.is_empty() && !rest.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && !text.contains('#')).then(|| text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use service_kit::auth::Signer;
    use service_kit::{ConfigError, Environment};

    use super::*;
    use crate::IDENTITY;

    fn environment() -> Environment {
        Environment::of([
            ("DATABASE_URL", "sqlite:/var/lib/app.db"),
            ("EMBEDDED_DIR", "/var/lib/embedded"),
            ("JWT_KEYS", Signer::generate_pem().unwrap().expose_secret()),
            ("INTEGRATION_SERVICE_URL", "http://127.0.0.1:3002"),
            ("INTERNAL_TOKEN", "internal"),
            ("ML_AUTH_URL", "https://auth.example.com/"),
            ("ML_CLIENT_ID", "1234"),
            ("ML_REDIRECT_URI", "https://api.example.com/api/auth/ml/callback"),
        ])
    }

    fn read(environment: &Environment) -> Result<Settings, ConfigError> {
        Settings::from_environment(IDENTITY, environment)
    }

    fn problems(environment: &Environment) -> Vec<String> {
        read(environment).map(|_| ()).unwrap_err().problems.into_iter().map(|p| p.variable).collect()
    }

    #[test]
    fn a_whole_environment_is_read() {
        let settings = read(&environment()).unwrap();
        assert_eq!(settings.consent.base, "https://auth.example.com");
        assert_eq!(settings.hash_cost, Cost { memory_kib: 19_456, passes: 2 });
        assert_eq!(settings.hash_queue, settings.hash_workers * 32);
        assert!(settings.operator_token.is_none());
        assert!(matches!(settings.keys, SigningKeys::Ed25519(_)));
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_secret_with_it() {
        let broken = Environment::of([
            ("DATABASE_URL", "mysql://user:hunter2@db/app"),
            ("REDIS_URL", "http://:hunter2@cache"),
            ("JWT_KEYS", "hunter2"),
            ("INTERNAL_TOKEN", "hunter2 with spaces"),
            ("ML_AUTH_URL", "auth.example.com"),
            ("PASSWORD_HASH_WORKERS", "0"),
        ]);
        assert_eq!(
            problems(&broken),
            [
                "DATABASE_URL",
                "REDIS_URL",
                "EMBEDDED_DIR",
                "JWT_KEYS",
                "INTEGRATION_SERVICE_URL",
                "INTERNAL_TOKEN",
                "ML_AUTH_URL",
                "ML_CLIENT_ID",
                "ML_REDIRECT_URI",
                "PASSWORD_HASH_WORKERS",
            ]
        );
        let text = read(&broken).unwrap_err().to_string();
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn keys_win_over_the_older_secret_and_one_of_them_must_be_there() {
        let both = environment().with("JWT_SECRET", &"x".repeat(32));
        assert!(matches!(read(&both).unwrap().keys, SigningKeys::Ed25519(_)));
        let only_secret = both.with("JWT_KEYS", "");
        assert!(matches!(read(&only_secret).unwrap().keys, SigningKeys::SharedSecret(_)));
        assert_eq!(problems(&only_secret.clone().with("JWT_SECRET", "short")), ["JWT_SECRET"]);
        assert_eq!(problems(&only_secret.with("JWT_SECRET", "")), ["JWT_KEYS"]);
    }

    #[test]
    fn addresses_for_browsers_are_checked() {
        for (text, want) in [
            ("https://auth.example.com", Some("https://auth.example.com")),
            ("http://127.0.0.1:3900/", Some("http://127.0.0.1:3900")),
            ("https://", None),
            ("https:///path", None),
            ("ftp://auth.example.com", None),
            ("https://auth.example.com/#part", None),
            ("https://auth example.com", None),
        ] {
            assert_eq!(web_address(text).as_deref(), want, "{text}");
        }
    }
}
