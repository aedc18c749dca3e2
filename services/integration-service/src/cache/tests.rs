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

/// So many ask at once for an item that nobody has.
const STAMPEDE: usize = 1_000;

/// Loads of each process, when a thousand callers of each ask at the same moment.
async fn stampede(caches: &[Arc<ItemCache>]) -> Vec<u32> {
    let barrier = Arc::new(Barrier::new(caches.len() * STAMPEDE));
    let loads: Vec<Arc<AtomicU32>> = caches.iter().map(|_| Arc::default()).collect();
    let tasks: Vec<_> = caches
        .iter()
        .zip(&loads)
        .flat_map(|(cache, loads)| (0..STAMPEDE).map(move |_| (Arc::clone(cache), Arc::clone(loads))))
        .map(|(cache, loads)| {
            let barrier = Arc::clone(&barrier);
            tokio::spawn(async move {
                barrier.wait().await;
                let load = async {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok(json!({ "id": "MLA1" }))
                };
                assert_eq!(cache.get(7, &id(), load).await.unwrap().item.unwrap()["id"], "MLA1");
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    loads.iter().map(|loads| loads.load(Ordering::SeqCst)).collect()
}

#[tokio::test]
async fn a_stampede_on_a_cold_item_is_one_load() {
    assert_eq!(stampede(&[Bench::new().await.cache()]).await, [1]);
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

/// Processes that share a Redis, each with a connection of its own.
mod redis {
    use service_kit::redis::Redis;
    use service_kit::testing::{RedisServer, eventually, servers};

    use super::*;
    use crate::store::RedisCache;

    fn process(url: &secrecy::SecretString) -> (Arc<ItemCache>, Metrics) {
        let redis = Redis::new("redis", url, Duration::from_millis(500)).unwrap();
        let metrics = Metrics::register(&service_kit::Metrics::new());
        let store = Arc::new(RedisCache::new(redis));
        (Arc::new(ItemCache::new(store, Clock::system(), metrics.clone(), || 0.5)), metrics)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a real server: make e2e-services"]
    async fn a_stampede_is_at_most_one_load_in_each_process_and_none_when_it_is_warm() {
        let url = servers::redis();
        let processes: Vec<_> = (0..3).map(|_| process(&url).0).collect();
        let loads = stampede(&processes).await;
        assert!(loads.iter().all(|loads| *loads <= 1) && loads.iter().sum::<u32>() >= 1, "{loads:?}");
        let late: Vec<_> = (0..2).map(|_| process(&url).0).collect();
        assert_eq!(stampede(&late).await, [0, 0]);
    }

    #[tokio::test]
    #[ignore = "needs a real server: make e2e-services"]
    async fn owners_never_see_each_others_copy_in_the_second_tier() {
        let url = servers::redis();
        read(&process(&url).0, 7, Ok(json!({ "available_quantity": 3 }))).await;
        let other = process(&url).0;
        let (item, freshness) = read(&other, 8, Ok(json!({ "price": 1 }))).await;
        assert_eq!((item, freshness), (Some(json!({ "price": 1 })), Freshness::Miss));
        let (item, freshness) = read(&other, 7, Err(away())).await;
        assert_eq!((item, freshness), (Some(json!({ "available_quantity": 3 })), Freshness::Hit));
    }

    #[tokio::test]
    #[ignore = "needs a real server: make e2e-services"]
    async fn a_load_that_another_process_invalidated_is_not_kept() {
        let url = servers::redis();
        let (reader, elsewhere) = (process(&url).0, process(&url).0);
        let (begun, has_begun) = oneshot::channel();
        let (go_on, may_go_on) = oneshot::channel::<()>();
        let reading = tokio::spawn({
            let reader = Arc::clone(&reader);
            async move {
                let load = async move {
                    begun.send(()).unwrap();
                    may_go_on.await.unwrap();
                    Ok(json!("old"))
                };
                reader.get(7, &id(), load).await.unwrap().item.unwrap()
            }
        });
        has_begun.await.unwrap();
        elsewhere.invalidate(7, &id()).await;
        go_on.send(()).unwrap();
        assert_eq!(*reading.await.unwrap(), json!("old"));
        for process in [reader, elsewhere, process(&url).0] {
            assert_ne!(read(&process, 7, Ok(json!("new"))).await.0, Some(json!("old")));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a real server: make e2e-services"]
    async fn other_processes_drop_their_own_copy_at_once() {
        // One of its own: an item's name is all that is told, and other tests use the same.
        let server = RedisServer::start(&[]).unwrap();
        let (reader, elsewhere) = (process(&server.url()).0, process(&server.url()).0);
        let hearing = tokio::spawn(Arc::clone(&reader).run());
        eventually("a copy that stays", async || {
            read(&reader, 7, Ok(json!("old"))).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            (read(&reader, 7, Err(away())).await.1 == Freshness::Hit).then_some(())
        })
        .await;
        elsewhere.invalidate(7, &id()).await;
        let begun = Instant::now();
        eventually("the new value", async || {
            (read(&reader, 7, Ok(json!("new"))).await.0 == Some(json!("new"))).then_some(())
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(1), "its own life is longer: {:?}", begun.elapsed());
        hearing.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "needs a real server: make e2e-services"]
    async fn an_invalidation_while_the_server_is_away_is_made_good() {
        let mut server = RedisServer::start(&[("appendonly", "yes")]).unwrap();
        let (reader, metrics) = process(&server.url());
        let telling = tokio::spawn(Arc::clone(&reader).run());
        read(&reader, 7, Ok(json!("old"))).await;
        server.pause();
        let begun = Instant::now();
        reader.invalidate(7, &id()).await;
        assert_eq!(read(&reader, 7, Ok(json!("new"))).await.0, Some(json!("new")));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        server.resume();
        // A process that has nothing of its own: what it sees is the server's.
        eventually("the server's copy to go", async || {
            let seen = read(&process(&server.url()).0, 7, Ok(json!("newer"))).await.0;
            (seen == Some(json!("newer"))).then_some(())
        })
        .await;
        assert_eq!(metrics.cache_failures.get(&["redis"]), 0, "what is owed is not asked for");
        server.kill();
        assert_eq!(read(&process(&server.url()).0, 7, Ok(json!("alone"))).await.0, Some(json!("alone")));
        telling.abort();
    }
}
