//! The limiter over the embedded store: shared between replicas, all or none, with a local share in need.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;

use super::*;
use crate::store::tests::Bench;
use crate::store::{Millis, Owed, Rejoined, SqliteState, StoreError};

const LIMITS: Limits = Limits {
    global: 1_000,
    user: 40,
    ml_api: 900,
    mode: Mode::Normal,
    replicas: 4,
    window: Duration::from_secs(3_600),
};

impl Bench {
    fn limiter(&self, limits: Limits) -> Limiter {
        Limiter::new(self.state.clone(), limits, self.clock.clone(), self.metrics.clone())
    }
}

async fn granted(limiter: &Limiter, user: Uuid, lane: Lane, tries: u32) -> u32 {
    let mut count = 0;
    for _ in 0..tries {
        count += u32::from(limiter.take(user, lane).await.is_ok());
    }
    count
}

#[tokio::test]
async fn replicas_share_one_count() {
    let bench = Bench::new().await;
    let (one, two) = (bench.limiter(LIMITS), bench.limiter(LIMITS));
    let user = Uuid::new_v4();
    // A user's limit of 40 has a burst of 4.
    assert_eq!(
        granted(&one, user, Lane::Critical, 3).await + granted(&two, user, Lane::Critical, 3).await,
        4
    );
    let denied = two.take(user, Lane::Critical).await.unwrap_err();
    assert_eq!((denied.scope, denied.retry_after), (Scope::User, Duration::from_secs(100)));
    bench.hand.advance(Duration::from_secs(100));
    assert_eq!(granted(&one, user, Lane::Critical, 2).await, 1);
}

#[tokio::test]
async fn a_denial_takes_nothing_from_the_other_limits() {
    let bench = Bench::new().await;
    let limiter = bench.limiter(LIMITS);
    let user = Uuid::new_v4();
    assert_eq!(granted(&limiter, user, Lane::Critical, 50).await, 4);
    let [global, _, ml_api] = limiter.usage().await.unwrap();
    assert_eq!((global.remaining, ml_api.remaining), (996, 896));
    assert_eq!(bench.metrics.limit_denied.get(&["user"]), 46);
    assert_eq!(bench.metrics.limit_denied.get(&["global"]), 0);
}

#[tokio::test]
async fn bulk_work_leaves_a_fifth_of_the_burst_for_critical_work() {
    let bench = Bench::new().await;
    let limiter = bench.limiter(Limits { user: 1_000, ..LIMITS });
    let user = Uuid::new_v4();
    // The global burst of 1000/50 = 20 is the tightest.
    assert_eq!(granted(&limiter, user, Lane::Bulk, 30).await, 16);
    assert_eq!(granted(&limiter, user, Lane::Critical, 30).await, 4);
}

#[tokio::test]
async fn concurrent_takes_of_many_tasks_never_pass_the_burst() {
    let bench = Bench::new().await;
    let limiter = Arc::new(bench.limiter(LIMITS));
    let user = Uuid::new_v4();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            tokio::spawn(async move { limiter.take(user, Lane::Critical).await.is_ok() })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += u32::from(task.await.unwrap());
    }
    assert_eq!(count, 4);
}

#[tokio::test]
async fn the_gauge_shows_the_fullest_user() {
    let bench = Bench::new().await;
    let limiter = bench.limiter(LIMITS);
    granted(&limiter, Uuid::new_v4(), Lane::Critical, 1).await;
    granted(&limiter, Uuid::new_v4(), Lane::Critical, 4).await;
    let [_, user, _] = limiter.usage().await.unwrap();
    assert_eq!(user.remaining, 36);
    assert!((bench.metrics.limit_utilization.get(&["user"]) - 0.1).abs() < 1e-9);
}

/// A store that never answers well.
struct Away;

#[async_trait::async_trait]
impl LimitStore for Away {
    async fn reachable(&self) -> Result<(), String> {
        Err("away".into())
    }
    async fn take(&self, _: Vec<Take>) -> Result<Taken, StoreError> {
        Err(away())
    }
    async fn rejoin(&self, _: Duration, _: Vec<Owed>) -> Result<Rejoined, StoreError> {
        Err(away())
    }
    async fn buckets(&self, _: Vec<(String, i64)>) -> Result<(i64, Vec<Bucket>), StoreError> {
        Err(away())
    }
    async fn purge(&self, _: Millis) -> Result<(), StoreError> {
        Err(away())
    }
}

/// The embedded store, that goes away and comes back.
struct Flaky {
    store: Arc<SqliteState>,
    away: AtomicBool,
}

impl Flaky {
    fn reached(&self) -> Result<&SqliteState, StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(away()) } else { Ok(&self.store) }
    }
}

#[async_trait::async_trait]
impl LimitStore for Flaky {
    async fn reachable(&self) -> Result<(), String> {
        Ok(())
    }
    async fn take(&self, limits: Vec<Take>) -> Result<Taken, StoreError> {
        self.reached()?.take(limits).await
    }
    async fn rejoin(&self, away: Duration, owed: Vec<Owed>) -> Result<Rejoined, StoreError> {
        self.reached()?.rejoin(away, owed).await
    }
    async fn buckets(&self, keys: Vec<(String, i64)>) -> Result<(i64, Vec<Bucket>), StoreError> {
        self.reached()?.buckets(keys).await
    }
    async fn purge(&self, now: Millis) -> Result<(), StoreError> {
        LimitStore::purge(self.reached()?, now).await
    }
}

fn away() -> StoreError {
    StoreError { operation: "reach the store", busy: true, source: "away".into() }
}

#[tokio::test]
async fn without_the_store_each_process_has_its_share_and_no_more() {
    let (clock, hand) = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
    let metrics = Metrics::register(&service_kit::Metrics::new());
    let limiter = Limiter::new(Arc::new(Away), Limits { user: 1_000, ..LIMITS }, clock, metrics.clone());
    let user = Uuid::new_v4();
    let mut passed = 0;
    for _ in 0..3_600 {
        passed += granted(&limiter, user, Lane::Critical, 2).await;
        hand.advance(Duration::from_secs(1));
    }
    // A quarter of 900, the tightest limit, split so that the rolling hour holds.
    assert!((200..=225).contains(&passed), "{passed}");
    assert_eq!(metrics.limit_fallbacks.get(&["redis"]), 7_200);
    assert!(limiter.usage().await.is_none());
}

#[tokio::test]
async fn what_was_granted_alone_is_charged_when_the_store_is_back() {
    let bench = Bench::new().await;
    let store = Arc::new(Flaky { store: Arc::clone(&bench.state), away: AtomicBool::new(false) });
    let limits = Limits { user: 4_000, ..LIMITS };
    let limiter = Limiter::new(store.clone(), limits, bench.clock.clone(), bench.metrics.clone());
    let user = Uuid::new_v4();
    assert_eq!(granted(&limiter, user, Lane::Critical, 3).await, 3);
    store.away.store(true, Ordering::SeqCst);
    assert_eq!(granted(&limiter, user, Lane::Critical, 3).await, 0, "the share begins empty");
    assert!((bench.metrics.limits_alone.get(&["redis"]) - 1.0).abs() < 1e-9);
    // A quarter of 880 an hour beside the burst: one each 16.4 s, up to five at once.
    bench.hand.advance(Duration::from_secs(70));
    assert_eq!(granted(&limiter, user, Lane::Critical, 9).await, 4);
    store.away.store(false, Ordering::SeqCst);
    assert_eq!(granted(&limiter, user, Lane::Critical, 1).await, 1);
    let [global, user, ml_api] = limiter.usage().await.unwrap();
    assert_eq!((global.remaining, user.remaining, ml_api.remaining), (992, 3_992, 892));
    assert!(bench.metrics.limits_alone.get(&["redis"]).abs() < 1e-9);
}
