//! The three hourly limits on work that leaves for MercadoLibre: global, per user, and the API's own.
//!
//! All three are taken together or not at all, from the state store that every replica shares. When that store does
//! not answer, each process goes on with its share of every limit: never without a limit (MercadoLibre blocks
//! applications for that), never without work (that would be an outage of our own making).

pub mod gcra;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use service_kit::Clock;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::store::{StateStore, Take, Taken};
use gcra::{Bucket, HOUR_US, Mode, Rate};

/// A state store slower than this is as good as away.
const STORE_DEADLINE: Duration = Duration::from_secs(1);
/// Users whose local share is remembered while the store is away.
const LOCAL_USERS: usize = 10_000;

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
}

impl Limits {
    fn rate(&self, scope: Scope) -> Rate {
        match scope {
            Scope::Global => Rate::new(self.global, 50, self.mode),
            Scope::User => Rate::new(self.user, 10, self.mode),
            Scope::MlApi => Rate::new(self.ml_api, 45, self.mode),
        }
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
    state: Arc<dyn StateStore>,
    limits: Limits,
    clock: Clock,
    metrics: Metrics,
    local: Mutex<HashMap<String, Bucket>>,
}

impl Limiter {
    /// Over the shared store.
    pub fn new(state: Arc<dyn StateStore>, limits: Limits, clock: Clock, metrics: Metrics) -> Self {
        Self { state, limits, clock, metrics, local: Mutex::default() }
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.limits.mode
    }

    /// Takes one call for `user` from all limits.
    ///
    /// # Errors
    /// [`Denied`] by the first limit without room; nothing is taken then.
    pub async fn take(&self, user: Uuid, lane: Lane) -> Result<(), Denied> {
        let now_us = self.now_us();
        let takes = Scope::ALL.map(|scope| {
            let rate = self.limits.rate(scope);
            Take { key: key(scope, user), rate, reserve: lane.reserve(rate) }
        });
        let asked = tokio::time::timeout(STORE_DEADLINE, self.state.take(takes.to_vec(), now_us)).await;
        let taken = match asked {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "limits fall back to the local share"
                );
                self.take_locally(&takes, lane, now_us)
            }
            Err(_) => {
                tracing::warn!("limits fall back to the local share: the state store does not answer");
                self.take_locally(&takes, lane, now_us)
            }
        };
        match taken {
            Taken::Granted(_) => Ok(()),
            Taken::Denied { position, wait_us } => {
                let scope = Scope::ALL[position.min(Scope::ALL.len() - 1)];
                self.metrics.limit_denied.inc(&[scope.name()]);
                let retry_after = Duration::from_micros(u64::try_from(wait_us).unwrap_or(0));
                Err(Denied { scope, retry_after })
            }
        }
    }

    fn take_locally(&self, takes: &[Take], lane: Lane, now_us: i64) -> Taken {
        self.metrics.limit_fallbacks.inc(&["redis"]);
        let mut local = self.local.lock();
        if local.len() > LOCAL_USERS {
            local.retain(|_, bucket| bucket.tat_us > now_us);
        }
        let mut granted = Vec::with_capacity(takes.len());
        for (position, take) in takes.iter().enumerate() {
            let share = take.rate.share_of(self.limits.replicas, self.limits.mode);
            let state = local.get(&take.key).copied().unwrap_or_default();
            match state.take(share, lane.reserve(share), now_us) {
                Ok(next) => granted.push(next),
                Err(wait_us) => return Taken::Denied { position, wait_us },
            }
        }
        for (take, next) in takes.iter().zip(&granted) {
            local.insert(take.key.clone(), *next);
        }
        Taken::Granted(granted)
    }

    /// How full each limit is, for users the fullest one; also sets `rate_limit_utilization`. `None` when the store
    /// does not answer.
    pub async fn usage(&self) -> Option<[Usage; 3]> {
        let now_us = self.now_us();
        let mut usage = [Usage { utilization: 0.0, remaining: 0 }; 3];
        for (slot, scope) in usage.iter_mut().zip(Scope::ALL) {
            let rate = self.limits.rate(scope);
            let prefix = if scope == Scope::User { "user:" } else { scope.name() };
            let buckets = self.state.buckets(prefix, now_us - 2 * HOUR_US).await.ok()?;
            let utilization =
                buckets.iter().map(|(_, bucket)| bucket.utilization(rate, now_us)).fold(0.0, f64::max);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
            let remaining = (f64::from(rate.limit) * (1.0 - utilization)) as u32;
            *slot = Usage { utilization, remaining };
            self.metrics.limit_utilization.set(&[scope.name()], utilization);
        }
        Some(usage)
    }

    fn now_us(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

fn key(scope: Scope, user: Uuid) -> String {
    match scope {
        Scope::User => format!("user:{user}"),
        _ => scope.name().to_owned(),
    }
}

#[cfg(test)]
mod tests;
