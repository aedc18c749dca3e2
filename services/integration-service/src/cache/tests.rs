//! The cache: one load for many callers, no tenant sees another's copy, no value outlives an invalidation.

use std::sync::atomic::AtomicU32;

use serde_json::json;
use tokio::sync::{Barrier, oneshot};

use super::*;
use crate::store::tests::Bench;

impl Bench {
    /// A process: its own first tier over the shared second one.
    fn cache(&self) -> Arc<ItemCache> {
        Arc::new(ItemCache::new(self.state.clone(), self.clock.clone(), self.metrics.clone(), || 0.5))
    }
}

fn id() -> ItemId {
    "MLA1".parse().unwrap()
}

async fn read(cache: &ItemCache, owner: u64, value: Result<Value, Error>) -> (Option<Value>, Freshness) {
    let found = cache.get(owner, &id(), async { value }).await.unwrap();
    (found.item.map(|item| (*item).clone()), found.freshness)
}

fn away() -> Error {
    MlError::Timeout.into()
}

fn absent() -> Error {
    MlError::Refused { status: 404, error: "not_found".into(), message: String::new() }.into()
}

#[tokio::test]
async fn many_callers_share_one_load() {
    let cache = Bench::new().await.cache();
    let (loads, barrier) = (Arc::new(AtomicU32::new(0)), Arc::new(Barrier::new(16)));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (cache, loads, barrier) = (Arc::clone(&cache), Arc::clone(&loads), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                let load = async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    Ok(json!({ "id": "MLA1" }))
                };
                cache.get(7, &id(), load).await.unwrap().item.unwrap()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap()["id"], "MLA1");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn owners_never_see_each_others_copy() {
    let bench = Bench::new().await;
    let cache = bench.cache();
    read(&cache, 7, Ok(json!({ "available_quantity": 3 }))).await;
    let (other, freshness) = read(&cache, 8, Ok(json!({ "price": 1 }))).await;
    assert_eq!((other, freshness), (Some(json!({ "price": 1 })), Freshness::Miss));
    assert_eq!(
        read(&cache, 7, Err(away())).await,
        (Some(json!({ "available_quantity": 3 })), Freshness::Hit)
    );
}

#[tokio::test]
async fn replicas_share_the_second_tier_and_a_stale_value_helps_in_need() {
    let bench = Bench::new().await;
    read(&bench.cache(), 7, Ok(json!(1))).await;
    assert_eq!(read(&bench.cache(), 7, Err(away())).await, (Some(json!(1)), Freshness::Hit));
    assert_eq!(bench.metrics.cache_lookups.get(&["l2", "hit"]), 1);
    bench.hand.advance(Duration::from_secs(61));
    assert_eq!(read(&bench.cache(), 7, Err(away())).await, (Some(json!(1)), Freshness::Stale));
    // The failed refresher's claim still stands: others do not ask again.
    assert_eq!(read(&bench.cache(), 7, Ok(json!(2))).await, (Some(json!(1)), Freshness::Stale));
    bench.hand.advance(Duration::from_secs(10));
    assert_eq!(read(&bench.cache(), 7, Ok(json!(2))).await, (Some(json!(2)), Freshness::Miss));
    bench.hand.advance(Duration::from_secs(601));
    let error = bench.cache().get(7, &id(), async { Err(away()) }).await.unwrap_err();
    assert!(matches!(*error, Error::Ml(MlError::Timeout)));
}

#[tokio::test]
async fn a_refusal_is_not_covered_by_a_stale_value() {
    let bench = Bench::new().await;
    read(&bench.cache(), 7, Ok(json!(1))).await;
    bench.hand.advance(Duration::from_secs(61));
    let error = bench.cache().get(7, &id(), async { Err(Error::NotConnected) }).await.unwrap_err();
    assert!(matches!(*error, Error::NotConnected));
}

#[tokio::test]
async fn absence_is_believed_for_seconds_only() {
    let bench = Bench::new().await;
    assert_eq!(read(&bench.cache(), 7, Err(absent())).await, (None, Freshness::Miss));
    assert_eq!(read(&bench.cache(), 7, Ok(json!(1))).await, (None, Freshness::Hit));
    bench.hand.advance(Duration::from_secs(8));
    assert_eq!(read(&bench.cache(), 7, Ok(json!(1))).await, (Some(json!(1)), Freshness::Miss));
}

#[tokio::test]
async fn a_load_that_began_before_an_invalidation_is_not_kept() {
    let bench = Bench::new().await;
    let (cache, elsewhere) = (bench.cache(), bench.cache());
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let reader = tokio::spawn({
        let cache = Arc::clone(&cache);
        async move {
            let load = async move {
                begun.send(()).unwrap();
                may_go_on.await.unwrap();
                Ok(json!("old"))
            };
            cache.get(7, &id(), load).await.unwrap().item.unwrap()
        }
    });
    has_begun.await.unwrap();
    // In another process, so that only the shared store can know.
    elsewhere.invalidate(7, &id()).await;
    go_on.send(()).unwrap();
    assert_eq!(*reader.await.unwrap(), json!("old"));
    assert_eq!(read(&cache, 7, Ok(json!("new"))).await, (Some(json!("new")), Freshness::Miss));
}

#[tokio::test]
async fn an_invalidation_is_seen_at_once_in_its_process() {
    let bench = Bench::new().await;
    let cache = bench.cache();
    read(&cache, 7, Ok(json!(1))).await;
    cache.invalidate(7, &id()).await;
    assert_eq!(read(&cache, 7, Ok(json!(2))).await, (Some(json!(2)), Freshness::Miss));
}

#[tokio::test]
async fn the_ratio_is_hits_over_lookups() {
    let bench = Bench::new().await;
    let cache = bench.cache();
    for _ in 0..4 {
        read(&cache, 7, Ok(json!(1))).await;
    }
    assert!((bench.metrics.cache_ratio.get(&["l1"]) - 0.75).abs() < 1e-9);
}
