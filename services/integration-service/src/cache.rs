//! Items as they were read: a short-lived copy in the process, a longer one in the state store that replicas share.
//!
//! An item shows its owner more than others, so the owner is part of every key. A read that began before an
//! invalidation is not kept: the store compares epochs, the process compares generations. Other processes hear of an
//! invalidation and drop their copy at once; one that does not hear it keeps its copy for the few seconds of its life.
//!
//! A cold item is loaded once per process, however many ask for it. A store that is away costs no request: items are
//! loaded then, and what was invalidated meanwhile is neither read from the store nor put there until the store knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use parking_lot::Mutex;
use serde_json::Value;
use service_kit::Clock;

use crate::error::Error;
use crate::metrics::Metrics;
use crate::ml::{ItemId, MlError};
use crate::store::{CacheStore, Cached, Heard, Millis};

/// The process's copy: bounds how long replicas disagree.
const L1: Duration = Duration::from_secs(9);
/// A stale value is served from the process for this long before the store is asked again.
const L1_STALE: Duration = Duration::from_secs(1);
const L1_CAPACITY: u64 = 20_000;
/// Fresh for so long, usable in need for so long.
const SOFT_MS: Millis = 60_000;
const HARD_MS: Millis = 600_000;
/// That an item does not exist is believed for so long.
const ABSENT_MS: Millis = 7_500;
/// Who refreshes a stale value has so long before another may.
const CLAIM_MS: Millis = 10_000;

/// Messages that wait to be worked in; beyond them everything of the process's own is dropped.
const HEARD: usize = 1_000;
/// How often the store is told what it missed.
const TELL: Duration = Duration::from_millis(250);

/// How an answer was come by; the `x-cache` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// From a cache, within its time.
    Hit,
    /// From MercadoLibre.
    Miss,
    /// From a cache, past its time, because MercadoLibre cannot be asked or is being asked.
    Stale,
}

impl Freshness {
    /// The word of the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
        }
    }
}

/// A cached answer; `None` = there is no such item.
#[derive(Clone, Debug)]
pub struct Found {
    /// The item.
    pub item: Option<Arc<Value>>,
    /// How it was come by.
    pub freshness: Freshness,
}

#[derive(Clone, Debug)]
struct Entry {
    found: Found,
    life: Duration,
}

struct ByEntry;

impl Expiry<String, Entry> for ByEntry {
    fn expire_after_create(&self, _key: &String, entry: &Entry, _at: Instant) -> Option<Duration> {
        Some(entry.life)
    }
}

/// See the module.
pub struct ItemCache {
    l1: Cache<String, Entry>,
    /// Moves on with every invalidation in this process.
    generation: AtomicU64,
    store: Arc<dyn CacheStore>,
    /// Invalidations that the store has not taken yet: keys by subject.
    owed: Mutex<HashMap<String, String>>,
    clock: Clock,
    metrics: Metrics,
    dice: fn() -> f64,
    tallies: Mutex<[Tally; 2]>,
}

/// Recent lookups of one tier.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    hits: u32,
    all: u32,
}

const TIERS: [&str; 2] = ["l1", "l2"];
/// Beyond this many lookups the tally is halved, so that the ratio speaks of recent ones.
const TALLY: u32 = 10_000;

impl ItemCache {
    /// Over the shared state store; `dice` spreads expiries.
    pub fn new(store: Arc<dyn CacheStore>, clock: Clock, metrics: Metrics, dice: fn() -> f64) -> Self {
        let l1 = Cache::builder().max_capacity(L1_CAPACITY).expire_after(ByEntry).build();
        let (generation, owed, tallies) = (AtomicU64::new(0), Mutex::default(), Mutex::default());
        Self { l1, generation, store, owed, clock, metrics, dice, tallies }
    }

    /// The item as its owner sees it, loaded by `load` when no cache has it. Concurrent callers share one load.
    ///
    /// # Errors
    /// What `load` failed with; a 404 is an answer, not an error.
    pub async fn get<F>(&self, owner: u64, id: &ItemId, load: F) -> Result<Found, Arc<Error>>
    where
        F: Future<Output = Result<Value, Error>>,
    {
        let key = key(owner, id);
        if let Some(entry) = self.l1.get(&key).await {
            self.count(0, true);
            let freshness = match entry.found.freshness {
                Freshness::Stale => Freshness::Stale,
                Freshness::Hit | Freshness::Miss => Freshness::Hit,
            };
            return Ok(Found { freshness, ..entry.found });
        }
        self.count(0, false);
        let generation = self.generation.load(Ordering::Acquire);
        let entry = self.l1.try_get_with(key.clone(), self.fill(&key, id.as_str(), load)).await?;
        if self.generation.load(Ordering::Acquire) != generation {
            self.l1.invalidate(&key).await;
        }
        Ok(entry.found)
    }

    /// Drops the item everywhere, also for loads under way. Where the store does not answer, this process goes without
    /// it for this item until [`ItemCache::run`] has told it.
    pub async fn invalidate(&self, owner: u64, id: &ItemId) {
        let key = key(owner, id);
        self.drop_own(&key).await;
        if let Err(error) = self.store.invalidate(&key, id.as_str(), self.now()).await {
            tracing::warn!(
                error = service_kit::error::chain(&error),
                "an invalidation waits for the shared cache"
            );
            self.owed.lock().insert(id.as_str().to_owned(), key.clone());
        }
        // Again: a load that read the store before the deletion may have filled it in between.
        self.drop_own(&key).await;
    }

    async fn drop_own(&self, key: &str) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.l1.invalidate(key).await;
    }

    /// Hears what others invalidate and tells the store what it missed, until the future is dropped.
    pub async fn run(self: Arc<Self>) {
        let (sender, mut heard) = tokio::sync::mpsc::channel(HEARD);
        let gap = std::sync::atomic::AtomicBool::new(false);
        let hear = |what| {
            if sender.try_send(what).is_err() {
                gap.store(true, Ordering::Release);
            }
        };
        let listen = self.store.listen(&hear);
        let act = async {
            let mut look = tokio::time::interval(TELL);
            loop {
                tokio::select! {
                    what = heard.recv() => match what {
                        Some(Heard::Dropped(key)) => self.drop_own(&key).await,
                        Some(Heard::Gap) => self.drop_all(),
                        None => return,
                    },
                    _ = look.tick() => {
                        if gap.swap(false, Ordering::AcqRel) {
                            self.drop_all();
                        }
                        self.tell().await;
                    }
                }
            }
        };
        tokio::join!(listen, act);
    }

    fn drop_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.l1.invalidate_all();
    }

    async fn tell(&self) {
        let owed: Vec<(String, String)> =
            self.owed.lock().iter().map(|(subject, key)| (subject.clone(), key.clone())).collect();
        for (subject, key) in owed {
            if self.store.invalidate(&key, &subject, self.now()).await.is_err() {
                return;
            }
            self.owed.lock().remove(&subject);
        }
    }

    async fn fill<F>(&self, key: &str, subject: &str, load: F) -> Result<Entry, Error>
    where
        F: Future<Output = Result<Value, Error>>,
    {
        let now = self.now();
        let owed = self.owed.lock().contains_key(subject);
        let asked = if owed { None } else { Some(self.store.cached(key, subject, now).await) };
        let (cached, epoch) = match asked {
            Some(Ok((cached, epoch))) => (cached, Some(epoch)),
            Some(Err(error)) => {
                tracing::debug!(
                    error = service_kit::error::chain(&error),
                    "the shared cache does not answer"
                );
                self.metrics.cache_failures.inc(&["redis"]);
                (None, None)
            }
            None => (None, None),
        };
        let cached =
            cached.and_then(|cached| Some((serde_json::from_str::<Value>(&cached.value).ok()?, cached)));
        let stale = match cached {
            Some((value, cached)) if cached.soft_until > now => {
                self.count(1, true);
                return Ok(self.entry(value, Freshness::Hit, L1));
            }
            Some((value, _)) => {
                self.count(1, true);
                let mine = self.store.claim_stale(key, now, now + CLAIM_MS).await.unwrap_or(true);
                if !mine {
                    return Ok(self.entry(value, Freshness::Stale, L1_STALE));
                }
                Some(value)
            }
            None => {
                self.count(1, false);
                None
            }
        };
        let (value, soft_ms, hard_ms) = match load.await {
            Ok(value) => (value, SOFT_MS, HARD_MS),
            Err(Error::Ml(MlError::Refused { status: 404, .. })) => (Value::Null, ABSENT_MS, ABSENT_MS),
            Err(error) => {
                return match stale {
                    Some(value) if error.is_transient() => Ok(self.entry(value, Freshness::Stale, L1_STALE)),
                    _ => Err(error),
                };
            }
        };
        let kept = match epoch {
            Some(epoch) => self.keep(key, subject, epoch, &value, soft_ms, hard_ms).await,
            None => true,
        };
        // Invalidated while it was read: good for this caller, and for nobody after.
        let life = if kept {
            L1.min(Duration::from_millis(u64::try_from(soft_ms).unwrap_or(0)))
        } else {
            Duration::ZERO
        };
        Ok(self.entry(value, Freshness::Miss, life))
    }

    async fn keep(
        &self,
        key: &str,
        subject: &str,
        epoch: u64,
        value: &Value,
        soft_ms: Millis,
        hard_ms: Millis,
    ) -> bool {
        let now = self.now();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "milliseconds of a minute"
        )]
        let soft_until = now + (soft_ms as f64 * self.spread()) as Millis;
        let cached =
            Cached { value: value.to_string(), soft_until, hard_until: soft_until.max(now + hard_ms) };
        match self.store.keep(key, subject, epoch, cached, now).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::debug!(error = service_kit::error::chain(&error), "the shared cache was not filled");
                self.metrics.cache_failures.inc(&["redis"]);
                false
            }
        }
    }

    fn entry(&self, value: Value, freshness: Freshness, life: Duration) -> Entry {
        let item = (!value.is_null()).then(|| Arc::new(value));
        Entry { found: Found { item, freshness }, life: life.mul_f64(self.spread()) }
    }

    /// 0.9 to 1.1, so that what was read together does not expire together.
    fn spread(&self) -> f64 {
        0.9 + 0.2 * (self.dice)()
    }

    fn count(&self, tier: usize, hit: bool) {
        let outcome = if hit { "hit" } else { "miss" };
        self.metrics.cache_lookups.inc(&[TIERS[tier], outcome]);
        let mut tallies = self.tallies.lock();
        let tally = &mut tallies[tier];
        tally.all += 1;
        tally.hits += u32::from(hit);
        if tally.all >= TALLY {
            *tally = Tally { hits: tally.hits / 2, all: tally.all / 2 };
        }
        self.metrics.cache_ratio.set(&[TIERS[tier]], f64::from(tally.hits) / f64::from(tally.all));
    }

    fn now(&self) -> Millis {
        self.clock.now().as_millisecond()
    }
}

fn key(owner: u64, id: &ItemId) -> String {
    format!("item:{id}:owner:{owner}:all")
}

#[cfg(test)]
mod tests;
