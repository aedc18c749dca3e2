//! [`ThrottleStore`] on Redis: one call per decision, on hashed keys that expire when they are forgotten.

use std::sync::LazyLock;

use async_trait::async_trait;
use jiff::Timestamp;
use redis::Script;
use service_kit::redis::Redis;

use super::{StoreError, ThrottleStore};
use crate::throttle::{Tally, ThrottleKey};

/// Counts one failure under each key. KEYS the keys; ARGV the time, then how long each is remembered, in milliseconds.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local now, answer = tonumber(ARGV[1]), {}
for i, key in ipairs(KEYS) do
  local forget = tonumber(ARGV[i + 1])
  local known = redis.call('HMGET', key, 'failures', 'last')
  local failures = tonumber(known[1]) or 0
  if known[2] and now - tonumber(known[2]) >= forget then failures = 0 end
  failures = math.min(failures + 1, 4294967295)
  redis.call('HSET', key, 'failures', string.format('%.0f', failures), 'last', ARGV[1])
  redis.call('PEXPIRE', key, ARGV[i + 1])
  answer[#answer + 1] = failures
end
return answer",
    )
});

/// Failures on a Redis server that all replicas share.
#[derive(Clone, Debug)]
pub struct RedisThrottle {
    redis: Redis,
}

impl RedisThrottle {
    /// Over this connection.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

/// One slot for all, so that one call may count under several.
fn name(key: &ThrottleKey) -> String {
    let mut name = "user:{throttle}:".to_owned();
    for byte in key.as_bytes() {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

fn failed(operation: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Database { operation, source: Box::new(source) }
}

#[async_trait]
impl ThrottleStore for RedisThrottle {
    async fn tallies(&self, keys: &[ThrottleKey]) -> Result<Vec<Option<Tally>>, StoreError> {
        let operation = "read login failures";
        let mut commands = redis::pipe();
        for key in keys {
            commands.cmd("HMGET").arg(name(key)).arg("failures").arg("last");
        }
        let known: Vec<(Option<u32>, Option<i64>)> =
            self.redis.ask_all(&commands).await.map_err(|error| failed(operation, error))?;
        let tally = |(failures, last): (Option<u32>, Option<i64>)| {
            let (Some(failures), Some(last)) = (failures, last) else { return Ok(None) };
            let last_at = Timestamp::from_millisecond(last).map_err(|error| failed(operation, error))?;
            Ok(Some(Tally { failures, last_at }))
        };
        known.into_iter().map(tally).collect()
    }

    async fn count_failures(&self, keys: &[ThrottleKey], now: Timestamp) -> Result<Vec<Tally>, StoreError> {
        let mut call = COUNT.arg(now.as_millisecond());
        for key in keys {
            call.key(name(key)).arg(u64::try_from(key.policy.forget.as_millis()).unwrap_or(u64::MAX));
        }
        let counted: Vec<u32> =
            self.redis.run(&call).await.map_err(|error| failed("count a login failure", error))?;
        // As it is stored: whole milliseconds.
        let last_at = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        Ok(counted.into_iter().map(|failures| Tally { failures, last_at }).collect())
    }

    async fn forget(&self, key: &ThrottleKey) -> Result<(), StoreError> {
        let mut remove = redis::cmd("DEL");
        remove.arg(name(key));
        self.redis.ask(&remove).await.map_err(|error| failed("forget login failures", error))
    }
}
