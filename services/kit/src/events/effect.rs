//! What a service does with events, apart from how it comes by them.

use std::collections::BTreeMap;

use async_trait::async_trait;

/// One partition as read by one consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// The partition of the topic.
    pub number: u32,
    /// The consumer group.
    pub group: String,
}

/// One record as it was delivered; nothing of it is trusted yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The position behind it: see the module.
    pub position: u64,
    /// The event's key.
    pub key: Vec<u8>,
    /// Its bytes, JSON if all is well.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: BTreeMap<String, Vec<u8>>,
}

/// A record that has no effect, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why.
    pub reason: String,
    /// Its beginning, as text.
    pub payload: String,
}

/// Records to take effect together.
#[derive(Clone, Debug)]
pub struct Batch<E> {
    /// Where they come from.
    pub partition: Partition,
    /// The position they were read after.
    pub after: u64,
    /// The records with their positions, in the order of the partition, at least one.
    pub records: Vec<(u64, Result<E, DeadLetter>)>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Effect and position are stored.
    Done,
    /// Another consumer moved the position in between: nothing was stored.
    Moved,
}

/// A batch had no effect.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// Trying again can help.
    #[error("events cannot take effect now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Trying the same again cannot help.
    #[error("events were refused")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a consumer group does with its events.
#[async_trait]
pub trait Effect: Send + Sync + 'static {
    /// An event as far as the group needs it.
    type Event: Clone + Send + Sync + 'static;

    /// Reads one record.
    ///
    /// # Errors
    /// Why it can never be read: it becomes a dead letter.
    fn read(&self, record: &Delivered) -> Result<Self::Event, String>;

    /// The position stored beside the effect: 0 before the first event, `None` when the effect keeps none. Then Kafka's
    /// committed offset counts, and the effect must bear repetition.
    ///
    /// # Errors
    /// [`EffectError`].
    async fn position(&self, partition: &Partition) -> Result<Option<u64>, EffectError>;

    /// Stores the effect of a batch, its dead letters and the position behind it, or nothing at all.
    ///
    /// # Errors
    /// [`EffectError`]; nothing was stored.
    async fn apply(&self, batch: Batch<Self::Event>) -> Result<Applied, EffectError>;
}
