//! Redis for an asynchronous service: one multiplexed connection that is made when it is first needed and made anew
//! when it breaks, and a deadline on every question, because each caller has something else to do without an answer.
//!
//! What was asked of a connection that the server had closed meanwhile (`timeout 300`) is asked once more on a new one.
//! A question that failed twice rests the server for a moment: others are told so at once, and only one looks again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, Pipeline, ScriptInvocation};
use secrecy::{ExposeSecret as _, SecretString};

use crate::pools::{ConnectionPool, Measures};

/// Longest pause between two attempts to connect.
const RECONNECT_AT_LEAST_EVERY: Duration = Duration::from_millis(50);
/// A server that did not answer is left alone for so long.
const REST: Duration = Duration::from_millis(100);
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
    /// It failed to answer a moment ago and was not asked.
    #[error("Redis did not answer a moment ago")]
    Resting,
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
    shared: Arc<Shared>,
}

/// What the clones of a connection know together.
struct Shared {
    store: &'static str,
    measures: Measures,
    /// Questions without an answer yet.
    asked: AtomicI64,
    begun: Instant,
    /// Milliseconds after `begun` until which the server rests.
    rests_until: AtomicU64,
}

/// A question that counts as asked until it is dropped.
struct Asked<'a>(&'a Shared);

impl<'a> Asked<'a> {
    fn of(shared: &'a Shared) -> Self {
        if shared.asked.fetch_add(1, Ordering::AcqRel) == 0 {
            shared.measures.active(1.0);
        }
        Self(shared)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.0.asked.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.measures.active(-1.0);
        }
    }
}

impl ConnectionPool for Redis {
    fn store(&self) -> &'static str {
        self.shared.store
    }

    /// One, which all questions share.
    fn size(&self) -> usize {
        1
    }

    fn measures(&self) -> &Measures {
        &self.shared.measures
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis(deadline {} ms)", self.deadline.as_millis())
    }
}

impl Redis {
    /// A connection to `redis://[USER:PASSWORD@]HOST:PORT[/DB]`, on which no question waits longer than `deadline`.
    /// Connects when it is first asked something. `store` is its name in metrics. Call it within a runtime.
    ///
    /// # Errors
    /// [`RedisError::Address`].
    pub fn new(store: &'static str, url: &SecretString, deadline: Duration) -> Result<Self, RedisError> {
        let client = Client::open(url.expose_secret()).map_err(|_| RedisError::Address)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(deadline))
            .set_max_delay(RECONNECT_AT_LEAST_EVERY)
            // The deadline ends the question; the next one connects anew.
            .set_number_of_retries(1);
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        let shared = Shared {
            store,
            measures: Measures::default(),
            asked: AtomicI64::new(0),
            begun: Instant::now(),
            rests_until: AtomicU64::new(0),
        };
        Ok(Self { client, manager, deadline, shared: Arc::new(shared) })
    }

    /// The client behind it, for what needs a connection of its own, such as a subscription.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Asks one command; asked twice when the connection breaks or no answer comes, so it must bear that.
    ///
    /// # Errors
    /// [`RedisError`]; whether the server carried the command out is unknown then.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let (mut once, mut again) = (self.manager.clone(), self.manager.clone());
        self.twice(command.query_async(&mut once), command.query_async(&mut again)).await
    }

    /// Asks several commands in one round trip, as [`Redis::ask`] does.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, RedisError> {
        let (mut once, mut again) = (self.manager.clone(), self.manager.clone());
        self.twice(commands.query_async(&mut once), commands.query_async(&mut again)).await
    }

    /// Runs a script, by its hash where the server knows it, as [`Redis::ask`] does; one decision is one call.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, RedisError> {
        let (mut once, mut again) = (self.manager.clone(), self.manager.clone());
        self.twice(script.invoke_async(&mut once), script.invoke_async(&mut again)).await
    }

    /// Answers `Ok` when the server answers; for checks.
    ///
    /// # Errors
    /// A sentence that says why not.
    pub async fn is_reachable(&self) -> Result<(), String> {
        self.ask::<()>(&redis::cmd("PING")).await.map_err(|error| crate::error::chain(&error))
    }

    /// The first answer, or when the server was not reached, the second; a future that is not waited for asks nothing.
    async fn twice<T>(
        &self,
        once: impl Future<Output = Result<T, redis::RedisError>>,
        again: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, RedisError> {
        if !self.may_ask() {
            return Err(RedisError::Resting);
        }
        let _asked = Asked::of(&self.shared);
        let first = match self.in_time(once).await {
            Err(error) if error.is_away() => error,
            answered => return answered,
        };
        tracing::debug!(store = self.shared.store, error = crate::error::chain(&first), "asking once more");
        let second = self.in_time(again).await;
        if second.as_ref().is_err_and(RedisError::is_away) {
            self.shared.rests_until.store(self.after(REST), Ordering::Release);
        }
        second
    }

    /// While the server rests nobody may ask; after that one may, and the others when that one was answered in time.
    fn may_ask(&self) -> bool {
        let until = self.shared.rests_until.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        if self.after(Duration::ZERO) < until {
            return false;
        }
        let probe = self.after(self.deadline * 2);
        let exchange =
            self.shared.rests_until.compare_exchange(until, probe, Ordering::AcqRel, Ordering::Acquire);
        exchange.is_ok()
    }

    /// Milliseconds on the connection's own clock, never 0.
    fn after(&self, more: Duration) -> u64 {
        u64::try_from((self.shared.begun.elapsed() + more).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, RedisError> {
        let answer = match tokio::time::timeout(self.deadline, answer).await {
            Ok(answer) => answer.map_err(RedisError::from),
            Err(_) => Err(RedisError::Late(self.deadline)),
        };
        if !answer.as_ref().is_err_and(RedisError::is_away) {
            self.shared.rests_until.store(0, Ordering::Release);
        }
        answer
    }
}

impl RedisError {
    /// True when the server was not reached or did not answer: another try may help.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Late(_) | Self::Resting => true,
            // Also a server that still loads its file, or one that was made a replica.
            Self::Command(error) => {
                error.is_io_error() || error.is_unrecoverable_error() || error.is_timeout()
            }
            Self::Address => false,
        }
    }
}
