//! Kafka: a producer that publishes the system's events and a consumer whose position is kept beside its effect.
//!
//! Reading order: [`Settings`], [`Producer`], [`Consumer`]. Topics are made by whoever deploys; a service looks for
//! them, says what is missing, and makes them only where `KAFKA_CREATE_TOPICS` says so.

mod client;
mod consumer;
mod producer;
mod rebalance;
mod topics;

pub use consumer::{Consumer, Shown};
pub use producer::Producer;
pub use rdkafka::error::KafkaError;

/// The topic of what has no effect, beside the topic it came from.
#[must_use]
pub fn dead_topic(topic: &str) -> String {
    format!("{topic}.dead")
}

/// Where Kafka is, and what may be made there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `KAFKA_BROKERS`: `HOST:PORT[,HOST:PORT...]`.
    pub brokers: String,
    /// `KAFKA_TOPIC_PREFIX`: stands before the names of topics and groups, so that systems can share a cluster.
    pub prefix: String,
    /// `KAFKA_CREATE_TOPICS`: whether a missing topic is made. Off by default: the number of partitions cannot be taken
    /// back, and whoever deploys decides on it.
    pub create_topics: bool,
    /// `KAFKA_TOPIC_PARTITIONS`: partitions of a topic that is made here.
    pub partitions: u16,
}

impl Settings {
    /// These brokers, which already have the topics.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), prefix: String::new(), create_topics: false, partitions: 6 }
    }

    /// A topic or group by its name in this cluster.
    #[must_use]
    pub fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}
