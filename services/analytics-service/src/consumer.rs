//! The consumer: reads the event log in batches and hands them to the store.
//!
//! One replica holds the partition at a time, by a lease in the database. The lease only saves work; that each event
//! takes effect once is kept by the store, which moves the position and the counts in one transaction.

use std::sync::Arc;
use std::time::Duration;

use service_kit::error::chain;
use service_kit::eventlog::{self, EventLog};
use service_kit::health::Check;
use service_kit::lease::Lease;
use service_kit::sqlite::SqliteError;
use service_kit::trace::{self, Context, Kind, Span};
use service_kit::{Clock, Shutdown};

use crate::event::Event;
use crate::metrics::ConsumerMetrics;
use crate::pruning::Pruning;
use crate::store::{AnalyticsStore, Applied, Batch, DeadLetter, Partition, Record, StoreError};

/// Events of one batch.
const BATCH: usize = 500;
/// Time between two looks at a log that had nothing new.
const PERIOD: Duration = Duration::from_millis(200);
/// First pause after a failure; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Longest part of an unreadable event that is kept, in characters.
const LETTER_MAX: usize = 4_096;

/// One round failed; nothing of its batch took effect, and the next round reads it again.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The database did not take the batch.
    #[error("cannot count events")]
    Store(#[from] StoreError),
    /// The log could not be read.
    #[error("cannot read the event log")]
    Log(#[from] SqliteError),
}

/// The consumer of one partition.
pub struct Consumer {
    store: Arc<dyn AnalyticsStore>,
    log: EventLog,
    partition: Partition,
    clock: Clock,
    metrics: ConsumerMetrics,
    /// Shows in `/health` what the consumer does; decides nothing.
    check: Check,
    /// Over the partition.
    lease: Lease,
    pruning: Pruning,
}

/// The consumer group of this service.
pub const GROUP: &str = "analytics-service";

/// The partition that the embedded log has, as read by this service.
#[must_use]
pub fn partition() -> Partition {
    Partition { topic: eventlog::ML_EVENTS.to_owned(), number: 0, group: GROUP.to_owned() }
}

impl Consumer {
    /// A consumer of [`partition`] of `log`.
    #[must_use]
    pub fn new(
        store: Arc<dyn AnalyticsStore>,
        log: EventLog,
        clock: Clock,
        metrics: ConsumerMetrics,
        check: Check,
        lease: Lease,
    ) -> Self {
        let pruning = Pruning::new(clock.now());
        Self { store, log, partition: partition(), clock, metrics, check, lease, pruning }
    }

    /// Consumes until `stop` asks for the end; finishes its batch and gives the partition to another replica.
    pub async fn run(mut self, stop: Shutdown) {
        let mut pause = PAUSE;
        while !stop.is_draining() {
            let rest = match self.round().await {
                Ok(more) => {
                    pause = PAUSE;
                    if more { Duration::ZERO } else { PERIOD }
                }
                Err(error) => {
                    let cause = chain(&error);
                    tracing::warn!(cause, "events could not be counted; they are read again");
                    self.check.failing(error.to_string());
                    let rest = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            if !rest.is_zero() {
                tokio::select! {
                    () = stop.draining() => {}
                    () = tokio::time::sleep(rest) => {}
                }
            }
        }
        if let Err(error) = self.store.unassign(&self.partition, self.lease.holder()).await {
            tracing::warn!(
                cause = chain(&error),
                "the partition could not be given back; the lease ends by itself"
            );
        }
        self.metrics.show_lag(&self.partition, 0);
    }

    /// Handles one batch, if this replica holds the partition. Answers whether there may be more at once.
    ///
    /// # Errors
    /// [`ConsumeError`]; nothing of the batch took effect.
    pub async fn round(&mut self) -> Result<bool, ConsumeError> {
        if !self.holds_partition().await? {
            self.metrics.show_lag(&self.partition, 0);
            self.check.good();
            self.check.detail("another replica holds the partition");
            return Ok(false);
        }
        let after = self.store.position(&self.partition).await?;
        let head = self.log.head(&self.partition.topic).await?;
        let records = self.log.read(&self.partition.topic, after, BATCH).await?;
        let full = records.len() == BATCH;
        let now = self.clock.now();
        let mut behind = head.saturating_sub(after);
        self.metrics.show_lag(&self.partition, behind);
        if let Some(last) = records.last().map(|record| record.offset) {
            let span = span(&records);
            let records: Vec<Record> = records.iter().map(read).collect();
            let batch = Batch { partition: self.partition.clone(), after, records, at: now };
            match trace::work(span, self.store.apply(batch)).await? {
                Applied::Done(counts) => {
                    self.metrics.count(counts);
                    behind = head.saturating_sub(last);
                    self.metrics.show_lag(&self.partition, behind);
                }
                // Our lease ended during the batch, and its new holder was faster.
                Applied::Moved => self.lease.lost(),
            }
        }
        self.check.good();
        self.check.detail(format!("holds the partition, {behind} behind"));
        self.pruning.prune(&*self.store, now).await?;
        Ok(full)
    }

    /// Takes the partition or renews the lease in time.
    async fn holds_partition(&mut self) -> Result<bool, StoreError> {
        let Some(term) = self.lease.due(self.clock.now()) else { return Ok(true) };
        let given = self.store.assign(&self.partition, self.lease.holder(), term.from, term.until).await?;
        Ok(self.lease.note(term, given))
    }
}

/// The span of a batch. Of one cause it is the child; of several it points to each, because it has no one parent.
fn span(records: &[eventlog::Record]) -> Option<Span> {
    let mut causes: Vec<Context> = Vec::new();
    for cause in records.iter().filter_map(|record| trace::of_event(&record.headers)) {
        if cause.sampled && !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    let parent = if let [one] = causes.as_slice() { Some(one) } else { None };
    let mut span = trace::open_in("count events", Kind::Consumer, parent)?;
    span.set("messaging.destination.name", eventlog::ML_EVENTS);
    span.set("messaging.batch.message_count", records.len());
    span.link(causes);
    Some(span)
}

/// Reads one record; what cannot be read becomes a dead letter with its reason.
fn read(record: &eventlog::Record) -> Record {
    let content = Event::read(&record.payload).map_err(|reason| {
        tracing::warn!(offset = record.offset, id = record.id, %reason, "an event is unreadable and kept aside");
        let payload = record.payload.to_string().chars().take(LETTER_MAX).collect();
        DeadLetter { reason: reason.to_string(), payload }
    });
    Record { position: record.offset, content }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::Timestamp;
    use serde_json::json;
    use service_kit::clock::ManualClock;
    use service_kit::eventlog::{Headers, NewRecord};
    use service_kit::health::Kind;
    use service_kit::lease::Term;
    use service_kit::{Base, Health, Metrics};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::IDENTITY;
    use crate::event::Owner;
    use crate::store::sqlite::SqliteStore;

    struct World {
        _folder: TempDir,
        store: Arc<SqliteStore>,
        log: EventLog,
        clock: Clock,
        hand: ManualClock,
    }

    impl World {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("database.db");
            let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
            service_kit::testing::migrate(&path, &migrations).unwrap();
            let (clock, hand) = Clock::manual(Timestamp::from_second(1_790_000_000).unwrap());
            let log = EventLog::open(folder.path(), clock.clone()).await.unwrap();
            Self { store: Arc::new(SqliteStore::new(&path)), log, clock, hand, _folder: folder }
        }

        fn replica(&self, name: &str) -> (Consumer, ConsumerMetrics, Health) {
            let health = Health::new(IDENTITY, &Base::new(IDENTITY));
            let metrics = ConsumerMetrics::register(&Metrics::new(), Some(&partition()));
            let consumer = Consumer::new(
                Arc::clone(&self.store) as Arc<dyn AnalyticsStore>,
                self.log.clone(),
                self.clock.clone(),
                metrics.clone(),
                health.check("consumer", Kind::Info),
                Lease::new(name.to_owned()),
            );
            (consumer, metrics, health)
        }

        async fn publish(&self, count: usize) {
            let records = (0..count)
                .map(|_| {
                    let id = Uuid::new_v4();
                    let payload = json!({
                        "id": id, "type": "item.updated", "tenant": "default", "user_id": Uuid::nil(),
                        "at": self.clock.now(),
                    });
                    NewRecord { id: id.to_string(), payload, headers: Headers::new() }
                })
                .collect();
            self.log.append(eventlog::ML_EVENTS, "key", records).await.unwrap();
        }

        async fn counted(&self) -> u64 {
            let owner = Owner { tenant: "default".to_owned(), user_id: Uuid::nil() };
            self.store.totals(&owner).await.unwrap().first().map_or(0, |(_, total)| total.events)
        }
    }

    #[tokio::test]
    async fn a_replica_that_dies_is_followed_by_another_when_its_lease_ends() {
        let world = World::new().await;
        world.publish(3).await;
        let (mut dead, _, _) = world.replica("dead");
        dead.round().await.unwrap();
        assert_eq!(world.counted().await, 3);
        drop(dead);
        world.publish(2).await;
        let (mut next, _, health) = world.replica("next");
        world.hand.advance(Duration::from_millis(2_999));
        next.round().await.unwrap();
        assert_eq!(world.counted().await, 3, "the partition is still held");
        assert_eq!(health.report().checks["consumer"].detail, "another replica holds the partition");
        world.hand.advance(Duration::from_millis(1));
        next.round().await.unwrap();
        assert_eq!(world.counted().await, 5);
    }

    #[tokio::test]
    async fn a_replica_whose_lease_ended_unnoticed_counts_nothing_twice() {
        let world = World::new().await;
        let (mut slow, _, _) = world.replica("slow");
        slow.round().await.unwrap();
        world.publish(4).await;
        world.hand.advance(Duration::from_secs(3));
        let (mut fast, _, _) = world.replica("fast");
        fast.round().await.unwrap();
        // It still believes that it holds the partition, as after a long pause of its process.
        let term = Term { from: world.clock.now(), until: Timestamp::MAX };
        slow.lease.note(term, true);
        slow.round().await.unwrap();
        fast.round().await.unwrap();
        assert_eq!(world.counted().await, 4);
    }

    #[tokio::test]
    async fn a_backlog_is_worked_off_in_batches_and_shown() {
        let world = World::new().await;
        world.publish(BATCH + 1).await;
        let (mut consumer, metrics, health) = world.replica("one");
        assert!(consumer.round().await.unwrap(), "there is more");
        assert_eq!(metrics.lag(&partition()), 1.0);
        assert!(!consumer.round().await.unwrap());
        assert_eq!(metrics.lag(&partition()), 0.0);
        assert_eq!(world.counted().await, BATCH as u64 + 1);
        assert_eq!(health.report().checks["consumer"].detail, "holds the partition, 0 behind");
    }

    #[tokio::test]
    async fn a_database_that_refuses_a_batch_loses_no_event() {
        let world = World::new().await;
        world.publish(2).await;
        let execute = |sql: &'static str| {
            world
                .store
                .pool()
                .call(move |connection| connection.execute_batch(sql).map_err(SqliteError::from))
        };
        execute("ALTER TABLE analytics_totals RENAME TO away").await.unwrap();
        let (mut consumer, metrics, _) = world.replica("one");
        assert!(matches!(consumer.round().await, Err(ConsumeError::Store(_))));
        assert_eq!(metrics.lag(&partition()), 2.0);
        execute("ALTER TABLE away RENAME TO analytics_totals").await.unwrap();
        consumer.round().await.unwrap();
        assert_eq!(world.counted().await, 2);
        assert_eq!(metrics.lag(&partition()), 0.0);
    }
}
