//! Cached items on a Redis that may evict any key at any time.
//!
//! A value is good only together with the epoch of its subject, and an epoch is a number that never comes twice. To
//! invalidate is to give the subject another epoch; values of an earlier one are dead where they lie and expire by
//! themselves. An evicted epoch makes its values misses, and a load that began under it is not kept: losing any key
//! can cost a load, never bring an old value back. The server's run is part of the epoch's name, because a server that
//! comes back with an old file would otherwise come back with an old epoch and its values.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use service_kit::redis::Redis;

use super::failed;
use crate::store::{CacheStore, Cached, Heard, Millis, StoreError};

/// Where invalidations are told to the other processes.
const CHANNEL: &str = "ml:cache:dropped";
/// Longer than any value lives, and any load takes.
const EPOCH_LIFE_MS: i64 = 3_600_000;
/// Pause before listening anew.
const LISTEN_AGAIN: Duration = Duration::from_millis(200);

const PREAMBLE: &str = "
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local name = KEYS[1] .. ':' .. string.sub(run, 1, 12)
";

static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PREAMBLE}
local epoch = redis.call('GET', name)
if not epoch then
  redis.call('SET', name, ARGV[1], 'PX', ARGV[2])
  return {{ ARGV[1] }}
end
local value = redis.call('HMGET', KEYS[2], 'epoch', 'value', 'soft', 'hard')
if value[1] ~= epoch then return {{ epoch }} end
return {{ epoch, value[2], value[3], value[4] }}"
    ))
});

static KEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PREAMBLE}
if redis.call('GET', name) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'value', ARGV[2], 'soft', ARGV[3], 'hard', ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', name, ARGV[6])
return 1"
    ))
});

static DROP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{PREAMBLE}
redis.call('SET', name, ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1"
    ))
});

static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local until_ms = tonumber(redis.call('GET', KEYS[1]) or '0')
if until_ms > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

/// See the module.
#[derive(Clone, Debug)]
pub struct RedisCache {
    redis: Redis,
}

impl RedisCache {
    /// Over this connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }
}

/// Both keys of a value share the subject's slot.
fn epoch_key(subject: &str) -> String {
    format!("ml:cache:{{{subject}}}:epoch")
}

fn value_key(key: &str, subject: &str) -> String {
    format!("ml:cache:{{{subject}}}:{key}")
}

#[async_trait]
impl CacheStore for RedisCache {
    async fn reachable(&self) -> Result<(), String> {
        self.redis.is_reachable().await
    }

    async fn cached(
        &self,
        key: &str,
        subject: &str,
        now: Millis,
    ) -> Result<(Option<Cached>, u64), StoreError> {
        let operation = "read the cache";
        let mut call = READ.key(epoch_key(subject));
        call.key(value_key(key, subject)).arg(rand::random::<u64>()).arg(EPOCH_LIFE_MS);
        let answer: Vec<String> = self.redis.run(&call).await.map_err(|error| failed(operation, error))?;
        let unreadable =
            || StoreError { operation, busy: false, source: "the script's answer has another form".into() };
        let epoch = answer.first().and_then(|epoch| epoch.parse().ok()).ok_or_else(unreadable)?;
        let [_, value, soft, hard] = <[String; 4]>::try_from(answer).unwrap_or_default();
        let (Ok(soft_until), Ok(hard_until)) = (soft.parse(), hard.parse()) else { return Ok((None, epoch)) };
        let cached = Cached { value, soft_until, hard_until };
        Ok(((hard_until > now).then_some(cached), epoch))
    }

    async fn keep(
        &self,
        key: &str,
        subject: &str,
        epoch: u64,
        cached: Cached,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let mut call = KEEP.key(epoch_key(subject));
        call.key(value_key(key, subject))
            .arg(epoch)
            .arg(cached.value)
            .arg(cached.soft_until)
            .arg(cached.hard_until)
            .arg((cached.hard_until - now).max(1))
            .arg(EPOCH_LIFE_MS);
        self.redis.run(&call).await.map_err(|error| failed("write the cache", error))
    }

    async fn claim_stale(&self, key: &str, now: Millis, lease_until: Millis) -> Result<bool, StoreError> {
        let mut call = CLAIM.key(format!("ml:cache:claim:{key}"));
        call.arg(now).arg(lease_until).arg((lease_until - now).max(1));
        self.redis.run(&call).await.map_err(|error| failed("claim a stale cache entry", error))
    }

    async fn invalidate(&self, key: &str, subject: &str, _now: Millis) -> Result<(), StoreError> {
        let mut call = DROP.key(epoch_key(subject));
        call.arg(rand::random::<u64>()).arg(EPOCH_LIFE_MS).arg(CHANNEL).arg(key);
        self.redis.run(&call).await.map_err(|error| failed("invalidate the cache", error))
    }

    async fn listen(&self, heard: &(dyn Fn(Heard) + Send + Sync)) {
        use futures::StreamExt as _;
        loop {
            if let Ok(mut subscription) = self.redis.client().get_async_pubsub().await
                && subscription.subscribe(CHANNEL).await.is_ok()
            {
                // What was told while nobody listened is not known.
                heard(Heard::Gap);
                let mut messages = subscription.on_message();
                while let Some(message) = messages.next().await {
                    if let Ok(key) = message.get_payload::<String>() {
                        heard(Heard::Dropped(key));
                    }
                }
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Everything expires by itself.
    async fn purge(&self, _now: Millis) -> Result<(), StoreError> {
        Ok(())
    }
}
