//! Notifications from MercadoLibre: stored first, acknowledged at once, worked in by a task of this process.
//!
//! A notification is a pointer. Its resource is read by grammar and fetched from the fixed base; it is never an
//! address to go to. Nothing in it is believed beyond "look at this item of this account".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::trace::{self, Kind};
use service_kit::{Clock, Shutdown};
use tokio::sync::Notify;

use crate::error::Error;
use crate::items::{Items, version_of};
use crate::limiter::Lane;
use crate::metrics::Metrics;
use crate::ml::{Group, ItemId, MlError, Request, Session};
use crate::publish::{CatalogError, Owner, Publisher, Source};
use crate::store::{Claimed, Millis, Notification, Settled, Store, StoreError};

/// Topics that MercadoLibre has; anything else is no notification of its.
const TOPICS: [&str; 14] = [
    "items",
    "items_prices",
    "orders_v2",
    "questions",
    "payments",
    "messages",
    "shipments",
    "post_purchase",
    "public_offers",
    "public_candidates",
    "stock-locations",
    "price_suggestion",
    "catalog_item_competition_status",
    "invoices",
];
/// The one topic that is worked in; the others are kept for the record.
const WORKED: &str = "items";
/// MercadoLibre waits half a second for the word that a notification is stored, then sends it again and in the end
/// switches the topic off: a database that hangs has to be told of while there is time to say so.
const RECEIVE_WITHIN: Duration = Duration::from_millis(350);
const BATCH: usize = 20;
/// How often the worker looks without being woken: for retries and for what another process left behind.
const LOOK: Duration = Duration::from_secs(1);
/// A batch whose worker died is taken up again after this.
const LEASE_MS: Millis = 120_000;
/// Tries of a notification before it is put aside.
const ATTEMPTS: u32 = 10;

/// What MercadoLibre posts; unknown fields are kept in the stored text only.
#[derive(Debug, Deserialize)]
struct Incoming {
    #[serde(alias = "_id")]
    id: String,
    resource: String,
    user_id: u64,
    topic: String,
    application_id: Value,
}

/// Why a notification was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no notification of MercadoLibre's form.
    Form,
    /// It is for another application, an unknown account, or of an unknown topic.
    NotOurs,
}

/// See the module.
pub struct Inbox {
    store: Arc<dyn Store>,
    session: Session,
    items: Arc<Items>,
    publisher: Arc<Publisher>,
    clock: Clock,
    metrics: Metrics,
    wake: Notify,
}

impl Inbox {
    /// Over these parts.
    pub fn new(
        store: Arc<dyn Store>,
        session: Session,
        items: Arc<Items>,
        publisher: Arc<Publisher>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self { store, session, items, publisher, clock, metrics, wake: Notify::new() }
    }

    /// Stores a notification. `Ok(Err(_))` is one that is not wanted: acknowledged all the same, or MercadoLibre would
    /// send it again and in the end switch the topic off.
    ///
    /// # Errors
    /// When it was not stored: MercadoLibre must send it again.
    pub async fn receive(&self, body: &[u8]) -> Result<Result<(), Refusal>, Error> {
        match tokio::time::timeout(RECEIVE_WITHIN, self.take(body)).await {
            Ok(taken) => taken,
            Err(late) => {
                let operation = "store the notification";
                Err(StoreError { operation, busy: true, source: late.into() }.into())
            }
        }
    }

    async fn take(&self, body: &[u8]) -> Result<Result<(), Refusal>, Error> {
        let refuse = |refusal| {
            self.metrics.notifications.inc(&["refused"]);
            Ok(Err(refusal))
        };
        let Ok(incoming) = serde_json::from_slice::<Incoming>(body) else { return refuse(Refusal::Form) };
        let Ok(payload) = std::str::from_utf8(body) else { return refuse(Refusal::Form) };
        if incoming.id.is_empty() || incoming.id.len() > 200 {
            return refuse(Refusal::Form);
        }
        // The application's id is a number in some topics and text in others.
        let application = match &incoming.application_id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let ours = application == self.session.client().credentials().client_id;
        if !ours || !TOPICS.contains(&incoming.topic.as_str()) {
            return refuse(Refusal::NotOurs);
        }
        if self.store.account_of_ml_user(incoming.user_id).await?.is_none() {
            return refuse(Refusal::NotOurs);
        }
        let work = incoming.topic == WORKED;
        let notification = Notification {
            id: incoming.id,
            topic: incoming.topic,
            resource: incoming.resource,
            ml_user_id: incoming.user_id,
            payload: payload.to_owned(),
            received_at: self.now(),
        };
        let new = self.store.receive(notification, work).await?;
        self.metrics.notifications.inc(&[if new { "stored" } else { "duplicate" }]);
        if new && work {
            self.wake.notify_one();
        }
        Ok(Ok(()))
    }

    /// Works notifications in, from when the tables are there until the drain.
    pub async fn run(&self, shutdown: &Shutdown) {
        while self.store.migrated().await.is_err() {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.draining() => return,
            }
        }
        loop {
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.draining() => return,
            }
            while !shutdown.is_draining() {
                match self.work().await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the inbox was not worked in"
                        );
                        break;
                    }
                }
            }
        }
    }

    /// Works one batch in; how many notifications it held.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn work(&self) -> Result<usize, Error> {
        let now = self.now();
        let claimed = self.store.claim_due(now, now + LEASE_MS, BATCH).await?;
        let count = claimed.len();
        // Several notifications of one item need one look.
        let mut subjects: BTreeMap<(u64, String), Vec<Claimed>> = BTreeMap::new();
        for one in claimed {
            let subject = (one.notification.ml_user_id, one.notification.resource.clone());
            subjects.entry(subject).or_default().push(one);
        }
        for ((ml_user_id, resource), group) in subjects {
            let attempt = group.iter().map(|one| one.attempt).max().unwrap_or(1);
            let received = group.iter().map(|one| one.notification.received_at).max().unwrap_or(now);
            let span = trace::open("take in a notification", Kind::Consumer);
            let settled = match trace::work(span, self.take_in(ml_user_id, &resource, received)).await {
                Ok(()) => Settled::Done,
                // That MercadoLibre could not be asked for now says nothing about the notification: it waits as long as
                // it was told, however often that is.
                Err(error)
                    if error.is_transient() && (attempt < ATTEMPTS || error.retry_after().is_some()) =>
                {
                    let wait = error.retry_after().unwrap_or(Duration::from_secs(1 << attempt.min(9)));
                    let wait = wait.max(Duration::from_secs(1));
                    let wait = Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX / 2);
                    Settled::Later(self.now() + wait, error.to_string())
                }
                Err(error) => Settled::Dead(error.to_string()),
            };
            let outcome = match &settled {
                Settled::Done => "done",
                Settled::Later(..) => "retried",
                Settled::Dead(reason) => {
                    tracing::error!(ml_user_id, resource, reason, "a notification was put aside");
                    "dead"
                }
            };
            self.metrics.notifications.add(&[outcome], group.len() as u64);
            self.store.settle(group.into_iter().map(|one| one.notification.id).collect(), settled).await?;
        }
        Ok(count)
    }

    async fn take_in(&self, ml_user_id: u64, resource: &str, received: Millis) -> Result<(), Error> {
        // Disconnected since: nothing to do, nobody to do it for.
        let Some(account) = self.store.account_of_ml_user(ml_user_id).await? else { return Ok(()) };
        let Ok(id) = ItemId::of_resource(resource) else {
            return Err(MlError::Unreadable { expected: "a resource of the form /items/{id}" }.into());
        };
        self.items.forget(ml_user_id, &id).await;
        let request = Request::get(Group::Items, format!("/items/{id}"), account.user_id, Lane::Critical);
        let item = match self.session.send(&request).await {
            Ok(answer) => answer.body,
            // Gone: a tombstone, dated by the notification, so that an older copy does not bring it back.
            Err(Error::Ml(MlError::Refused { status: 404, .. })) => {
                let at = jiff::Timestamp::from_millisecond(received).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                json!({ "id": id.as_str(), "deleted": true, "last_updated": at.to_string() })
            }
            // Connected again or not at all: the sync that follows a new connection brings the item.
            Err(Error::NotConnected) => return Ok(()),
            Err(error) => return Err(error),
        };
        let owner = Owner { tenant: &account.tenant, user_id: account.user_id };
        let run = version_of(&item);
        match self.publisher.items(owner, Source::Webhook, &run, &[item], "").await {
            // The user left and the account goes too, a moment later: nobody to do it for.
            Err(Error::Catalog(CatalogError::AccountDeleted)) => Ok(()),
            done => done,
        }
    }

    fn now(&self) -> Millis {
        self.clock.now().as_millisecond()
    }
}
