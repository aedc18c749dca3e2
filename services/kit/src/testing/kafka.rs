//! What tests ask a real Kafka, apart from the code that they test.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::Failure;
use super::servers::{KAFKA, address};
use crate::kafka::Settings;

/// Longest answer of the broker.
const ANSWER: Duration = Duration::from_secs(15);

/// A cluster of one's own: the brokers of the environment with a prefix that nobody else has. No topic is there yet.
#[must_use]
pub fn cluster() -> Settings {
    let mut settings = Settings::new(address(KAFKA));
    settings.prefix = format!("t{}-", Uuid::new_v4().simple());
    settings
}

/// Makes a topic, named as in the cluster.
///
/// # Errors
/// What the broker refused.
pub async fn create(settings: &Settings, topic: &str, partitions: i32) -> Result<(), Failure> {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &settings.brokers).create()?;
    let options = AdminOptions::new().operation_timeout(Some(ANSWER)).request_timeout(Some(ANSWER));
    let name = settings.named(topic);
    let made = admin
        .create_topics(&[NewTopic::new(&name, partitions, TopicReplication::Fixed(1))], &options)
        .await?;
    for topic in made {
        topic.map_err(|(topic, code)| format!("{topic}: {code}"))?;
    }
    Ok(())
}

/// One record as the topic has it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub payload: Vec<u8>,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
}

/// Everything that a topic has, from the beginning, partition by partition. Blocks.
///
/// # Errors
/// What the broker refused.
pub fn read_all(settings: &Settings, topic: &str) -> Result<Vec<Found>, Failure> {
    let name = settings.named(topic);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut found = Vec::new();
    for (partition, (low, high)) in ends(&consumer, &name)? {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, partition, Offset::Beginning)?;
        consumer.assign(&list)?;
        let limit = Instant::now() + ANSWER;
        let mut next = low;
        while next < high {
            if Instant::now() > limit {
                return Err(format!("partition {partition} was not read up to {high}").into());
            }
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = message?;
            next = message.offset() + 1;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            found.push(Found {
                partition,
                offset: message.offset(),
                key: text(message.key().unwrap_or_default()),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers
                    .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                    .collect(),
            });
        }
    }
    Ok(found)
}

/// The broker's own figure: by partition, what a group has not committed of a topic. Blocks.
///
/// # Errors
/// What the broker refused.
pub fn lag(settings: &Settings, group: &str, topic: &str) -> Result<BTreeMap<i32, i64>, Failure> {
    let name = settings.named(topic);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", settings.named(group))
        .create()?;
    let ends = ends(&consumer, &name)?;
    let mut list = TopicPartitionList::new();
    for partition in ends.keys() {
        list.add_partition(&name, *partition);
    }
    let committed = consumer.committed_offsets(list, ANSWER)?;
    let mut lag = BTreeMap::new();
    for element in committed.elements() {
        let (low, high) = ends[&element.partition()];
        let at = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => low,
        };
        lag.insert(element.partition(), high - at);
    }
    Ok(lag)
}

fn ends(consumer: &BaseConsumer, name: &str) -> Result<BTreeMap<i32, (i64, i64)>, Failure> {
    let metadata = consumer.fetch_metadata(Some(name), ANSWER)?;
    let topic = metadata.topics().first().ok_or("the broker knows no such topic")?;
    let mut ends = BTreeMap::new();
    for partition in topic.partitions() {
        ends.insert(partition.id(), consumer.fetch_watermarks(name, partition.id(), ANSWER)?);
    }
    Ok(ends)
}
