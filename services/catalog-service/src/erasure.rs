//! Users who deleted their account: their products go too. user-service tells by the event `user.deleted`, or directly
//! for verification traffic, which leaves no event behind.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use service_kit::Clock;
use service_kit::eventlog::{EventLog, ML_EVENTS};
use service_kit::events::{Applied, Batch, Delivered, Effect, EffectError, Partition};
use service_kit::sqlite::SqliteError;
use uuid::Uuid;

use crate::product::Owner;
use crate::store::{ProductStore, StoreError};

/// The consumer group of this service.
pub const GROUP: &str = "catalog-service";
/// Events read at once.
const BATCH: usize = 500;
/// How long an erased user's inserts are refused: longer than an access token lives (15 minutes).
const REFUSED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Erasing failed; the event is read again.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The products could not be removed.
    #[error("cannot erase a user's products")]
    Store(#[from] StoreError),
    /// The log could not be read.
    #[error("cannot read the event log")]
    Log(#[from] SqliteError),
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    event_type: String,
    tenant: String,
    user_id: Uuid,
}

/// Removes everything that a deleted user has here, and refuses what still comes for it.
///
/// # Errors
/// [`StoreError`]; nothing is removed then.
pub async fn erase(store: &dyn ProductStore, owner: &Owner, now: Timestamp) -> Result<(), StoreError> {
    let until = now.saturating_add(REFUSED_FOR).unwrap_or(Timestamp::MAX);
    let products = store.erase(owner, until).await?;
    tracing::info!(user_id = %owner.user_id, products, "a deleted user's products are erased");
    Ok(())
}

/// Follows the embedded event log for deleted users.
pub struct Erasure {
    store: Arc<dyn ProductStore>,
    log: EventLog,
}

impl Erasure {
    /// An erasure of `store` that follows `log`.
    #[must_use]
    pub fn new(store: Arc<dyn ProductStore>, log: EventLog) -> Self {
        Self { store, log }
    }

    /// Handles every event that came since the last call, in any process of this service. Handling one twice is
    /// harmless, so the offset is stored after the effect.
    ///
    /// # Errors
    /// [`ErasureError`]; the events from the failed one on are read again by the next call.
    pub async fn catch_up(&self, now: Timestamp) -> Result<(), ErasureError> {
        loop {
            let done = self.log.committed(GROUP, ML_EVENTS).await?;
            let records = self.log.read(ML_EVENTS, done, BATCH).await?;
            let Some(last) = records.last().map(|record| record.offset) else { return Ok(()) };
            for record in &records {
                // What has no envelope says nothing about a user; analytics-service keeps it as a dead letter.
                let Ok(envelope) = Envelope::deserialize(&record.payload) else { continue };
                if envelope.event_type == "user.deleted" {
                    let owner = Owner { tenant: envelope.tenant, user_id: envelope.user_id };
                    erase(&*self.store, &owner, now).await?;
                }
            }
            self.log.commit(GROUP, ML_EVENTS, last).await?;
        }
    }
}

/// Erasing as the effect of events that come from Kafka. It keeps no position of its own: erasing twice is harmless, so
/// the group's offset, committed after the effect, is enough.
pub struct Erasing {
    store: Arc<dyn ProductStore>,
    clock: Clock,
}

impl Erasing {
    /// Erases from `store`.
    #[must_use]
    pub fn new(store: Arc<dyn ProductStore>, clock: Clock) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Effect for Erasing {
    /// The user to erase, if the event is about one.
    type Event = Option<Owner>;

    fn read(&self, record: &Delivered) -> Result<Self::Event, String> {
        // What has no envelope says nothing about a user; analytics-service keeps it as a dead letter.
        let envelope = serde_json::from_slice::<Envelope>(&record.payload).ok();
        let deleted = envelope.filter(|envelope| envelope.event_type == "user.deleted");
        Ok(deleted.map(|envelope| Owner { tenant: envelope.tenant, user_id: envelope.user_id }))
    }

    async fn position(&self, _: &Partition) -> Result<Option<u64>, EffectError> {
        Ok(None)
    }

    async fn apply(&self, batch: Batch<Self::Event>) -> Result<Applied, EffectError> {
        let now = self.clock.now();
        for owner in batch.records.into_iter().filter_map(|(_, event)| event.ok().flatten()) {
            // An erasure is never put aside as a dead letter: whatever is wrong with the store, it is tried again.
            erase(&*self.store, &owner, now).await.map_err(|error| EffectError::Unavailable(error.into()))?;
        }
        Ok(Applied::Done)
    }
}
