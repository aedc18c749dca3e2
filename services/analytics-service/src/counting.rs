//! Counting as the effect of events that come from Kafka: the position is in the database, beside the counts.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use service_kit::Clock;
use service_kit::events::{self, Applied, Delivered, Effect, EffectError};

use crate::event::Event;
use crate::metrics::ConsumerMetrics;
use crate::store::{self, AnalyticsStore, Batch, DeadLetter, Partition, Record, StoreError};

/// See the module.
pub struct Counting {
    store: Arc<dyn AnalyticsStore>,
    clock: Clock,
    metrics: ConsumerMetrics,
}

impl Counting {
    /// Counts into `store`.
    #[must_use]
    pub fn new(store: Arc<dyn AnalyticsStore>, clock: Clock, metrics: ConsumerMetrics) -> Self {
        Self { store, clock, metrics }
    }
}

#[async_trait]
impl Effect for Counting {
    type Event = Event;

    fn read(&self, record: &Delivered) -> Result<Event, String> {
        let payload: Value =
            serde_json::from_slice(&record.payload).map_err(|error| format!("it is no JSON: {error}"))?;
        Event::read(&payload).map_err(|reason| reason.to_string())
    }

    async fn position(&self, partition: &events::Partition) -> Result<Option<u64>, EffectError> {
        self.store.position(&named(partition)).await.map(Some).map_err(classify)
    }

    async fn apply(&self, batch: events::Batch<Event>) -> Result<Applied, EffectError> {
        let records = batch.records.into_iter().map(|(position, content)| Record {
            position,
            content: content.map_err(|letter| DeadLetter { reason: letter.reason, payload: letter.payload }),
        });
        let batch = Batch {
            partition: named(&batch.partition),
            after: batch.after,
            records: records.collect(),
            at: self.clock.now(),
        };
        match self.store.apply(batch).await.map_err(classify)? {
            store::Applied::Done(counts) => {
                self.metrics.count(counts);
                Ok(Applied::Done)
            }
            store::Applied::Moved => Ok(Applied::Moved),
        }
    }
}

fn named(partition: &events::Partition) -> Partition {
    let events::Partition { topic, number, group } = partition.clone();
    Partition { topic, number, group }
}

/// Missing tables are made sooner or later; only what the database refuses is the events' fault.
fn classify(error: StoreError) -> EffectError {
    match error {
        StoreError::Failed { .. } => EffectError::Refused(error.into()),
        StoreError::Unavailable { .. } | StoreError::NotMigrated { .. } => {
            EffectError::Unavailable(error.into())
        }
    }
}
