//! The producer: idempotent, acknowledged by all replicas in sync, bounded in memory and in time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use tokio::time::{Instant, timeout_at};

use super::client::{self, Connection};
use super::{Settings, dead_topic, topics};
use crate::eventlog::{ML_EVENTS, NewRecord};
use crate::events::{Publish, PublishError, words};

/// Header with the id of an event.
pub(super) const EVENT_ID: &str = "event-id";
/// How long a caller waits for the acknowledgement; the client goes on for `message.timeout.ms`.
const DEADLINE: Duration = Duration::from_secs(5);
/// The same while no broker can be reached.
const DEADLINE_DOWN: Duration = Duration::from_millis(500);
/// How long the end of the process waits for what is under way.
const FLUSH: Duration = Duration::from_secs(5);

type Client = FutureProducer<Shared>;

/// The context is read by us too.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Connection>);

impl rdkafka::ClientContext for Shared {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

/// Publishes to Kafka. Events of one key go to one partition in their order. When one event of a call fails, a later
/// one of the call may still be taken; the repetition of the whole call puts the order right.
pub struct Producer {
    settings: Settings,
    name: String,
    connection: Shared,
    client: RwLock<Client>,
}

/// No acknowledgement came in time; the event may still be taken.
#[derive(Debug, thiserror::Error)]
#[error("Kafka has not acknowledged within {} ms", .0.as_millis())]
struct Late(Duration);

impl Producer {
    /// A producer named `client`. Connects by itself when there is something to do.
    ///
    /// # Errors
    /// [`KafkaError`] when the client refuses its settings.
    pub fn new(settings: &Settings, client: &str) -> Result<Self, KafkaError> {
        let connection = Shared::default();
        let made = Self::connect(settings, client, &connection)?;
        Ok(Self {
            settings: settings.clone(),
            name: client.to_owned(),
            connection,
            client: RwLock::new(made),
        })
    }

    fn connect(settings: &Settings, client: &str, connection: &Shared) -> Result<Client, KafkaError> {
        client::config(settings, client)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "32768")
            .set("linger.ms", "2")
            .set("compression.type", "none")
            // A key is one place for every client of the system, whatever it is written in.
            .set("partitioner", "murmur2_random")
            .create_with_context(connection.clone())
    }

    /// Sends raw bytes; used for dead letters too.
    pub(super) async fn send(
        &self,
        topic: &str,
        messages: Vec<(Vec<u8>, Vec<u8>, OwnedHeaders)>,
    ) -> Result<(), PublishError> {
        let wait = if self.connection.0.is_down() { DEADLINE_DOWN } else { DEADLINE };
        let deadline = Instant::now() + wait;
        let mut under_way: Vec<DeliveryFuture> = Vec::with_capacity(messages.len());
        let mut failed = None;
        {
            let client = self.client.read();
            for (key, payload, headers) in messages {
                let record = FutureRecord::to(topic).key(&key).payload(&payload).headers(headers);
                match client.send_result(record) {
                    Ok(delivery) => under_way.push(delivery),
                    Err((error, _)) => {
                        // What would follow stays back, so that the order is kept.
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        for delivery in under_way {
            match timeout_at(deadline, delivery).await {
                Ok(Ok(Ok(_delivery))) => self.connection.0.up(),
                Ok(Ok(Err((error, _message)))) => failed = failed.or(Some(error)),
                Ok(Err(_canceled)) => failed = failed.or(Some(KafkaError::Canceled)),
                Err(_elapsed) => return Err(PublishError::Unavailable(Box::new(Late(wait)))),
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(self.classify(error)),
        }
    }

    fn classify(&self, error: KafkaError) -> PublishError {
        use RDKafkaErrorCode as Code;
        let code = error.rdkafka_error_code();
        if self.client.read().client().fatal_error().is_some() {
            self.renew();
        }
        match code {
            Some(
                Code::MessageSizeTooLarge
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::InvalidTopic
                | Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::UnsupportedForMessageFormat,
            ) => PublishError::Refused(Box::new(error)),
            _ => PublishError::Unavailable(Box::new(error)),
        }
    }

    /// An idempotent producer whose sequence broke takes nothing more; a new one begins a new sequence.
    fn renew(&self) {
        match Self::connect(&self.settings, &self.name, &self.connection) {
            Ok(made) => {
                tracing::warn!("the producer of Kafka failed for good and is made anew");
                *self.client.write() = made;
            }
            Err(error) => {
                tracing::error!(cause = words(&error), "the producer of Kafka cannot be made anew");
            }
        }
    }

    async fn missing(&self, topics: Vec<String>) -> Result<Vec<String>, String> {
        let client = self.client.read().clone();
        let asked = tokio::task::spawn_blocking(move || topics::missing(client.client(), &topics)).await;
        match asked {
            Ok(Ok(missing)) => {
                self.connection.0.up();
                Ok(missing)
            }
            Ok(Err(error)) => Err(format!("the brokers of Kafka do not answer: {}", words(&error))),
            Err(_) => Err("the brokers of Kafka were not asked: the process is ending".to_owned()),
        }
    }
}

#[async_trait]
impl Publish for Producer {
    async fn publish(&self, topic: &str, key: &str, records: Vec<NewRecord>) -> Result<(), PublishError> {
        let mut messages = Vec::with_capacity(records.len());
        for record in &records {
            let payload =
                serde_json::to_vec(&record.payload).map_err(|error| PublishError::Refused(error.into()))?;
            let mut headers =
                OwnedHeaders::new().insert(Header { key: EVENT_ID, value: Some(record.id.as_str()) });
            for (name, value) in &record.headers {
                headers = headers.insert(Header { key: name, value: Some(value.as_str()) });
            }
            messages.push((key.as_bytes().to_vec(), payload, headers));
        }
        self.send(&self.settings.named(topic), messages).await
    }

    async fn reachable(&self) -> Result<(), String> {
        let events = self.settings.named(ML_EVENTS);
        let missing = self.missing(vec![dead_topic(&events), events]).await?;
        if missing.is_empty() {
            return Ok(());
        }
        if !self.settings.create_topics {
            return Err(format!(
                "Kafka has no topic {}: make it, or let the service make it with KAFKA_CREATE_TOPICS=true",
                missing.join(" and no topic ")
            ));
        }
        topics::create(&self.settings, &missing)
            .await
            .map_err(|error| format!("cannot make the topics {}: {}", missing.join(", "), words(&error)))
    }

    async fn flush(&self) {
        let client = self.client.read().clone();
        let flushed = tokio::task::spawn_blocking(move || client.flush(FLUSH)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(
                cause = words(&error),
                "events are still under way; they stay pending where they were made"
            );
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Producer({})", self.settings.brokers)
    }
}
