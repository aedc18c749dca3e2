//! Redis for an asynchronous service: one multiplexed connection that is made when it is first needed and made anew
//! when it breaks, and a deadline on every question, because each caller has something else to do without an answer.

use std::fmt;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use secrecy::{ExposeSecret as _, SecretString};

/// Longest pause between two attempts to connect.
const RECONNECT_AT_LEAST_EVERY: Duration = Duration::from_millis(500);
/// Longest attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The server could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The address cannot be read. What it says is not repeated: it may hold a password.
    #[error("the address of Redis cannot be read; expected redis://HOST:PORT")]
    Address,
    /// No answer came in time.
    #[error("no answer from Redis within {} ms", .0.as_millis())]
    Late(Duration),
    /// The server refused, or the connection broke.
    #[error("Redis refused or went away")]
    Command(#[from] redis::RedisError),
}

/// A connection that many callers share; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    manager: ConnectionManager,
    deadline: Duration,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis(deadline {} ms)", self.deadline.as_millis())
    }
}

impl Redis {
    /// A connection to `redis://[USER:PASSWORD@]HOST:PORT[/DB]`, on which no question waits longer than `deadline`.
    /// Connects when it is first asked something. Call it within a runtime.
    ///
    /// # Errors
    /// [`RedisError::Address`].
    pub fn new(url: &SecretString, deadline: Duration) -> Result<Self, RedisError> {
        let client = Client::open(url.expose_secret()).map_err(|_| RedisError::Address)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(deadline))
            .set_max_delay(RECONNECT_AT_LEAST_EVERY)
            // The caller's deadline ends the question; whether it is asked again is the caller's to know.
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self { client, manager, deadline })
    }

    /// The client behind it, for what needs a connection of its own, such as a subscription.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks one command.
    ///
    /// # Errors
    /// [`RedisError`]; whether the server carried the command out is unknown then.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.manager.clone();
        self.in_time(command.query_async(&mut connection)).await
    }

    /// Asks several commands in one round trip.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        let mut connection = self.manager.clone();
        self.in_time(commands.query_async(&mut connection)).await
    }

    /// Runs a script, by its hash where the server knows it; one decision is one call.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        let mut connection = self.manager.clone();
        self.in_time(script.invoke_async(&mut connection)).await
    }

    /// Answers `Ok` when the server answers; for checks.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn is_reachable(&self) -> Result<(), String> {
        self.ask::<()>(&redis::cmd("PING")).await.map_err(|error| crate::error::chain(&error))
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, RedisError> {
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(RedisError::Late(self.deadline)),
        }
    }
}
