//! What a consumer knows of one partition that it has.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::events::{DeadLetter, Delivered, Partition};

/// First pause after a failure; doubles up to [`LONGEST_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after failures in a row.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// One partition.
pub(super) struct Assigned<E> {
    pub(super) partition: Partition,
    /// Where its effect ends; `None` while that is unknown.
    pub(super) position: Option<u64>,
    /// Behind the last record, as far as known.
    pub(super) high: u64,
    /// Fetched and not in effect yet, in order.
    pub(super) pending: VecDeque<Delivered>,
    /// Records that are dead letters whatever they say, because the effect refused them.
    pub(super) refused: Option<(u64, DeadLetter)>,
    /// Dead letters of that kind one after the other.
    pub(super) refused_in_a_row: u32,
    /// The last position whose dead letter is in the topic of dead letters.
    pub(super) told: u64,
    /// Set while nothing is fetched.
    pub(super) pause: Option<Pause>,
    failures: u32,
    _event: std::marker::PhantomData<fn() -> E>,
}

/// Why a partition waits.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) why: String,
    /// It cannot go on without somebody's help, as far as we know.
    pub(super) stopped: bool,
}

impl<E> Assigned<E> {
    pub(super) fn new(partition: Partition) -> Self {
        Self {
            partition,
            position: None,
            high: 0,
            pending: VecDeque::new(),
            refused: None,
            refused_in_a_row: 0,
            told: 0,
            pause: None,
            failures: 0,
            _event: std::marker::PhantomData,
        }
    }

    /// Takes a record, unless its effect is stored or it comes from before a seek.
    pub(super) fn fetched(&mut self, record: Delivered) {
        let last = self.pending.back().map(|record| record.position).or(self.position);
        if last.is_some_and(|last| record.position > last) {
            self.high = self.high.max(record.position);
            self.pending.push_back(record);
        }
    }

    /// Events whose effect is still to come.
    pub(super) fn behind(&self) -> u64 {
        self.high.saturating_sub(self.position.unwrap_or(0))
    }

    /// Waits a while, longer after each failure.
    pub(super) fn pause(&mut self, why: String, stopped: bool) {
        let length = PAUSE.saturating_mul(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.pause = Some(Pause { until: Instant::now() + length, why, stopped });
    }

    /// Something worked.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
        self.pause = None;
    }
}
