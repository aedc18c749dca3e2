//! The limits on Redis, as books that are whole or lost, never in part.
//!
//! One hash holds every bucket, so one Lua call on one key takes all limits or none, and eviction, expiry or a flush
//! takes everything at once: a bucket that is missing in books that are there was never used since they were opened.
//! The clock is the server's.
//!
//! Books that are not there, or were written by another run of the server (a restart without its file, or with one
//! that lacks the last second; a fail-over), are *lost*: up to the whole limit may just have been granted. The promise
//! is kept without knowing: before the loss at most `burst + rate x a` calls passed in any time `a`; after it every
//! bucket counts as **empty** at the reopening ([`Bucket::empty_at`]), so at most `rate x b` pass in `b`; together at
//! most `burst + rate x window`, the limit. A full bucket would give the burst twice. For [`GRACE`] the new books stay
//! closed and every process goes on with its local share, because some may not have noticed yet that the server is
//! back. The same is done when a process comes back from an outage in which nobody was served, also when the server
//! forgot nothing (it hung): the shares that ran meanwhile all add up to the steady rate.
//!
//! A process that alone cannot reach the server goes on with its share while the others use the whole: for as long
//! as that lasts, the sum may pass the limit by that share. What it granted is charged as soon as it is back.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, ScriptInvocation};
use service_kit::redis::Redis;

use super::failed;
use crate::limiter::gcra::{Bucket, HOUR_US};
use crate::store::{LimitStore, Owed, Rejoined, StoreError, Take, Taken};

/// The one key; the braces keep its slot when more keys join it.
pub(super) const BOOKS: &str = "ml:{limits}";
/// How long new books stay closed: every process has noticed by then, since each asks again within a tenth of a second.
pub const GRACE: Duration = Duration::from_millis(500);
/// Unused books are forgotten after a day; fields of idle users go by [`LimitStore::purge`].
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Fields looked at by one step of the purge.
const STEP: usize = 500;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limits.lua")));

/// See the module.
#[derive(Clone, Debug)]
pub struct RedisLimits {
    redis: Redis,
}

impl RedisLimits {
    /// Over this connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    fn call(&self, op: &str) -> ScriptInvocation<'static> {
        let mut call = SCRIPT.prepare_invoke();
        call.key(BOOKS).arg(op).arg(GRACE.as_micros() as u64).arg(LIFE.as_millis() as u64);
        call
    }

    async fn run(
        &self,
        operation: &'static str,
        call: &ScriptInvocation<'_>,
    ) -> Result<Vec<i64>, StoreError> {
        self.redis.run(call).await.map_err(|error| failed(operation, error))
    }
}

fn unreadable(operation: &'static str) -> StoreError {
    StoreError { operation, busy: false, source: "the script's answer has another form".into() }
}

fn buckets(numbers: &[i64]) -> Vec<Bucket> {
    let count = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let bucket = |four: &[i64]| Bucket {
        tat_us: four[0],
        window: four[1],
        current: count(four[2]),
        previous: count(four[3]),
    };
    numbers.chunks_exact(4).map(bucket).collect()
}

#[async_trait]
impl LimitStore for RedisLimits {
    async fn reachable(&self) -> Result<(), String> {
        self.redis.is_reachable().await
    }

    async fn take(&self, limits: Vec<Take>) -> Result<Taken, StoreError> {
        let operation = "take from the limits";
        let mut call = self.call("take");
        for take in &limits {
            let Take { key, rate, reserve } = take;
            call.arg(key).arg(rate.interval_us).arg(rate.window_us).arg(rate.burst).arg(*reserve);
        }
        match self.run(operation, &call).await?.as_slice() {
            [0, now_us, rest @ ..] if rest.len() == 4 * limits.len() => {
                Ok(Taken::Granted { now_us: *now_us, buckets: buckets(rest) })
            }
            [1, now_us, position, wait_us] => Ok(Taken::Denied {
                now_us: *now_us,
                position: usize::try_from(*position).unwrap_or(0),
                wait_us: *wait_us,
            }),
            [2, _, for_us] => Ok(Taken::Closed { for_us: *for_us }),
            _ => Err(unreadable(operation)),
        }
    }

    async fn rejoin(&self, away: Duration, owed: Vec<Owed>) -> Result<Rejoined, StoreError> {
        let operation = "report to the limits";
        let mut call = self.call("rejoin");
        call.arg(u64::try_from(away.as_micros()).unwrap_or(u64::MAX >> 12));
        for Owed { key, rate, calls } in &owed {
            call.arg(key).arg(rate.interval_us).arg(rate.window_us).arg(*calls);
        }
        match self.run(operation, &call).await?.as_slice() {
            [3, _] => Ok(Rejoined::Open),
            [2, _, for_us] => Ok(Rejoined::Closed { for_us: *for_us }),
            _ => Err(unreadable(operation)),
        }
    }

    async fn buckets(&self, keys: Vec<(String, i64)>) -> Result<(i64, Vec<Bucket>), StoreError> {
        let operation = "read the limits";
        let mut call = self.call("look");
        for (key, window_us) in &keys {
            call.arg(key).arg(*window_us);
        }
        match self.run(operation, &call).await?.as_slice() {
            [0, now_us, rest @ ..] if rest.len() == 4 * keys.len() => Ok((*now_us, buckets(rest))),
            _ => Err(unreadable(operation)),
        }
    }

    async fn purge(&self, now_ms: i64) -> Result<(), StoreError> {
        let idle = now_ms * 1000 - 2 * HOUR_US;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(BOOKS).arg(cursor).arg("COUNT").arg(STEP);
            let page: (u64, Vec<(String, String)>) =
                self.redis.ask(&scan).await.map_err(|error| failed("purge the limits", error))?;
            // A field that is used again between the two calls was idle for two hours, hence full, and is one call
            // short of full then.
            let old = page.1.iter().filter(|(field, value)| {
                let tat = value.split(':').next().and_then(|tat| tat.parse::<i64>().ok());
                field.starts_with("user:") && tat.is_some_and(|tat| tat < idle)
            });
            let fields: Vec<&str> = old.map(|(field, _)| field.as_str()).collect();
            if !fields.is_empty() {
                let mut remove = redis::cmd("HDEL");
                remove.arg(BOOKS).arg(&fields);
                self.redis.ask::<()>(&remove).await.map_err(|error| failed("purge the limits", error))?;
            }
            cursor = page.0;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
