//! The three hourly limits on work that leaves for MercadoLibre: global, per user, and the API's own.
//!
//! All three are taken together or not at all, from the store that every replica shares. When that store does not
//! answer, or does not count yet, each process goes on with its share of every limit: never without a limit
//! (MercadoLibre blocks applications for that), never without work (that would be an outage of our own making).
//! Why the sum of shares and shared counting stays within the limits is told in the store's `state_redis::limits`.

pub mod gcra;
mod local;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use service_kit::Clock;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::store::{LimitStore, Rejoined, StoreError, Take, Taken};
use gcra::{Bucket, Mode, Rate};
use local::{Local, Sight};

/// A state store slower than this is as good as away.
const STORE_DEADLINE: Duration = Duration::from_secs(1);
/// Users whose use is remembered for the gauge.
const USERS: usize = 10_000;

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All our calls.
    Global,
    /// The calls for one user.
    User,
    /// The calls to MercadoLibre.
    MlApi,
}

impl Scope {
    /// In the order in which they are taken.
    pub const ALL: [Self; 3] = [Self::Global, Self::User, Self::MlApi];

    /// The label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::User => "user",
            Self::MlApi => "ml_api",
        }
    }
}

/// How much a call matters: the less, the more of the burst it leaves for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Token refresh, webhooks: never starved by the rest.
    Critical,
    /// What a person waits for.
    Interactive,
    /// Synchronisation.
    Bulk,
}

impl Lane {
    fn reserve(self, rate: Rate) -> u32 {
        match self {
            Self::Critical => 0,
            Self::Interactive => rate.burst / 10,
            Self::Bulk => rate.burst / 5,
        }
    }
}

/// The configured limits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `GLOBAL_RATE_LIMIT_PER_HOUR`.
    pub global: u32,
    /// `USER_RATE_LIMIT_PER_HOUR`.
    pub user: u32,
    /// `ML_API_RATE_LIMIT_PER_HOUR`.
    pub ml_api: u32,
    /// `RATE_LIMIT_MODE`.
    pub mode: Mode,
    /// `MAX_REPLICAS`: the divisor of the local share.
    pub replicas: u32,
    /// `RATE_LIMIT_WINDOW_SECONDS`: an hour, unless the application's contract or a test says otherwise.
    pub window: Duration,
}

impl Limits {
    fn rate(&self, scope: Scope) -> Rate {
        let window_us = i64::try_from(self.window.as_micros()).unwrap_or(i64::MAX);
        let (limit, share) = match scope {
            Scope::Global => (self.global, 50),
            Scope::User => (self.user, 10),
            Scope::MlApi => (self.ml_api, 45),
        };
        Rate::new(limit, share, self.mode, window_us)
    }
}

/// A limit had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {} limit has no room for another {} ms", scope.name(), retry_after.as_millis())]
pub struct Denied {
    /// Which.
    pub scope: Scope,
    /// When it will have.
    pub retry_after: Duration,
}

/// How full a limit is.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Usage {
    /// 0 to 1.
    pub utilization: f64,
    /// Calls left of the hour.
    pub remaining: u32,
}

/// See the module.
pub struct Limiter {
    store: Arc<dyn LimitStore>,
    limits: Limits,
    clock: Clock,
    metrics: Metrics,
    local: Mutex<Local>,
    /// What this process last saw of the users it called for.
    users: Mutex<HashMap<Uuid, Bucket>>,
}

impl Limiter {
    /// Over the shared store; the clock is the local share's.
    pub fn new(store: Arc<dyn LimitStore>, limits: Limits, clock: Clock, metrics: Metrics) -> Self {
        Self { store, limits, clock, metrics, local: Mutex::default(), users: Mutex::default() }
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.limits.mode
    }

    /// Opens the shared limits where nobody has used them yet, so that the first call need not.
    pub async fn open(&self) {
        let opened =
            tokio::time::timeout(STORE_DEADLINE, self.store.rejoin(Duration::ZERO, Vec::new())).await;
        tracing::debug!(?opened, "the shared limits were looked at");
    }

    /// Takes one call for `user` from all limits.
    ///
    /// # Errors
    /// [`Denied`] by the first limit without room; nothing is taken then.
    pub async fn take(&self, user: Uuid, lane: Lane) -> Result<(), Denied> {
        let takes = Scope::ALL.map(|scope| {
            let rate = self.limits.rate(scope);
            Take { key: key(scope, user), rate, reserve: lane.reserve(rate) }
        });
        let denied = match self.take_shared(&takes).await {
            Some(Taken::Granted { buckets, .. }) => {
                self.saw(user, buckets[1]);
                return Ok(());
            }
            Some(Taken::Denied { position, wait_us, .. }) => (position, wait_us),
            Some(Taken::Closed { .. }) | None => {
                self.metrics.limit_fallbacks.inc(&["redis"]);
                match self.local.lock().take(&takes, lane, &self.limits, self.now_us()) {
                    Ok(()) => return Ok(()),
                    Err(denied) => denied,
                }
            }
        };
        let (position, wait_us) = denied;
        let scope = Scope::ALL[position.min(Scope::ALL.len() - 1)];
        self.metrics.limit_denied.inc(&[scope.name()]);
        let retry_after = Duration::from_micros(u64::try_from(wait_us).unwrap_or(0));
        Err(Denied { scope, retry_after })
    }

    /// The shared limits' answer; none while this process is on its own.
    async fn take_shared(&self, takes: &[Take; 3]) -> Option<Taken> {
        let sight = self.local.lock().sight();
        match sight {
            Sight::Shared => {}
            Sight::Alone => return None,
            Sight::Report(away, owed) => {
                // Also when this future is dropped.
                let asking = Asking(&self.local);
                let rejoined = self.in_time(self.store.rejoin(away, owed.clone())).await.ok()?;
                let mut local = self.local.lock();
                local.charged(&owed);
                let back = match rejoined {
                    Rejoined::Open => local.back(),
                    Rejoined::Closed { for_us } => {
                        local.leave(self.now_us(), Some(micros(for_us)));
                        false
                    }
                };
                drop(local);
                drop(asking);
                if !back {
                    return None;
                }
                self.metrics.limits_alone.set(&["redis"], 0.0);
                tracing::info!("the limits are shared again");
            }
        }
        let (closed_for, reason) = match self.in_time(self.store.take(takes.to_vec())).await {
            Ok(Taken::Closed { for_us }) => (Some(micros(for_us)), "the store begins anew".to_owned()),
            Ok(taken) => return Some(taken),
            Err(error) => (None, service_kit::error::chain(&error)),
        };
        if self.local.lock().leave(self.now_us(), closed_for) {
            self.metrics.limits_alone.set(&["redis"], 1.0);
            tracing::warn!(reason, "the limits fall back to this process's share");
        }
        None
    }

    async fn in_time<T>(&self, asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let late =
            || StoreError { operation: "ask the limits", busy: true, source: "no answer in time".into() };
        tokio::time::timeout(STORE_DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
    }

    fn saw(&self, user: Uuid, bucket: Bucket) {
        let mut users = self.users.lock();
        if users.len() >= USERS {
            let now_us = self.now_us();
            users.retain(|_, bucket| bucket.tat_us > now_us);
        }
        users.insert(user, bucket);
    }

    /// How full each limit is, for users the fullest one that this process called for; also sets
    /// `rate_limit_utilization`. `None` when the store does not answer.
    pub async fn usage(&self) -> Option<[Usage; 3]> {
        let rates = Scope::ALL.map(|scope| self.limits.rate(scope));
        let shared = [Scope::Global, Scope::MlApi];
        let keys = shared.map(|scope| (key(scope, Uuid::nil()), self.limits.rate(scope).window_us));
        let (now_us, buckets) = self.in_time(self.store.buckets(keys.to_vec())).await.ok()?;
        let [global, ml_api] = <[Bucket; 2]>::try_from(buckets).ok()?;
        let utilization = |bucket: Bucket, rate| bucket.utilization(rate, now_us);
        let fullest =
            self.users.lock().values().map(|bucket| utilization(*bucket, rates[1])).fold(0.0, f64::max);
        let used = [utilization(global, rates[0]), fullest, utilization(ml_api, rates[2])];
        let mut usage = [Usage { utilization: 0.0, remaining: 0 }; 3];
        for (position, scope) in Scope::ALL.into_iter().enumerate() {
            let utilization = used[position];
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
            let remaining = (f64::from(rates[position].limit) * (1.0 - utilization)) as u32;
            usage[position] = Usage { utilization, remaining };
            self.metrics.limit_utilization.set(&[scope.name()], utilization);
        }
        Some(usage)
    }

    fn now_us(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

/// Held by the one who asks whether the shared limits are back.
struct Asking<'a>(&'a Mutex<Local>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().asked();
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

fn key(scope: Scope, user: Uuid) -> String {
    match scope {
        Scope::User => format!("user:{user}"),
        _ => scope.name().to_owned(),
    }
}

#[cfg(test)]
mod tests;
