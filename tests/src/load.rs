//! A client that sends requests at a steady rate, whatever comes back, and counts what a user would notice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Time for one request; beyond it nobody waits.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two bursts.
const TICK: Duration = Duration::from_millis(4);
/// Requests under way at most: a server that hangs must not take the test's memory.
const MOST: u64 = 5_000;

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Answers with 2xx, read to their end.
    pub good: u64,
    /// Other answers by status.
    pub bad: BTreeMap<u16, u64>,
    /// Connections that broke before the answer was whole.
    pub broken: u64,
    /// Connections that could not be made.
    pub unconnected: u64,
    /// Requests without an answer in time.
    pub late: u64,
    /// Requests not sent, since too many were under way.
    pub held_back: u64,
    /// Good answers by body, when they are short: a version says who answered.
    pub bodies: BTreeMap<String, u64>,
    /// What broke, one example a kind.
    pub examples: BTreeMap<String, String>,
}

impl Tally {
    /// Returns how many requests a user would have missed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.bad.values().sum::<u64>() + self.broken + self.unconnected + self.late + self.held_back
    }

    /// Asserts that something was asked and every request was answered well.
    ///
    /// # Panics
    /// With the whole tally, when one was not.
    #[track_caller]
    pub fn is_clean(&self) {
        assert!(
            self.sent > 0 && self.failed() == 0 && self.good == self.sent,
            "{self}: {:#?}",
            self.examples
        );
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} good, {} broken, {} unconnected, {} late, {} held back, other answers {:?}",
            self.sent, self.good, self.broken, self.unconnected, self.late, self.held_back, self.bad
        )
    }
}

/// A running client.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    under_way: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts to ask the URLs in turn, so many a second in all.
    ///
    /// With `keep_alive` connections are used again, as browsers and proxies do; without it each request has its
    /// own. A bearer token goes with every request.
    #[must_use]
    pub fn start(urls: &[String], per_second: u32, keep_alive: bool, bearer: Option<&str>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let under_way = Arc::new(AtomicU64::new(0));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(if keep_alive { 256 } else { 0 });
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let sender = Sender {
            client: builder.build(connector),
            keep_alive,
            bearer: bearer.map(|token| format!("Bearer {token}")),
            tally: Arc::clone(&tally),
            under_way: Arc::clone(&under_way),
        };
        let task = tokio::spawn(drive(sender, urls.to_vec(), per_second, Arc::clone(&stop)));
        Self { stop, tally, under_way, task }
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn so_far(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Stops, waits for what is under way, and returns what was counted.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
        let until = Instant::now() + LIMIT * 2;
        while self.under_way.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(TICK).await;
        }
        self.so_far()
    }
}

#[derive(Clone)]
struct Sender {
    client: Client<HttpConnector, Empty<Bytes>>,
    keep_alive: bool,
    bearer: Option<String>,
    tally: Arc<Mutex<Tally>>,
    under_way: Arc<AtomicU64>,
}

async fn drive(sender: Sender, urls: Vec<String>, per_second: u32, stop: Arc<AtomicBool>) {
    let began = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut begun = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a short test at a low rate"
        )]
        let due = (began.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        while begun < due {
            let url = urls[usize::try_from(begun).unwrap() % urls.len()].clone();
            begun += 1;
            if sender.under_way.fetch_add(1, Ordering::AcqRel) >= MOST {
                sender.under_way.fetch_sub(1, Ordering::AcqRel);
                sender.tally.lock().unwrap().held_back += 1;
                continue;
            }
            let sender = sender.clone();
            tokio::spawn(async move {
                sender.one(&url).await;
                sender.under_way.fetch_sub(1, Ordering::AcqRel);
            });
        }
    }
}

impl Sender {
    async fn one(&self, url: &str) {
        let mut request = Request::get(url);
        if !self.keep_alive {
            request = request.header("connection", "close");
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        let request = request.body(Empty::new()).unwrap();
        self.tally.lock().unwrap().sent += 1;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| (e.is_connect(), chain(&e)))?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|e| (false, chain(&e)))?;
            Ok::<_, (bool, String)>((status, body.to_bytes()))
        };
        let result = timeout(LIMIT, exchange).await;
        let mut tally = self.tally.lock().unwrap();
        match result {
            Ok(Ok((status, body))) if status.is_success() => {
                tally.good += 1;
                if body.len() < 64 {
                    *tally.bodies.entry(String::from_utf8_lossy(&body).trim().to_owned()).or_default() += 1;
                }
            }
            Ok(Ok((status, body))) => {
                *tally.bad.entry(status.as_u16()).or_default() += 1;
                let body = String::from_utf8_lossy(&body).into_owned();
                tally.examples.entry(format!("{status} of {url}")).or_insert(body);
            }
            Ok(Err((connecting, reason))) => {
                *(if connecting { &mut tally.unconnected } else { &mut tally.broken }) += 1;
                tally.examples.entry(reason).or_insert_with(|| url.to_owned());
            }
            Err(_) => {
                tally.late += 1;
                tally.examples.entry("late".to_owned()).or_insert_with(|| url.to_owned());
            }
        }
    }
}

/// Returns an error with all that lies below it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text = format!("{text}: {cause}");
        below = cause.source();
    }
    text
}
