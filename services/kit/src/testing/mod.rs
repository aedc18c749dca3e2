//! Support for tests of services: migrations applied, a service running in process, a signer of tokens.

mod collector;
pub mod kafka;
mod logs;
mod redis_server;
pub mod servers;
mod wire;

pub use collector::{Collector, SeenSpan};
pub use logs::Logs;
pub use redis_server::RedisServer;
pub use wire::{Reply, Wire};

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret;
use uuid::Uuid;

use crate::auth::{KeyError, Principal, Signer, Verifier};
use crate::client::{Client, HttpUrl};
use crate::clock::Clock;
use crate::listener::Listener;
use crate::shutdown::{Shutdown, ShutdownTrigger};

/// Longest wait for something that happens at once unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// What went wrong while preparing a test.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Applies every `NNNN_name.up.sql` of a folder, in order, to a database file.
///
/// # Errors
/// The file that failed and why.
pub fn migrate(database: &Path, migrations: &Path) -> Result<(), Failure> {
    run_scripts(database, migrations, ".up.sql", false)
}

/// Applies every `NNNN_name.down.sql` of a folder, the newest first.
///
/// # Errors
/// The file that failed and why.
pub fn migrate_down(database: &Path, migrations: &Path) -> Result<(), Failure> {
    run_scripts(database, migrations, ".down.sql", true)
}

fn run_scripts(database: &Path, folder: &Path, ending: &str, newest_first: bool) -> Result<(), Failure> {
    let connection = crate::sqlite::open(database)?;
    let mut files = scripts(folder, ending)?;
    if newest_first {
        files.reverse();
    }
    for file in files {
        let script = std::fs::read_to_string(&file)?;
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE;\n{script}\nCOMMIT;"))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

/// Files of a folder with this ending, in order; at least one.
fn scripts(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut files = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    if files.is_empty() {
        return Err(format!("no *{ending} under {}", folder.display()).into());
    }
    Ok(files)
}

/// A service running in this process on free loopback ports.
#[derive(Debug)]
pub struct Running<E> {
    /// Address of the main listener.
    pub address: SocketAddr,
    /// Address of the metrics listener.
    pub metrics: SocketAddr,
    trigger: ShutdownTrigger,
    task: tokio::task::JoinHandle<Result<(), E>>,
}

impl<E: Send + 'static> Running<E> {
    /// Starts `run(config, listener, shutdown)`; `run` is a service's own function with its configuration bound in.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start<F, Fut>(run: F) -> Result<Self, Failure>
    where
        F: FnOnce(Listener, Shutdown) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
    {
        Self::start_on(Listener::loopback().await?, run)
    }

    /// The same on a listener bound before, for services that must know each other's addresses.
    ///
    /// # Errors
    /// When the listener has no metrics socket.
    pub fn start_on<F, Fut>(listener: Listener, run: F) -> Result<Self, Failure>
    where
        F: FnOnce(Listener, Shutdown) -> Fut,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
    {
        let address = listener.local_addr()?;
        let metrics = listener.metrics_addr()?.ok_or("no metrics listener")?;
        let (trigger, shutdown) = Shutdown::channel();
        let task = tokio::spawn(run(listener, shutdown));
        Ok(Self { address, metrics, trigger, task })
    }

    /// A client of the main listener.
    ///
    /// # Errors
    /// Never for a loopback address.
    pub fn client(&self) -> Result<Client, Failure> {
        client(self.address)
    }

    /// The address as configuration: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When the metrics listener does not answer.
    pub async fn scrape(&self) -> Result<String, Failure> {
        let answer = client(self.metrics)?.get("/metrics", &[]).await?;
        Ok(String::from_utf8(answer.body.to_vec())?)
    }

    /// Waits until `/readyz` says 200, at most `limit`.
    ///
    /// # Errors
    /// The last answer, when it never did.
    pub async fn ready(&self, limit: Duration) -> Result<(), Failure> {
        let client = self.client()?;
        let asked = async {
            loop {
                match client.get("/readyz", &[]).await {
                    Ok(answer) if answer.status.as_u16() == 200 => return,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        if tokio::time::timeout(limit, asked).await.is_err() {
            let last = client.get("/health", &[]).await?;
            return Err(format!("not ready: {}", String::from_utf8_lossy(&last.body)).into());
        }
        Ok(())
    }

    /// The trigger of the service's shutdown.
    #[must_use]
    pub fn trigger(&self) -> &ShutdownTrigger {
        &self.trigger
    }

    /// Asks the service to stop and waits for it.
    ///
    /// # Errors
    /// When its task panicked.
    pub async fn stop(self) -> Result<Result<(), E>, Failure> {
        self.trigger.drain();
        Ok(self.task.await?)
    }

    /// Waits for the service to end by itself.
    ///
    /// # Errors
    /// When its task panicked.
    pub async fn ended(self) -> Result<Result<(), E>, Failure> {
        Ok(self.task.await?)
    }
}

/// A client of a loopback address with a deadline that fits tests.
///
/// # Errors
/// Never for a loopback address.
pub fn client(address: SocketAddr) -> Result<Client, Failure> {
    let url: HttpUrl = format!("http://{address}").parse()?;
    Ok(Client::new(url, Duration::from_secs(10)))
}

/// Looks again and again until `look` finds something, at most ten seconds.
///
/// # Panics
/// With `what` when it never came.
pub async fn eventually<T, F>(what: &str, look: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, look).await
}

/// [`eventually`] with a patience of one's own, for what real servers take longer to do.
///
/// # Panics
/// When it does not come in time.
pub async fn eventually_within<T, F>(limit: Duration, what: &str, look: impl Fn() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looked = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(limit, looked).await {
        Ok(found) => found,
        Err(_) => panic!("{what} did not come within {limit:?}"),
    }
}

/// Signs tokens as user-service would, for tests of the others.
#[derive(Debug)]
pub struct TestIdentity {
    /// The signer.
    pub signer: Signer,
    clock: Clock,
}

impl TestIdentity {
    /// A new key pair.
    ///
    /// # Errors
    /// [`KeyError`] when the system gives no randomness.
    pub fn new(clock: Clock) -> Result<Self, KeyError> {
        Ok(Self { signer: Signer::from_pem(Signer::generate_pem()?.expose_secret())?, clock })
    }

    /// A verifier that knows the key.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::with_keys(self.signer.key_set(), self.clock.clone())
    }

    /// A token of 15 minutes for a user.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn token(&self, user_id: Uuid, tenant: &str) -> Result<String, Failure> {
        let who = Principal { user_id, tenant: tenant.to_owned() };
        Ok(self.signer.sign(&who, self.clock.now(), Duration::from_secs(900))?)
    }

    /// The value of `Authorization` for a new user of a tenant.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn bearer(&self, user_id: Uuid, tenant: &str) -> Result<String, Failure> {
        Ok(format!("Bearer {}", self.token(user_id, tenant)?))
    }

    /// The present moment on the identity's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The JSON that user-service serves at `/.well-known/jwks.json`.
    ///
    /// # Errors
    /// Never for a set of keys.
    pub fn jwks(&self) -> Result<serde_json::Value, Failure> {
        Ok(serde_json::to_value(self.signer.key_set())?)
    }
}
