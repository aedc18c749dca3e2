//! What a process grants by itself while the shared limits cannot be asked.
//!
//! Its share of every limit begins empty: what the others were granted just before is not known, and may have been
//! the whole burst. What it grants is written down, and charged to the shared limits when they are back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::gcra::{Bucket, Rate};
use super::{Lane, Limits};
use crate::store::{Owed, Take};

/// No call is granted within this time of losing sight: most often it is over sooner, and then nothing was granted
/// that the others could not know of.
const QUIET_US: i64 = 250_000;
/// Users remembered at most.
const USERS: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// Since when: by the clock of the limits and by one that never jumps.
    since: Option<(i64, Instant)>,
    /// The store answered that it does not count before then.
    closed_until: Option<Instant>,
    /// Somebody is asking whether it is over.
    asking: bool,
    buckets: HashMap<String, Bucket>,
    owed: HashMap<String, (Rate, u32)>,
}

/// Whether the shared limits may be asked.
pub(super) enum Sight {
    /// Yes.
    Shared,
    /// No: go on alone.
    Alone,
    /// The caller is the one to find out, with this report.
    Report(Duration, Vec<Owed>),
}

impl Local {
    /// Says what the caller has to do.
    pub(super) fn sight(&mut self) -> Sight {
        let Some((_, since)) = self.since else { return Sight::Shared };
        if self.asking || self.closed_until.is_some_and(|until| Instant::now() < until) {
            return Sight::Alone;
        }
        self.asking = true;
        let owed = self.owed.iter();
        let owed = owed.map(|(key, (rate, calls))| Owed { key: key.clone(), rate: *rate, calls: *calls });
        Sight::Report(since.elapsed(), owed.collect())
    }

    /// Nobody asks any more.
    pub(super) fn asked(&mut self) {
        self.asking = false;
    }

    /// From now on alone, if not already; true when this is the moment.
    pub(super) fn leave(&mut self, now_us: i64, closed_for: Option<Duration>) -> bool {
        self.closed_until = closed_for.map(|time| Instant::now() + time);
        let new = self.since.is_none();
        self.since.get_or_insert_with(|| (now_us, Instant::now()));
        new
    }

    /// The report arrived.
    pub(super) fn charged(&mut self, report: &[Owed]) {
        for paid in report {
            if let Some((_, calls)) = self.owed.get_mut(&paid.key) {
                *calls = calls.saturating_sub(paid.calls);
            }
        }
        self.owed.retain(|_, (_, calls)| *calls > 0);
    }

    /// The shared limits count again. False when calls were granted since the report: report those first.
    pub(super) fn back(&mut self) -> bool {
        if !self.owed.is_empty() {
            return false;
        }
        *self = Self::default();
        true
    }

    /// Takes one call from this process's share of every limit, or none; the position and wait of a denial.
    pub(super) fn take(
        &mut self,
        takes: &[Take],
        lane: Lane,
        limits: &Limits,
        now_us: i64,
    ) -> Result<(), (usize, i64)> {
        let since_us = self.since.map_or(now_us, |(since_us, _)| since_us);
        if self.buckets.len() > USERS {
            self.buckets.retain(|_, bucket| bucket.tat_us > now_us);
        }
        let mut granted = Vec::with_capacity(takes.len());
        for (position, take) in takes.iter().enumerate() {
            let share = take.rate.share_of(limits.replicas, limits.mode);
            let state = self.buckets.get(&take.key).copied().unwrap_or_default();
            let state = state.empty_at(since_us + QUIET_US, share);
            granted.push(state.take(share, lane.reserve(share), now_us).map_err(|wait| (position, wait))?);
        }
        for (take, next) in takes.iter().zip(granted) {
            self.buckets.insert(take.key.clone(), next);
            self.owed.entry(take.key.clone()).or_insert((take.rate, 0)).1 += 1;
        }
        Ok(())
    }
}
