//! The consumer of one topic in one group.
//!
//! One task does everything in turn: carry out what the group decided, fetch for a moment, let each partition's batch
//! take effect. So a partition is never given away in the middle of a batch. Where the effect keeps its position, that
//! is the truth, and what is committed to Kafka is only for tools that show the lag.

mod assigned;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::assigned::{Assigned, Pause};
use super::rebalance::{Change, Rebalances};
use super::{Producer, Settings, client};
use crate::events::{Delivered, Effect, Lag, Partition, words};
use crate::health::Check;
use crate::shutdown::Shutdown;

/// Records fetched before they take effect.
const BATCH: usize = 500;
/// Longest time of one fetch.
const FETCH: Duration = Duration::from_millis(200);
/// Time between two questions for the end of each partition.
const LAG_PERIOD: Duration = Duration::from_secs(2);
/// Longest wait for one answer of a broker.
const ANSWER: Duration = Duration::from_secs(5);

/// Where the consumer shows what it does.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its metrics.
    pub lag: Lag,
    /// Its line in `/health`.
    pub check: Check,
}

/// See the module.
pub struct Consumer<E: Effect> {
    client: Arc<StreamConsumer<Rebalances>>,
    effect: Arc<E>,
    dead: Arc<Producer>,
    topic: String,
    group: String,
    shown: Shown,
    assigned: BTreeMap<i32, Assigned<E::Event>>,
    next_look: Instant,
}

impl<E: Effect> Consumer<E> {
    /// A consumer of `topic` for `group`; dead letters go through `dead`. Connects by itself. Call it within a runtime.
    ///
    /// # Errors
    /// [`KafkaError`] when the client refuses its settings.
    pub fn new(
        settings: &Settings,
        topic: &str,
        group: &str,
        effect: Arc<E>,
        dead: Arc<Producer>,
        shown: Shown,
    ) -> Result<Self, KafkaError> {
        let (topic, group) = (settings.named(topic), settings.named(group));
        let client: StreamConsumer<Rebalances> = client::config(settings, &group)
            .set("group.id", &group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            // A killed replica is missed after this; one that hangs in a batch after the second.
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "3000")
            .set("max.poll.interval.ms", "120000")
            // A topic that is made later is found within ten seconds.
            .set("topic.metadata.refresh.interval.ms", "10000")
            // What is fetched ahead of the database stays small.
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.error.backoff.ms", "200")
            .create_with_context(Rebalances::default())?;
        client.subscribe(&[&topic])?;
        Ok(Self {
            client: Arc::new(client),
            effect,
            dead,
            topic,
            group,
            shown,
            assigned: BTreeMap::new(),
            next_look: Instant::now(),
        })
    }

    /// Consumes until `stop`; then finishes its batch, commits, and leaves the group.
    pub async fn run(mut self, stop: Shutdown) {
        self.shown.check.detail("joining the group");
        while !stop.is_draining() {
            while let Some(change) = self.client.context().next() {
                match change {
                    Change::Assigned(numbers) => self.take(&numbers).await,
                    Change::Revoked(numbers) => self.give(&numbers).await,
                }
            }
            self.fetch(&stop).await;
            let numbers: Vec<i32> = self.assigned.keys().copied().collect();
            for number in numbers {
                self.work(number).await;
            }
            self.look().await;
            self.show();
        }
        let numbers: Vec<i32> = self.assigned.keys().copied().collect();
        let lost = self.client.assignment_lost();
        self.finish(&numbers, lost).await;
        // Leaving the group waits for the brokers.
        let left = tokio::task::spawn_blocking(move || drop(self));
        if timeout(ANSWER, left).await.is_err() {
            tracing::warn!("the group was not left in time; it misses this replica after ten seconds");
        }
    }

    /// Takes over partitions: each begins where its effect ends. The group waits for one answer, also to an empty list.
    async fn take(&mut self, numbers: &[i32]) {
        let (mut offsets, mut placed, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for &number in numbers {
            let mut assigned = Assigned::new(self.partition(number));
            match self.place(&mut assigned).await {
                Ok(position) => {
                    offsets.push((number, offset_of(position)));
                    if position > 0 {
                        placed.push((number, position));
                    }
                }
                Err(why) => {
                    tracing::warn!(partition = number, why, "a partition cannot be read yet");
                    assigned.pause(why, false);
                    offsets.push((number, Offset::Beginning));
                    held.push(number);
                }
            }
            self.assigned.insert(number, assigned);
        }
        if let Err(error) = self.client.incremental_assign(&self.list(&offsets)) {
            tracing::error!(partitions = ?numbers, cause = words(&error), "partitions cannot be taken");
            self.assigned.retain(|number, _| !numbers.contains(number));
            return;
        }
        for number in held {
            self.hold(number, true);
        }
        if !placed.is_empty() {
            // What a killed replica stored without committing shows up in the lag at once.
            self.commit(&placed, CommitMode::Async).await;
        }
        tracing::info!(partitions = ?numbers, "partitions are ours");
    }

    /// Gives partitions away, as the group wants it.
    async fn give(&mut self, numbers: &[i32]) {
        let lost = self.client.assignment_lost();
        self.finish(numbers, lost).await;
        if let Err(error) = self.client.incremental_unassign(&self.named(numbers)) {
            tracing::warn!(cause = words(&error), "partitions were not given away");
        }
        tracing::info!(partitions = ?numbers, lost, "partitions are given away");
    }

    /// Lets what was fetched of partitions take effect, tells Kafka, and forgets them. Of what the group already gave
    /// to others nothing more is done.
    async fn finish(&mut self, numbers: &[i32], lost: bool) {
        let mut positions = Vec::new();
        for &number in numbers {
            if !lost && self.assigned.get(&number).is_some_and(|assigned| assigned.pause.is_none()) {
                self.work(number).await;
            }
            if let Some(assigned) = self.assigned.remove(&number) {
                positions.extend(assigned.position.filter(|p| *p > 0).map(|position| (number, position)));
                self.shown.lag.forget(&assigned.partition);
            }
        }
        if !lost && !positions.is_empty() {
            self.commit(&positions, CommitMode::Sync).await;
        }
    }

    /// The position at which a partition goes on.
    async fn place(&self, assigned: &mut Assigned<E::Event>) -> Result<u64, String> {
        let stored = self.effect.position(&assigned.partition).await.map_err(|error| words(&error))?;
        let (low, high) = self.ends(&assigned.partition).await?;
        let position = match stored {
            Some(position) => position,
            None => self.committed(&assigned.partition).await?.unwrap_or(low),
        };
        if position > high {
            return Err(format!(
                "its position is {position}, but it ends at {high}: was the topic made anew? Remove the position to \
                 read it from the beginning"
            ));
        }
        if position < low && position > 0 {
            tracing::error!(
                partition = assigned.partition.number,
                position,
                low,
                "events were removed from the topic before they were read"
            );
        }
        assigned.position = Some(position);
        assigned.high = high;
        Ok(position)
    }

    /// The first offset of a partition and the one behind its last record.
    async fn ends(&self, partition: &Partition) -> Result<(u64, u64), String> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        let asked =
            tokio::task::spawn_blocking(move || client.fetch_watermarks(&topic, number, ANSWER)).await;
        match asked {
            Ok(Ok((low, high))) => Ok((low.max(0).unsigned_abs(), high.max(0).unsigned_abs())),
            Ok(Err(error)) => Err(format!("its end is unknown: {error}")),
            Err(_) => Err("its end was not asked for: the process is ending".to_owned()),
        }
    }

    /// The group's offset in Kafka.
    async fn committed(&self, partition: &Partition) -> Result<Option<u64>, String> {
        let client = Arc::clone(&self.client);
        let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
        let list = self.named(&[number]);
        let asked = tokio::task::spawn_blocking(move || client.committed_offsets(list, ANSWER)).await;
        match asked {
            Ok(Ok(list)) => Ok(list.elements().iter().find_map(|element| match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            })),
            Ok(Err(error)) => Err(format!("the group's offset is unknown: {error}")),
            Err(_) => Err("the group's offset was not asked for: the process is ending".to_owned()),
        }
    }

    /// Collects records until there are enough, the moment is over, or the group wants something.
    async fn fetch(&mut self, stop: &Shutdown) {
        let end = sleep_until(Instant::now() + FETCH);
        tokio::pin!(end);
        let client = Arc::clone(&self.client);
        let mut fetched = 0;
        while fetched < BATCH && client.context().is_empty() {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                () = client.context().changed.notified() => return,
                received = client.recv() => match received {
                    Ok(message) => {
                        let Some(assigned) = self.assigned.get_mut(&message.partition()) else { continue };
                        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                        assigned.fetched(Delivered {
                            position: message.offset().max(0).unsigned_abs() + 1,
                            key: message.key().unwrap_or_default().to_vec(),
                            payload: message.payload().unwrap_or_default().to_vec(),
                            headers: headers
                                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                                .collect(),
                        });
                        fetched += 1;
                        client.context().connection.up();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the consumer of Kafka reports an error");
                        sleep(FETCH).await;
                        return;
                    }
                },
                () = &mut end => return,
            }
        }
    }

    /// Asks for the end of each partition from time to time, so that the lag is right where nothing is fetched too.
    async fn look(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LAG_PERIOD;
        let partitions: Vec<Partition> = self.assigned.values().map(|one| one.partition.clone()).collect();
        for partition in partitions {
            let Ok((_, high)) = self.ends(&partition).await else { return };
            let number = i32::try_from(partition.number).unwrap_or(i32::MAX);
            if let Some(assigned) = self.assigned.get_mut(&number) {
                assigned.high = high;
            }
        }
    }

    fn show(&self) {
        let mut behind = 0;
        let mut held = Vec::new();
        for assigned in self.assigned.values() {
            self.shown.lag.show(&assigned.partition, assigned.behind());
            let stopped = assigned.pause.as_ref().is_some_and(|pause| pause.stopped);
            self.shown.lag.stopped(&assigned.partition, stopped);
            behind += assigned.behind();
            if let Some(Pause { why, .. }) = &assigned.pause {
                held.push(format!("partition {} waits: {why}", assigned.partition.number));
            }
        }
        if self.client.context().connection.is_down() {
            held.push("no broker of Kafka can be reached".to_owned());
        }
        if held.is_empty() {
            self.shown.check.good();
            let numbers: Vec<String> = self.assigned.keys().map(i32::to_string).collect();
            self.shown.check.detail(match numbers.as_slice() {
                [] => "has no partition of the group".to_owned(),
                numbers => format!("has partitions {}, {behind} behind", numbers.join(", ")),
            });
        } else {
            self.shown.check.failing(held.join("; "));
        }
    }

    /// Tells Kafka where the group is.
    async fn commit(&self, positions: &[(i32, u64)], mode: CommitMode) {
        let offsets: Vec<_> = positions.iter().map(|(number, at)| (*number, offset_of(*at))).collect();
        let list = self.list(&offsets);
        let committed = match mode {
            CommitMode::Async => self.client.commit(&list, mode),
            CommitMode::Sync => {
                let client = Arc::clone(&self.client);
                let asked = tokio::task::spawn_blocking(move || client.commit(&list, mode));
                match timeout(ANSWER, asked).await {
                    Ok(Ok(committed)) => committed,
                    _ => Err(KafkaError::Canceled),
                }
            }
        };
        if let Err(error) = committed {
            tracing::debug!(cause = words(&error), "the offsets were not committed to Kafka");
        }
    }

    /// Stops or goes on fetching a partition.
    fn hold(&self, number: i32, held: bool) {
        let list = self.named(&[number]);
        let done = if held { self.client.pause(&list) } else { self.client.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(
                partition = number,
                held,
                cause = words(&error),
                "a partition is not held or let go"
            );
        }
    }

    /// Fetches a partition from another position on.
    async fn seek(&self, number: i32, position: u64) -> Result<(), String> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        let offset = offset_of(position);
        let asked = tokio::task::spawn_blocking(move || client.seek(&topic, number, offset, ANSWER)).await;
        match asked {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("it cannot be read from position {position}: {error}")),
            Err(_) => Err("it was not read: the process is ending".to_owned()),
        }
    }

    fn partition(&self, number: i32) -> Partition {
        let number = number.max(0).unsigned_abs();
        Partition { topic: self.topic.clone(), number, group: self.group.clone() }
    }

    fn named(&self, numbers: &[i32]) -> TopicPartitionList {
        let offsets: Vec<_> = numbers.iter().map(|number| (*number, Offset::Invalid)).collect();
        self.list(&offsets)
    }

    fn list(&self, offsets: &[(i32, Offset)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (number, offset) in offsets {
            let mut element = list.add_partition(&self.topic, *number);
            if let Err(error) = element.set_offset(*offset) {
                tracing::error!(%error, partition = number, "an offset cannot be set");
            }
        }
        list
    }
}

/// Also where the task is cut off: what the group still waits for is answered, else the client could not leave it.
impl<E: Effect> Drop for Consumer<E> {
    fn drop(&mut self) {
        self.client.context().close();
        while let Some(change) = self.client.context().next() {
            let answered = match change {
                Change::Assigned(numbers) => self.client.incremental_assign(&self.named(&numbers)),
                Change::Revoked(numbers) => self.client.incremental_unassign(&self.named(&numbers)),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "the group was not answered while leaving it");
            }
        }
    }
}

/// The offset to read next; the beginning may have moved on since.
fn offset_of(position: u64) -> Offset {
    match i64::try_from(position) {
        Ok(0) => Offset::Beginning,
        Ok(offset) => Offset::Offset(offset),
        Err(_) => Offset::End,
    }
}
