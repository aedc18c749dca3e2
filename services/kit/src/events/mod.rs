//! The system's events, whoever keeps them: the embedded log or Kafka. Services publish through [`Publish`] and, where
//! they consume from Kafka, give their effect as an [`Effect`].
//!
//! A **position** says how many places of a partition are behind a consumer. The embedded log numbers its records from
//! 1, so there it is the offset of the last record read; Kafka numbers from 0, so there it is the offset to read next.
//! In both 0 means the beginning, and positions only grow.

mod effect;
mod lag;

pub use effect::{Applied, Batch, DeadLetter, Delivered, Effect, EffectError, Partition};
pub use lag::Lag;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::config::Place;
use crate::eventlog::{EventLog, NewRecord};
use crate::health::{Health, Kind};
use crate::kafka::{self, KafkaError, Producer};
use crate::pools::ConnectionPool;
use crate::shutdown::Shutdown;
use crate::sqlite::SqliteError;
use crate::{Identity, error};

/// Time between two looks at the log.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Events were not published, or not all of them: the same call may be repeated, since readers know events by their id.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The log is out of reach, full or busy: trying again later can help.
    #[error("the event log is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log will never take this event.
    #[error("the event log refuses the event")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl PublishError {
    /// True when the same events may be taken later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Where events go.
#[async_trait]
pub trait Publish: Send + Sync + 'static {
    /// Appends events of one key to a topic, in their order. The log has all of them when this answers; after an error
    /// it may have some. Never waits longer than a request can.
    ///
    /// # Errors
    /// [`PublishError`].
    async fn publish(&self, topic: &str, key: &str, records: Vec<NewRecord>) -> Result<(), PublishError>;

    /// Whether the log can be written now, in words for `/health`.
    ///
    /// # Errors
    /// What is missing.
    async fn reachable(&self) -> Result<(), String>;

    /// Sends what is still under way, before the process ends.
    async fn flush(&self);
}

#[async_trait]
impl Publish for EventLog {
    async fn publish(&self, topic: &str, key: &str, records: Vec<NewRecord>) -> Result<(), PublishError> {
        match self.append(topic, key, records).await {
            Ok(_offset) => Ok(()),
            Err(error @ SqliteError::Corrupt { .. }) => Err(PublishError::Refused(error.into())),
            Err(error) => Err(PublishError::Unavailable(error.into())),
        }
    }

    async fn reachable(&self) -> Result<(), String> {
        self.pool().is_reachable().await
    }

    async fn flush(&self) {}
}

/// The event log cannot be used at all; a server that is away is no such error.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The embedded log.
    #[error("cannot open the embedded event log")]
    Embedded(#[from] SqliteError),
    /// The client of Kafka.
    #[error("cannot set up the client of Kafka")]
    Kafka(#[from] KafkaError),
}

/// The event log of one process.
#[derive(Clone)]
pub enum Events {
    /// Under `EMBEDDED_DIR`.
    Embedded(EventLog),
    /// On the brokers of `KAFKA_BROKERS`.
    Kafka(kafka::Settings, Arc<Producer>),
}

impl Events {
    /// Opens the log. Kafka need not answer yet.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        place: &Place<kafka::Settings>,
        identity: Identity,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        match place {
            Place::Embedded(folder) => Ok(Self::Embedded(EventLog::open(folder, clock).await?)),
            Place::Server(settings) => {
                let producer = Producer::new(settings, identity.name)?;
                Ok(Self::Kafka(settings.clone(), Arc::new(producer)))
            }
        }
    }

    /// What events are published through.
    #[must_use]
    pub fn publisher(&self) -> Arc<dyn Publish> {
        match self {
            Self::Embedded(log) => Arc::new(log.clone()),
            Self::Kafka(_, producer) => Arc::clone(producer) as Arc<dyn Publish>,
        }
    }

    /// The pool behind the embedded log, for the metrics. Kafka's client has no pool.
    #[must_use]
    pub fn pool(&self) -> Option<&dyn ConnectionPool> {
        match self {
            Self::Embedded(log) => Some(log.pool()),
            Self::Kafka(..) => None,
        }
    }

    /// Shows in `/health` whether the log can be written; it decides nothing, since events wait where they are made.
    pub fn watch(&self, health: &Health, shutdown: &Shutdown) {
        let publisher = self.publisher();
        health.watch("kafka", Kind::Info, CHECK_PERIOD, shutdown, move || {
            let publisher = Arc::clone(&publisher);
            async move { publisher.reachable().await }
        });
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Embedded(_) => "Events::Embedded",
            Self::Kafka(..) => "Events::Kafka",
        })
    }
}

/// The words of an error and its causes, for health checks.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    error::chain(error)
}
