//! Removing what is old. Every replica does it; removing twice removes nothing more.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use service_kit::error::chain;
use service_kit::{Clock, Shutdown};

use crate::store::{AnalyticsStore, Retention, StoreError};

/// Time between two prunings.
const PRUNE_EVERY: SignedDuration = SignedDuration::from_mins(10);
/// Time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(10);
/// How long an event's identity is known: publishers repeat an event within minutes.
const SEEN_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long unreadable events are kept for people to look at.
const DEAD_LIFE: SignedDuration = SignedDuration::from_hours(14 * 24);
/// How long an erased user's late events are refused.
const ERASED_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long hours are kept, in hours: longer than the longest series that can be asked for. Totals stay.
const HOURS_LIFE: i64 = 1_100 * 24;

/// When to prune next.
#[derive(Debug)]
pub struct Pruning {
    next: Timestamp,
}

impl Pruning {
    /// Prunes at once, then from time to time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { next: now }
    }

    /// Prunes `store` if it is time.
    ///
    /// # Errors
    /// [`StoreError`]; the next call tries again.
    pub async fn prune(&mut self, store: &dyn AnalyticsStore, now: Timestamp) -> Result<(), StoreError> {
        if now < self.next {
            return Ok(());
        }
        let removed = store
            .prune(Retention {
                seen_before: later(now, -SEEN_LIFE),
                dead_before: later(now, -DEAD_LIFE),
                erased_before: later(now, -ERASED_LIFE),
                hours_before: now.as_second().div_euclid(3_600) - HOURS_LIFE,
            })
            .await?;
        if removed > 0 {
            tracing::info!(removed, "old rows are pruned");
        }
        self.next = later(now, PRUNE_EVERY);
        Ok(())
    }

    /// Prunes until `stop`, where no consumer does it between its batches.
    pub async fn run(mut self, store: Arc<dyn AnalyticsStore>, clock: Clock, stop: Shutdown) {
        while !stop.is_draining() {
            if let Err(error) = self.prune(&*store, clock.now()).await {
                tracing::warn!(cause = chain(&error), "old rows could not be pruned");
            }
            tokio::select! {
                () = stop.draining() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
