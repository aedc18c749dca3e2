//! What happens to the two servers of Redis meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Method;
use secrecy::SecretString;
use serde_json::json;
use service_kit::redis::Redis;
use service_kit::testing::RedisServer;
use tokio::sync::Mutex;

use crate::fleet::Fleet;
use crate::traffic::{Traffic, draw};

/// Between two disturbances the fleet is left alone.
const REST: Duration = Duration::from_millis(1_500);
/// A killed server stays away so long.
const AWAY: Duration = Duration::from_millis(1_200);
/// Longer than the server lets a connection idle.
const QUIET: Duration = Duration::from_millis(2_500);

const KINDS: [&str; 11] = [
    "limits killed",
    "cache filled until it evicts",
    "limits flushed",
    "cache killed",
    "nobody asks, then all",
    "limits killed and their file lost",
    "both killed",
    "cache flushed",
    "all connections closed",
    "limits hang",
    "MercadoLibre fails",
];

pub(crate) struct Disturber {
    fleet: Arc<Fleet>,
    traffic: Arc<Traffic>,
    turn: usize,
    done: BTreeMap<&'static str, u32>,
    dice: AtomicU64,
    evicted: u64,
}

impl Disturber {
    pub(crate) fn new(fleet: &Arc<Fleet>, traffic: &Arc<Traffic>) -> Self {
        let (fleet, traffic) = (Arc::clone(fleet), Arc::clone(traffic));
        Self { fleet, traffic, turn: 0, done: BTreeMap::new(), dice: AtomicU64::new(11), evicted: 0 }
    }

    /// Each kind once, then at random.
    pub(crate) async fn next(&mut self) {
        tokio::time::sleep(REST).await;
        let kind = if self.turn < KINDS.len() { self.turn } else { draw(&self.dice, KINDS.len()) };
        self.turn += 1;
        *self.done.entry(KINDS[kind]).or_default() += 1;
        let fleet = Arc::clone(&self.fleet);
        match kind {
            0 => bounce(&fleet.state, false).await,
            1 => self.fill().await,
            2 => flush(&fleet.state).await,
            3 => bounce(&fleet.cache, false).await,
            4 => {
                self.traffic.quiet.store(true, Ordering::SeqCst);
                tokio::time::sleep(QUIET).await;
                self.traffic.quiet.store(false, Ordering::SeqCst);
            }
            5 => bounce(&fleet.state, true).await,
            6 => {
                tokio::join!(bounce(&fleet.state, true), bounce(&fleet.cache, true));
            }
            7 => flush(&fleet.cache).await,
            8 => {
                for server in [&fleet.state, &fleet.cache] {
                    let mut close = redis::cmd("CLIENT");
                    close.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
                    connection(&url(server).await).ask::<i64>(&close).await.unwrap();
                }
            }
            9 => {
                let server = fleet.state.lock().await;
                server.pause();
                tokio::time::sleep(AWAY / 2).await;
                server.resume();
            }
            _ => {
                for fault in [
                    json!({ "endpoint": "items.create", "times": 2, "kind": "reset" }),
                    json!({ "endpoint": "items.get", "times": 2, "kind": "server_error" }),
                    json!({ "endpoint": "items.search", "times": 1, "kind": "rate_limited", "retry_after": 1 }),
                ] {
                    let sim = &fleet.sim;
                    let answer = sim.send_json(Method::POST, "/sim/faults", &[], &fault).await.unwrap();
                    assert_eq!(answer.status.as_u16(), 201);
                }
            }
        }
    }

    async fn fill(&mut self) {
        let redis = connection(&url(&self.fleet.cache).await);
        let text = "x".repeat(50_000);
        for number in 0..500 {
            let mut fill = redis::cmd("SET");
            redis.ask::<()>(fill.arg(format!("filler:{number}")).arg(&text)).await.unwrap();
        }
        let info: String = redis.ask(redis::cmd("INFO").arg("stats")).await.unwrap();
        let evicted = info.lines().find_map(|line| line.strip_prefix("evicted_keys:")).unwrap();
        let evicted: u64 = evicted.trim().parse().unwrap();
        assert!(evicted > 0, "the cache was to evict");
        self.evicted = self.evicted.max(evicted);
    }

    pub(crate) fn told(&self) -> String {
        for kind in KINDS {
            assert!(self.done.contains_key(kind), "not even once: {kind}");
        }
        format!("{:?}; {} keys evicted at least", self.done, self.evicted)
    }
}

async fn url(server: &Mutex<RedisServer>) -> SecretString {
    server.lock().await.url()
}

fn connection(url: &SecretString) -> Redis {
    Redis::new("test", url, Duration::from_secs(2)).unwrap()
}

async fn bounce(server: &Mutex<RedisServer>, forget: bool) {
    let mut server = server.lock().await;
    server.kill();
    if forget {
        server.forget();
    }
    tokio::time::sleep(AWAY).await;
    server.run().unwrap();
}

async fn flush(server: &Mutex<RedisServer>) {
    connection(&url(server).await).ask::<()>(&redis::cmd("FLUSHALL")).await.unwrap();
}
