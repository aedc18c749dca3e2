//! Topics that must be there.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::{Settings, client};

/// How long the brokers may take to tell what they have.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// How long making a topic may take.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which of `topics` are missing. Blocks; asks for all topics, since asking for one may make it.
pub(super) fn missing<C: ClientContext>(
    client: &Client<C>,
    topics: &[String],
) -> Result<Vec<String>, KafkaError> {
    let metadata = client.fetch_metadata(None, METADATA_TIMEOUT)?;
    let is_there = |name: &String| {
        metadata.topics().iter().any(|topic| topic.name() == name && topic.error().is_none_or(is_passing))
    };
    Ok(topics.iter().filter(|name| !is_there(name)).cloned().collect())
}

/// A topic without a leader for a moment is there all the same.
fn is_passing(error: RDKafkaRespErr) -> bool {
    error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
}

/// Makes topics; one that somebody else made meanwhile is fine. Replicas are as many as the brokers make by default.
pub(super) async fn create(settings: &Settings, topics: &[String]) -> Result<(), KafkaError> {
    let admin: AdminClient<_> = client::config(settings, "topics").create()?;
    let options =
        AdminOptions::new().request_timeout(Some(CREATE_TIMEOUT)).operation_timeout(Some(CREATE_TIMEOUT));
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|name| {
            let partitions = if name.ends_with(".dead") { 1 } else { i32::from(settings.partitions) };
            NewTopic::new(name, partitions, TopicReplication::Fixed(-1))
        })
        .collect();
    for made in admin.create_topics(&new, &options).await? {
        match made {
            Ok(topic) => tracing::info!(topic, "the topic is made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                tracing::warn!(topic, %code, "the topic cannot be made");
                return Err(KafkaError::AdminOp(code));
            }
        }
    }
    Ok(())
}
