//! What analytics asks of its database: counts, and the consumer's state beside them.
//!
//! The one rule: [`AnalyticsStore::apply`] stores the effect of a batch and the position behind it in one transaction.
//! So an event takes effect once, however often the log delivers it and however many replicas read along.

#[cfg(test)]
pub mod contract;
pub mod postgres;
pub mod sqlite;
mod statements;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::event::{Event, Owner};
use crate::fold::Total;
use crate::query::{HourCount, Range};

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

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub position: u64,
    /// The event, or what is wrong with the record.
    pub content: Result<Event, DeadLetter>,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why it cannot be read.
    pub reason: String,
    /// Its beginning, as it came.
    pub payload: String,
}

/// Records to take effect together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they come from.
    pub partition: Partition,
    /// The position they were read after: the one stored, unless another replica was faster.
    pub after: u64,
    /// The records, in the order of the log, at least one.
    pub records: Vec<Record>,
    /// Now.
    pub at: Timestamp,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Effect and position are stored.
    Done(Counts),
    /// Another replica moved the position in between: nothing was stored.
    Moved,
}

/// How the records of a batch ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Counted for a user.
    pub counted: u64,
    /// Seen before, at another position.
    pub duplicate: u64,
    /// Counts for nobody.
    pub skipped: u64,
    /// Unreadable, kept aside.
    pub dead: u64,
}

/// Rows older than these times may go.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Identities of counted events.
    pub seen_before: Timestamp,
    /// Dead letters.
    pub dead_before: Timestamp,
    /// Erasure marks of users.
    pub erased_before: Timestamp,
    /// Hours since 1970; totals stay.
    pub hours_before: i64,
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is out of reach, busy beyond its time limit, or out of connections: trying again can help.
    #[error("{operation}: the database is not available")]
    Unavailable {
        /// What was attempted.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables are not there yet: `mlctl db migrate` makes them.
    #[error("{operation}: the tables of analytics-service are missing; run `mlctl db migrate`")]
    NotMigrated {
        /// What was attempted.
        operation: &'static str,
    },
    /// The store refused, or returned what this version cannot read: trying again cannot help.
    #[error("{operation}: the database failed")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The database of analytics.
#[async_trait]
pub trait AnalyticsStore: Send + Sync + 'static {
    /// Whether the migrations have made what this store needs; the error says what is missing, for `/startupz`.
    async fn migrated(&self) -> Result<(), String>;

    /// The position of the last record whose effect is stored; 0 before the first.
    async fn position(&self, partition: &Partition) -> Result<u64, StoreError>;

    /// Stores the effect of a batch and the position of its last record, or nothing at all.
    async fn apply(&self, batch: Batch) -> Result<Applied, StoreError>;

    /// Takes or renews the partition for `holder` until `until`, if it is free or its own at `now`.
    async fn assign(
        &self,
        partition: &Partition,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Gives the partition back, if it is the holder's.
    async fn unassign(&self, partition: &Partition, holder: &str) -> Result<(), StoreError>;

    /// The user's totals by event type, ordered by type.
    async fn totals(&self, owner: &Owner) -> Result<Vec<(String, Total)>, StoreError>;

    /// The user's counts of the hours in `range`, ordered by hour and type.
    async fn hours(&self, owner: &Owner, range: Range) -> Result<Vec<HourCount>, StoreError>;

    /// The newest dead letters with their positions, at most `max`.
    async fn dead_letters(&self, max: u32) -> Result<Vec<(u64, DeadLetter)>, StoreError>;

    /// Removes rows that are older than `retention` says. Answers how many went.
    async fn prune(&self, retention: Retention) -> Result<usize, StoreError>;

    /// Whether the store answers and has its tables.
    async fn check(&self) -> Result<(), StoreError>;
}
