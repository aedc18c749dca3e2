//! What the group tells a consumer, put in a queue: the consumer carries it out between two batches, where it can ask
//! its database. Until then the group waits, and so nobody else has the partition yet.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::client::Connection;

/// One change of the assignment, in partitions of the one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// These are ours, once we say so.
    Assigned(Vec<i32>),
    /// These are wanted by others.
    Revoked(Vec<i32>),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Rebalances {
    changes: Mutex<VecDeque<Change>>,
    /// There is something in the queue.
    pub(super) changed: Notify,
    pub(super) connection: Connection,
    closing: AtomicBool,
}

impl Rebalances {
    pub(super) fn next(&self) -> Option<Change> {
        self.changes.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.lock().is_empty()
    }

    /// From now on nobody reads the queue: changes are carried out at once, so that the client can leave the group.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.error(error, reason);
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let done = match (assigned, consumer.rebalance_protocol()) {
                (true, RebalanceProtocol::Cooperative) => consumer.incremental_assign(partitions),
                (true, _) => consumer.assign(partitions),
                (false, RebalanceProtocol::Cooperative) => consumer.incremental_unassign(partitions),
                (false, _) => consumer.unassign(),
            };
            // The group has to be answered one way or the other, or it is never left.
            if let Err(error) = done.or_else(|_| consumer.unassign()) {
                tracing::debug!(%error, "the assignment was not given back while leaving the group");
            }
            return;
        }
        let numbers = partitions.elements().iter().map(|element| element.partition()).collect();
        let change = if assigned { Change::Assigned(numbers) } else { Change::Revoked(numbers) };
        self.changes.lock().push_back(change);
        self.changed.notify_one();
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Only tools that show the lag read these offsets; the next commit brings them up to date.
            tracing::debug!(%error, "the offsets were not committed to Kafka");
        }
    }
}
