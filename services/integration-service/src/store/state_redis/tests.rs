//! The script against the pure model, what becomes of lost books, and the cache under eviction, on a real server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use service_kit::redis::Redis;
use service_kit::testing::{RedisServer, eventually, servers};

use super::limits::BOOKS;
use super::*;
use crate::limiter::gcra::{Bucket, Mode, Rate};
use crate::store::{CacheStore, Cached, Heard, LimitStore, Owed, Rejoined, Take, Taken, contract};

const DEADLINE: Duration = Duration::from_millis(500);

fn redis(url: &secrecy::SecretString) -> Redis {
    Redis::new("redis", url, DEADLINE).unwrap()
}

async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn open(limits: &RedisLimits) {
    while limits.rejoin(Duration::ZERO, vec![]).await.unwrap() != Rejoined::Open {
        wait(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn limits_are_taken_together() {
    let limits = RedisLimits::new(redis(&servers::redis()));
    contract::limits_are_taken_together(&limits, wait).await;
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn the_cache_respects_invalidations() {
    let cache = RedisCache::new(redis(&servers::redis()));
    contract::the_cache_respects_invalidations(&cache).await;
}

/// What is asked of the limits in one step.
#[derive(Clone, Debug)]
enum Step {
    /// One call from these limits, in this order, with this reserve.
    Take(Vec<usize>, u32),
    Charge(usize, u32),
    Sleep(u64),
}

/// Limits that fill within milliseconds and ones that hardly do.
fn rates() -> [Rate; 3] {
    [
        Rate::new(40, 5, Mode::Normal, 1_000_000),
        Rate::new(900, 45, Mode::Normal, 500_000),
        Rate::new(60, 10, Mode::Conservative, 50_000),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let limits = prop_oneof![
        4 => Just(vec![0, 1, 2]), 1 => Just(vec![2, 0]), 2 => Just(vec![1]), 2 => Just(vec![2]),
    ];
    let step = prop_oneof![
        30 => (limits, 0..3_u32).prop_map(|(limits, reserve)| Step::Take(limits, reserve)),
        1 => (0..3_usize, 1..4_u32).prop_map(|(limit, calls)| Step::Charge(limit, calls)),
        3 => (0..12_u64).prop_map(Step::Sleep),
    ];
    proptest::collection::vec(step, 1..80)
}

#[test]
#[ignore = "needs a real server: make e2e-services"]
fn the_script_does_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (limits, since_us) = runtime.block_on(async {
        let redis = redis(&servers::redis());
        let limits = RedisLimits::new(redis.clone());
        open(&limits).await;
        let since: String = redis.ask(redis::cmd("HGET").arg(BOOKS).arg("=since")).await.unwrap();
        (limits, since.parse::<i64>().unwrap())
    });
    let (case, granted, denied) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        let case = case.fetch_add(1, Ordering::Relaxed);
        let key = |limit: usize| format!("{case}:{limit}");
        let (mut model, rates) = (HashMap::<usize, Bucket>::new(), rates());
        for step in steps {
            match step {
                Step::Sleep(ms) => runtime.block_on(wait(Duration::from_millis(ms))),
                Step::Charge(limit, calls) => {
                    let rate = rates[limit];
                    let look =
                        || runtime.block_on(limits.buckets(vec![(key(limit), rate.window_us)])).unwrap();
                    let known = model.get(&limit).copied().unwrap_or_default();
                    let (before, _) = look();
                    let owed = Owed { key: key(limit), rate, calls };
                    runtime.block_on(limits.rejoin(Duration::ZERO, vec![owed])).unwrap();
                    let (after, state) = look();
                    // The script does not tell when it was; what it wrote does.
                    let then = state[0].tat_us - i64::from(calls) * rate.interval_us;
                    prop_assert!(
                        then == known.tat_us || (before..=after).contains(&then),
                        "{then} {known:?}"
                    );
                    let now = then.clamp(before, after);
                    let charged = known.charged(rate, calls, now);
                    prop_assert_eq!(charged.tat_us, state[0].tat_us);
                    model.insert(limit, state[0]);
                }
                Step::Take(chosen, reserve) => {
                    let takes =
                        chosen.iter().map(|limit| Take { key: key(*limit), rate: rates[*limit], reserve });
                    let taken = runtime.block_on(limits.take(takes.collect())).unwrap();
                    let (Taken::Granted { now_us, .. } | Taken::Denied { now_us, .. }) = taken else {
                        panic!("{taken:?}")
                    };
                    let states: Result<Vec<Bucket>, (usize, i64)> = chosen
                        .iter()
                        .enumerate()
                        .map(|(position, limit)| {
                            let known = model.get(limit).copied().unwrap_or_default();
                            let known = known.empty_at(since_us, rates[*limit]);
                            known.take(rates[*limit], reserve, now_us).map_err(|wait| (position, wait))
                        })
                        .collect();
                    let expected = match states {
                        Ok(buckets) => {
                            model.extend(chosen.iter().copied().zip(buckets.iter().copied()));
                            granted.fetch_add(1, Ordering::Relaxed);
                            Taken::Granted { now_us, buckets }
                        }
                        Err((position, wait_us)) => {
                            denied.fetch_add(1, Ordering::Relaxed);
                            Taken::Denied { now_us, position, wait_us }
                        }
                    };
                    prop_assert_eq!(taken, expected);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
    let (granted, denied) = (granted.into_inner(), denied.into_inner());
    assert!(granted > 500 && denied > 500, "{granted} granted, {denied} denied: both sides must be met");
}

/// Calls that pass at once.
async fn passed(limits: &RedisLimits, rate: Rate) -> u32 {
    let mut passed = 0;
    while let Taken::Granted { .. } =
        limits.take(vec![Take { key: "x".into(), rate, reserve: 0 }]).await.unwrap()
    {
        passed += 1;
    }
    passed
}

/// A hundred in a minute, ten of them at once.
fn rate() -> Rate {
    Rate::new(100, 10, Mode::Normal, 60_000_000)
}

async fn filled(limits: &RedisLimits, redis: &Redis) {
    open(limits).await;
    // Opened long ago: what was not used since is full.
    let mut write = redis::cmd("HSET");
    redis.ask::<()>(write.arg(BOOKS).arg("=since").arg(0)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn lost_books_stay_closed_for_a_moment_and_begin_empty() {
    let redis = redis(&servers::redis());
    let limits = RedisLimits::new(redis.clone());
    filled(&limits, &redis).await;
    assert_eq!(passed(&limits, rate()).await, 10);
    redis.ask::<()>(&redis::cmd("FLUSHDB")).await.unwrap();
    let taken = limits.take(vec![Take { key: "x".into(), rate: rate(), reserve: 0 }]).await.unwrap();
    assert!(matches!(taken, Taken::Closed { for_us } if for_us <= 500_000), "{taken:?}");
    open(&limits).await;
    assert_eq!(passed(&limits, rate()).await, 0, "a missing bucket is never a full one");
    let life: i64 = redis.ask(redis::cmd("PTTL").arg(BOOKS)).await.unwrap();
    assert!(life > 0, "{life}");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_server_that_was_killed_begins_empty_with_and_without_its_file() {
    for settings in [&[][..], &[("appendonly", "yes")][..]] {
        let mut server = RedisServer::start(settings).unwrap();
        let redis = redis(&server.url());
        let limits = RedisLimits::new(redis.clone());
        filled(&limits, &redis).await;
        assert_eq!(passed(&limits, rate()).await, 10);
        server.kill();
        server.run().unwrap();
        eventually("an answer", async || {
            limits.rejoin(Duration::ZERO, vec![]).await.ok().filter(|joined| *joined != Rejoined::Open)
        })
        .await;
        open(&limits).await;
        assert_eq!(passed(&limits, rate()).await, 0, "{settings:?}");
    }
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn who_comes_back_closes_the_books_only_where_nobody_was_served_meanwhile() {
    let redis = redis(&servers::redis());
    let (one, other) = (RedisLimits::new(redis.clone()), RedisLimits::new(redis.clone()));
    filled(&one, &redis).await;
    let take = || vec![Take { key: "x".into(), rate: rate(), reserve: 0 }];
    let owed = || vec![Owed { key: "x".into(), rate: rate(), calls: 2 }];
    other.take(take()).await.unwrap();
    wait(Duration::from_millis(30)).await;
    other.take(take()).await.unwrap();
    assert_eq!(one.rejoin(Duration::from_millis(20), owed()).await.unwrap(), Rejoined::Open);
    assert_eq!(passed(&other, rate()).await, 6, "two and two are gone");
    wait(Duration::from_millis(50)).await;
    let joined = one.rejoin(Duration::from_millis(20), vec![]).await.unwrap();
    assert!(matches!(joined, Rejoined::Closed { .. }), "{joined:?}");
    wait(Duration::from_millis(520)).await;
    // Of the same absence, which the closing was a part of: once is enough, also for one who was away for longer.
    for away in [570, 600] {
        let joined = one.rejoin(Duration::from_millis(away), owed()).await.unwrap();
        assert_eq!(joined, Rejoined::Open, "{away}");
    }
    assert_eq!(passed(&other, rate()).await, 0);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn idle_users_are_purged_and_nobody_else() {
    let redis = redis(&servers::redis());
    let limits = RedisLimits::new(redis.clone());
    filled(&limits, &redis).await;
    let take = |key: &str| Take { key: key.into(), rate: rate(), reserve: 0 };
    let taken = limits.take(vec![take("global"), take("user:1"), take("user:2")]).await.unwrap();
    let Taken::Granted { now_us, .. } = taken else { panic!("{taken:?}") };
    let mut write = redis::cmd("HSET");
    redis.ask::<()>(write.arg(BOOKS).arg("user:1").arg("5:0:1:0")).await.unwrap();
    limits.purge(now_us / 1_000).await.unwrap();
    let mut fields: Vec<String> = redis.ask(redis::cmd("HKEYS").arg(BOOKS)).await.unwrap();
    fields.retain(|field| !field.starts_with('='));
    fields.sort();
    assert_eq!(fields, ["global", "user:2"]);
}

/// Whatever a server that evicts throws away, a value is never older than the newest invalidation that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn no_eviction_brings_an_old_value_back() {
    let server = RedisServer::start(&[("maxmemory", "2mb"), ("maxmemory-policy", "allkeys-lru")]).unwrap();
    let redis = redis(&server.url());
    let cache = RedisCache::new(redis.clone());
    // What the world holds, and what every reader that begins now must at least see.
    let world: Arc<Vec<(AtomicU64, AtomicU64)>> = Arc::new((0..20).map(|_| Default::default()).collect());
    let until = std::time::Instant::now() + Duration::from_secs(5);
    let (hits, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = Vec::new();
    for task in 0..8_usize {
        let (cache, world) = (cache.clone(), Arc::clone(&world));
        let (hits, dropped) = (Arc::clone(&hits), Arc::clone(&dropped));
        tasks.push(tokio::spawn(async move {
            let mut turn = task;
            while std::time::Instant::now() < until {
                turn += 7;
                let subject = format!("s{}", turn % 20);
                let (value, known) = &world[turn % 20];
                if turn % 11 == task {
                    let written = value.fetch_add(1, Ordering::SeqCst) + 1;
                    cache.invalidate("k", &subject, 0).await.unwrap();
                    known.fetch_max(written, Ordering::SeqCst);
                    continue;
                }
                let least = known.load(Ordering::SeqCst);
                let (cached, epoch) = cache.cached("k", &subject, 0).await.unwrap();
                if let Some(cached) = cached {
                    hits.fetch_add(1, Ordering::Relaxed);
                    let seen: u64 = cached.value.trim().parse().unwrap();
                    assert!(seen >= least, "{subject}: {seen} after {least} was known");
                    continue;
                }
                let loaded = value.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(turn as u64 % 5)).await;
                let life = Cached { value: loaded.to_string(), soft_until: 60_000, hard_until: 60_000 };
                if !cache.keep("k", &subject, epoch, life, 0).await.unwrap() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    // The pressure that throws epochs and values away.
    let mut filler = 0_u64;
    while std::time::Instant::now() < until {
        filler += 1;
        let mut fill = redis::cmd("SET");
        redis.ask::<()>(fill.arg(format!("filler{filler}")).arg("x".repeat(20_000))).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    let info: String = redis.ask(redis::cmd("INFO").arg("stats")).await.unwrap();
    let evicted = info.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap();
    assert!(evicted.trim().parse::<u64>().unwrap() > 1_000, "{evicted} evicted");
    assert!(hits.load(Ordering::Relaxed) > 100 && dropped.load(Ordering::Relaxed) > 10);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn an_evicted_epoch_lets_nothing_in_that_was_loaded_under_it() {
    let redis = redis(&servers::redis());
    let cache = RedisCache::new(redis.clone());
    let value = |text: &str| Cached { value: text.into(), soft_until: 1_000, hard_until: 60_000 };
    let (_, epoch) = cache.cached("k", "s", 0).await.unwrap();
    assert!(cache.keep("k", "s", epoch, value("old"), 0).await.unwrap());
    cache.invalidate("k", "s", 0).await.unwrap();
    let mut scan = redis::cmd("KEYS");
    let epochs: Vec<String> = redis.ask(scan.arg("*:epoch:*")).await.unwrap();
    assert_eq!(epochs.len(), 1);
    redis.ask::<()>(redis::cmd("DEL").arg(&epochs)).await.unwrap();
    assert!(!cache.keep("k", "s", epoch, value("old"), 0).await.unwrap());
    let (none, anew) = cache.cached("k", "s", 0).await.unwrap();
    assert_eq!(none, None, "the value that lay there belongs to no epoch");
    assert_ne!(anew, epoch);
    assert!(!cache.keep("k", "s", epoch, value("old"), 0).await.unwrap());
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_server_that_comes_back_with_an_old_file_brings_no_old_value() {
    let mut server = RedisServer::start(&[]).unwrap();
    let redis = redis(&server.url());
    let cache = RedisCache::new(redis.clone());
    let (_, epoch) = cache.cached("k", "s", 0).await.unwrap();
    let old = Cached { value: "old".into(), soft_until: 1_000, hard_until: 60_000 };
    assert!(cache.keep("k", "s", epoch, old, 0).await.unwrap());
    redis.ask::<()>(&redis::cmd("SAVE")).await.unwrap();
    cache.invalidate("k", "s", 0).await.unwrap();
    server.kill();
    server.run().unwrap();
    let (none, _) = eventually("an answer", async || cache.cached("k", "s", 0).await.ok()).await;
    assert_eq!(none, None);
    let count = redis::cmd("DBSIZE");
    let keys: i64 = redis.ask(&count).await.unwrap();
    assert!(keys >= 2, "the file was read: {keys}");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn who_listens_hears_of_invalidations_and_of_gaps() {
    let mut server = RedisServer::start(&[]).unwrap();
    let cache = RedisCache::new(redis(&server.url()));
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let listener = cache.clone();
    let task = tokio::spawn(async move { listener.listen(&move |what| sender.send(what).unwrap()).await });
    let mut next =
        async || tokio::time::timeout(Duration::from_secs(10), heard.recv()).await.unwrap().unwrap();
    assert_eq!(next().await, Heard::Gap);
    cache.invalidate("k", "s", 0).await.unwrap();
    assert_eq!(next().await, Heard::Dropped("k".into()));
    server.kill();
    server.run().unwrap();
    assert_eq!(next().await, Heard::Gap);
    task.abort();
}
