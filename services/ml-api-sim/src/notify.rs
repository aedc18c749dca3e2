//! Notifications: a pointer to what changed, sent to the application's one callback, tried again, then kept as missed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::ledger::{Entry, Ledger};

/// An acknowledgement later than this counts as failed, and real topics get disabled for it.
const ACK_LIMIT: Duration = Duration::from_millis(500);
/// How long a delivery waits before it gives up on an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Deliveries in flight at once.
const CONCURRENCY: usize = 16;
/// Missed notifications are kept for two days.
const MISSED_MS: i64 = 2 * 24 * 3_600_000;
/// Waiting notifications beyond this are dropped, oldest first, straight into the missed feed.
const QUEUE_LIMIT: usize = 50_000;

/// A notification's body.
#[derive(Clone, Debug, Serialize)]
pub struct Notification {
    /// Unique id; a duplicate repeats it.
    #[serde(rename = "_id")]
    pub id: String,
    /// What to GET, e.g. `/items/MLA1`.
    pub resource: String,
    /// The seller.
    pub user_id: u64,
    /// e.g. `items`.
    pub topic: String,
    /// The application it goes to.
    pub application_id: String,
    /// Which attempt this is, from 1.
    pub attempts: u32,
    /// When this attempt left.
    pub sent: String,
    /// When the change happened.
    pub received: String,
}

/// A notification that was never acknowledged.
#[derive(Clone, Debug, Serialize)]
pub struct Missed {
    /// The last attempt's body.
    #[serde(flatten)]
    pub notification: Notification,
    /// What the callback answered last; 0 when it did not.
    pub response_status: u16,
    /// The simulator's time when it was given up.
    #[serde(skip)]
    pub at_ms: i64,
}

/// How notifications are sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manner {
    /// The callback; none = nothing is sent.
    pub callback_url: Option<String>,
    /// Each is sent twice.
    pub duplicate: bool,
    /// Those that wait together leave newest first.
    pub reorder: bool,
    /// Milliseconds between the change and the first attempt.
    pub delay_ms: u64,
    /// Attempts in all; the sources say both 5 and 8.
    pub attempts: u32,
    /// Milliseconds before the second attempt; doubles from there (the default spreads 8 attempts over about an hour).
    pub retry_ms: u64,
    /// Topics that are switched off: their changes are not even kept as missed.
    pub disabled_topics: BTreeSet<String>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            callback_url: None,
            duplicate: false,
            reorder: false,
            delay_ms: 0,
            attempts: 8,
            retry_ms: 30_000,
            disabled_topics: BTreeSet::new(),
        }
    }
}

/// The queue of changes and the missed feed.
#[derive(Debug)]
pub struct Notifier {
    ledger: Arc<Ledger>,
    first_callback: Option<String>,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    manner: Manner,
    next_id: u64,
    waiting: VecDeque<Notification>,
    missed: VecDeque<Missed>,
}

/// Carries one body to the callback. A seam, so that the rules of sending are tested without a network.
pub trait Carrier: Send + Sync + 'static {
    /// Posts `body` to `url`; the status, or `None` when no answer came.
    fn post(&self, url: String, body: Vec<u8>) -> impl Future<Output = Option<u16>> + Send;
}

impl Notifier {
    /// A notifier that posts to `callback`, or nowhere.
    pub fn new(ledger: Arc<Ledger>, callback: Option<String>) -> Self {
        let notifier =
            Self { ledger, first_callback: callback, state: Mutex::default(), wake: Notify::new() };
        notifier.reset();
        notifier
    }

    /// Back to the callback of the start, nothing waiting, nothing missed.
    pub fn reset(&self) {
        let manner = Manner { callback_url: self.first_callback.clone(), ..Manner::default() };
        let mut state = self.state.lock();
        *state = State { manner, next_id: state.next_id, ..State::default() };
    }

    /// Sends in another manner from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.state.lock().manner = manner;
    }

    /// The manner in force.
    pub fn manner(&self) -> Manner {
        self.state.lock().manner.clone()
    }

    /// An item of `seller` changed.
    pub fn item_changed(&self, seller: u64, application: &str, item: &str, now_ms: i64) {
        let mut state = self.state.lock();
        if state.manner.callback_url.is_none() || state.manner.disabled_topics.contains("items") {
            return;
        }
        state.next_id += 1;
        let id = format!("sim-{:08}", state.next_id);
        let received = clock::text(now_ms);
        state.waiting.push_back(Notification {
            id,
            resource: format!("/items/{item}"),
            user_id: seller,
            topic: "items".into(),
            application_id: application.to_owned(),
            attempts: 0,
            sent: received.clone(),
            received,
        });
        if state.waiting.len() > QUEUE_LIMIT
            && let Some(notification) = state.waiting.pop_front()
        {
            state.missed.push_back(Missed { notification, response_status: 0, at_ms: now_ms });
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Missed notifications of an application and topic, oldest first.
    pub fn missed(&self, application: &str, topic: Option<&str>, now_ms: i64) -> Vec<Missed> {
        let mut state = self.state.lock();
        state.missed.retain(|missed| now_ms - missed.at_ms < MISSED_MS);
        let of = |missed: &&Missed| {
            missed.notification.application_id == application
                && topic.is_none_or(|topic| missed.notification.topic == topic)
        };
        state.missed.iter().filter(of).cloned().collect()
    }

    /// Sends what waits, until the future is dropped. `now_ms` is the simulator's time.
    pub async fn run<C: Carrier>(
        self: Arc<Self>,
        carrier: Arc<C>,
        now_ms: impl Fn() -> i64 + Clone + Send + Sync + 'static,
    ) {
        let slots = Arc::new(Semaphore::new(CONCURRENCY));
        let mut flights = JoinSet::new();
        loop {
            self.wake.notified().await;
            let delay = Duration::from_millis(self.state.lock().manner.delay_ms);
            tokio::time::sleep(delay).await;
            while flights.try_join_next().is_some() {}
            for notification in self.take() {
                let (this, carrier, now_ms) = (Arc::clone(&self), Arc::clone(&carrier), now_ms.clone());
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                flights.spawn(async move {
                    let first = this.attempt(&*carrier, notification, &now_ms).await;
                    // Waiting for the next attempt must not hold up others' first ones.
                    drop(slot);
                    if let Some((notification, status)) = first {
                        this.again(&*carrier, notification, status, &now_ms).await;
                    }
                });
            }
        }
    }

    fn take(&self) -> Vec<Notification> {
        let mut state = self.state.lock();
        let mut batch: Vec<Notification> = state.waiting.drain(..).collect();
        if state.manner.reorder {
            batch.reverse();
        }
        if state.manner.duplicate {
            batch = batch.into_iter().flat_map(|one| [one.clone(), one]).collect();
        }
        batch
    }

    /// One attempt; gives the notification back, with the callback's status, when it was not acknowledged in time.
    async fn attempt<C: Carrier>(
        &self,
        carrier: &C,
        mut notification: Notification,
        now_ms: &(impl Fn() -> i64 + Sync),
    ) -> Option<(Notification, u16)> {
        let url = self.manner().callback_url?;
        let at_ms = now_ms();
        notification.attempts += 1;
        notification.sent = clock::text(at_ms);
        let body = serde_json::to_vec(&notification).unwrap_or_default();
        let begun = Instant::now();
        let answer = tokio::time::timeout(ANSWER_LIMIT, carrier.post(url, body)).await;
        let status = answer.ok().flatten().unwrap_or(0);
        let took = begun.elapsed();
        let acknowledged = status == 200 && took <= ACK_LIMIT;
        self.ledger.push(Entry {
            seq: 0,
            at_ms,
            endpoint: "notification".into(),
            method: "POST".into(),
            path: notification.resource.clone(),
            client_id: Some(notification.application_id.clone()),
            seller: Some(notification.user_id),
            status,
            fault: None,
            detail: json!({
                "id": notification.id,
                "attempt": notification.attempts,
                "ack_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "acknowledged": acknowledged,
            }),
        });
        (!acknowledged).then_some((notification, status))
    }

    async fn again<C: Carrier>(
        &self,
        carrier: &C,
        mut notification: Notification,
        mut status: u16,
        now_ms: &(impl Fn() -> i64 + Sync),
    ) {
        loop {
            let manner = self.manner();
            if notification.attempts >= manner.attempts {
                break;
            }
            let doublings = notification.attempts.saturating_sub(1).min(16);
            tokio::time::sleep(Duration::from_millis(manner.retry_ms.saturating_mul(1 << doublings))).await;
            match self.attempt(carrier, notification, now_ms).await {
                None => return,
                Some((unacknowledged, last)) => (notification, status) = (unacknowledged, last),
            }
        }
        self.state.lock().missed.push_back(Missed { notification, response_status: status, at_ms: now_ms() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers from a script, then 200; keeps what it was sent.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<Option<u16>>>,
        sent: Mutex<Vec<serde_json::Value>>,
    }

    impl Carrier for Script {
        async fn post(&self, _url: String, body: Vec<u8>) -> Option<u16> {
            self.sent.lock().push(serde_json::from_slice(&body).unwrap());
            self.answers.lock().pop_front().unwrap_or(Some(200))
        }
    }

    struct Post {
        notifier: Arc<Notifier>,
        ledger: Arc<Ledger>,
        script: Arc<Script>,
    }

    /// Sends three changes in this manner and waits (on the paused clock) until nothing more happens.
    async fn three_changes(manner: Manner, answers: &[Option<u16>]) -> Post {
        let ledger = Arc::new(Ledger::default());
        let notifier = Arc::new(Notifier::new(Arc::clone(&ledger), None));
        notifier.set_manner(Manner { callback_url: Some("http://127.0.0.1/hook".into()), ..manner });
        let script =
            Arc::new(Script { answers: Mutex::new(answers.iter().copied().collect()), ..Script::default() });
        for item in ["MLA1", "MLA2", "MLA3"] {
            notifier.item_changed(7, "app", item, 0);
        }
        let running = Arc::clone(&notifier).run(Arc::clone(&script), || 1_000);
        assert!(tokio::time::timeout(Duration::from_secs(4 * 3600), running).await.is_err());
        Post { notifier, ledger, script }
    }

    fn resources(post: &Post) -> Vec<String> {
        post.script.sent.lock().iter().map(|body| body["resource"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_sent_once_and_acknowledged() {
        let post = three_changes(Manner::default(), &[]).await;
        assert_eq!(resources(&post), ["/items/MLA1", "/items/MLA2", "/items/MLA3"]);
        assert!(post.ledger.read(0, 9).iter().all(|entry| entry.detail["acknowledged"] == true));
        assert!(post.notifier.missed("app", None, 1_000).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn duplicates_and_disorder_are_sent_when_asked_for() {
        let post = three_changes(Manner { duplicate: true, reorder: true, ..Manner::default() }, &[]).await;
        let expected =
            ["/items/MLA3", "/items/MLA3", "/items/MLA2", "/items/MLA2", "/items/MLA1", "/items/MLA1"];
        assert_eq!(resources(&post), expected);
        let sent = post.script.sent.lock();
        assert_eq!(sent[0]["_id"], sent[1]["_id"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unacknowledged_one_is_tried_again_and_then_missed_for_two_days() {
        let post = three_changes(
            Manner { attempts: 3, ..Manner::default() },
            &[Some(500), Some(200), Some(200), None, Some(503)],
        )
        .await;
        assert_eq!(post.script.sent.lock().len(), 5);
        let missed = post.notifier.missed("app", Some("items"), 1_000);
        assert_eq!(missed.len(), 1);
        assert_eq!((missed[0].notification.attempts, missed[0].response_status), (3, 503));
        assert!(post.notifier.missed("other", None, 1_000).is_empty());
        assert!(post.notifier.missed("app", None, 1_000 + MISSED_MS).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_disabled_topic_is_neither_sent_nor_missed() {
        let disabled_topics = BTreeSet::from(["items".to_owned()]);
        let post = three_changes(Manner { disabled_topics, ..Manner::default() }, &[]).await;
        assert!(post.script.sent.lock().is_empty());
        assert!(post.notifier.missed("app", None, 1_000).is_empty());
    }
}
