//! Recorded spans on their way to a collector: a bounded queue, batches, and a count of what was lost.
//!
//! A request never waits here. When the queue is full, because the collector is away or slow, spans are dropped and
//! counted; traces are for people who look for a cause, and their loss must not become one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::Method;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::Record;
use super::otlp::{self, Resource};
use crate::Identity;
use crate::client::{Client, HttpUrl};
use crate::metrics::{Counters, Metrics};

/// Spans that wait at most.
const QUEUE: usize = 2_048;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// How long a batch waits for more spans.
const DELAY: Duration = Duration::from_secs(1);
/// How long one request to the collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Waits before a batch is sent again.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Where a collector takes traces.
const PATH: &str = "/v1/traces";

const EXPORTED: &str = "exported";
const QUEUE_FULL: &str = "queue_full";
const FAILED: &str = "failed";

/// Those that send; a process is one service, a test may be many.
static STARTED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// The queue and what is known of its other end; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Record>,
    /// The queue's other end until somebody starts to read it.
    unread: Arc<Mutex<Option<mpsc::Receiver<Record>>>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    resource: Resource,
    counters: Counters,
    /// Taken and neither exported nor given up.
    open: AtomicUsize,
    /// Notified when `open` falls.
    settled: Notify,
    /// The process is about to end: no delays and no second tries.
    hurry: AtomicBool,
    hurried: Notify,
}

impl Exporter {
    pub(super) fn new(identity: Identity, url: HttpUrl, metrics: &Metrics) -> Self {
        let counters = metrics.counter(
            "trace_spans",
            "Recorded spans by what became of them",
            &["outcome"],
            &[&[EXPORTED], &[QUEUE_FULL], &[FAILED]],
        );
        let resource = Resource {
            service: identity.name,
            version: identity.version,
            instance: Uuid::new_v4().to_string(),
        };
        let (queue, unread) = mpsc::channel(QUEUE);
        let shared = Shared {
            client: Client::new(url, TIMEOUT),
            resource,
            counters,
            open: AtomicUsize::new(0),
            settled: Notify::new(),
            hurry: AtomicBool::new(false),
            hurried: Notify::new(),
        };
        Self { queue, unread: Arc::new(Mutex::new(Some(unread))), shared: Arc::new(shared) }
    }

    /// Takes a span if there is room for it.
    pub(super) fn take(&self, record: Record) {
        self.shared.open.fetch_add(1, Ordering::AcqRel);
        if self.queue.try_send(record).is_err() {
            self.shared.settle(1, QUEUE_FULL);
        }
    }

    /// Begins to send; must be called where tasks can be spawned.
    pub(super) fn start(&self) {
        if let Some(unread) = self.unread.lock().take() {
            STARTED.lock().push(Arc::downgrade(&self.shared));
            tokio::spawn(run(unread, Arc::clone(&self.shared)));
        }
    }

    /// Waits until nothing is open any more, with no delays from now on.
    pub(super) async fn flush(&self) {
        self.shared.flush().await;
    }
}

/// Flushes every exporter of this process, for what its workers recorded after the last request.
pub(super) async fn flush_all() {
    let started: Vec<_> = STARTED.lock().iter().filter_map(Weak::upgrade).collect();
    for shared in started {
        shared.flush().await;
    }
}

/// Sends batches until the queue is closed.
async fn run(mut queue: mpsc::Receiver<Record>, shared: Arc<Shared>) {
    let mut batch = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut batch, BATCH).await > 0 {
        let full = async {
            while batch.len() < BATCH
                && let Some(record) = queue.recv().await
            {
                batch.push(record);
            }
        };
        tokio::select! {
            () = full => {}
            () = shared.pause(DELAY) => {}
        }
        while batch.len() < BATCH
            && let Ok(record) = queue.try_recv()
        {
            batch.push(record);
        }
        let outcome = if shared.send(&batch).await { EXPORTED } else { FAILED };
        shared.settle(batch.len(), outcome);
        batch.clear();
    }
}

impl Shared {
    fn settle(&self, count: usize, outcome: &str) {
        self.counters.add(&[outcome], count as u64);
        self.open.fetch_sub(count, Ordering::AcqRel);
        self.settled.notify_waiters();
    }

    async fn flush(&self) {
        self.hurry.store(true, Ordering::Release);
        self.hurried.notify_one();
        loop {
            let settled = self.settled.notified();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Waits, unless the process is about to end.
    async fn pause(&self, time: Duration) {
        if !self.hurry.load(Ordering::Acquire) {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = self.hurried.notified() => {}
            }
        }
    }

    /// Sends one batch, again where the protocol says so; true when the collector took it.
    async fn send(&self, batch: &[Record]) -> bool {
        let body = otlp::request(&self.resource, batch);
        let mut waits = WAITS.into_iter();
        loop {
            let answer = self.client.send_json(Method::POST, PATH, &[], &body).await;
            let (again, cause) = match answer {
                Ok(answer) if answer.status.is_success() => return true,
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    (matches!(status, 429 | 502..=504), format!("the collector answered {status}"))
                }
                Err(error) => (true, crate::error::chain(&error)),
            };
            let hurry = self.hurry.load(Ordering::Acquire);
            match waits.next().filter(|_| again && !hurry) {
                Some(wait) => self.pause(wait).await,
                None => {
                    tracing::info!(cause, spans = batch.len(), "spans were not exported and are gone");
                    return false;
                }
            }
        }
    }
}
