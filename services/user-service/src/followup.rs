//! The worker that tells the rest of the system about removed users: each follow-up was written in the transaction
//! that removed the user, so none is lost; each is done at least once, and its receivers do not mind twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use service_kit::error::chain;
use service_kit::eventlog::{ML_EVENTS, NewRecord};
use service_kit::events::Publish;
use service_kit::trace::{self, Kind};
use service_kit::{Clock, PROBE_TENANT, Shutdown};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::catalog::CatalogService;
use crate::integration::IntegrationService;
use crate::store::{AccountStore, ClaimedFollowUp, FollowUpTask, StoreError};

/// How long one replica keeps a follow-up for itself; longer than a whole batch of attempts takes.
const LEASE: SignedDuration = SignedDuration::from_mins(3);
/// Follow-ups taken at a time.
const BATCH: usize = 8;
/// How often the store is asked when nobody woke the worker: follow-ups of a replica that died.
const POLL: Duration = Duration::from_secs(5);
/// How often expired rows are removed.
const SWEEP: Duration = Duration::from_secs(600);
/// Wait after the first failed attempt, doubled with each more.
const RETRY_BASE: SignedDuration = SignedDuration::from_secs(1);
/// Longest wait between attempts.
const RETRY_CAP: SignedDuration = SignedDuration::from_secs(300);

/// Works follow-ups off.
pub struct FollowUps {
    store: Arc<dyn AccountStore>,
    integration: Arc<IntegrationService>,
    catalog: Option<CatalogService>,
    events: Arc<dyn Publish>,
    clock: Clock,
    wake: Arc<Notify>,
}

impl FollowUps {
    /// Makes the worker. `wake` tells it that there may be work. Without `catalog` probe users' ends are published too.
    #[must_use]
    pub fn new(
        store: Arc<dyn AccountStore>,
        integration: Arc<IntegrationService>,
        catalog: Option<CatalogService>,
        events: Arc<dyn Publish>,
        clock: Clock,
        wake: Arc<Notify>,
    ) -> Self {
        Self { store, integration, catalog, events, clock, wake }
    }

    /// Works until the shutdown begins; what is left is done by another replica or the next start.
    pub async fn run(self, shutdown: Shutdown) {
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.draining() => return,
                _ = sweep.tick() => self.sweep().await,
                () = self.wake.notified() => self.work_off().await,
                () = tokio::time::sleep(POLL) => self.work_off().await,
            }
        }
    }

    async fn sweep(&self) {
        match self.store.sweep(self.clock.now()).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "expired sessions and consents are removed"),
            // Also the answer while the migrations have not run yet; /startupz tells that story.
            Err(error) => tracing::debug!(error = chain(&error), "expired sessions are not removed"),
        }
    }

    async fn work_off(&self) {
        loop {
            match self.work_off_batch().await {
                Ok(BATCH) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(error = chain(&error), "follow-ups are not read");
                    return;
                }
            }
        }
    }

    /// Does what is due now, at most one batch; returns how many follow-ups were tried.
    ///
    /// # Errors
    /// [`StoreError`]; the follow-ups stay and come back when their lease ends.
    pub async fn work_off_batch(&self) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let lease_until = now.saturating_add(LEASE).unwrap_or(now);
        let claimed = self.store.claim_follow_ups(now, lease_until, BATCH).await?;
        let tried = claimed.len();
        for item in claimed {
            let span = trace::open("follow up on a removed user", Kind::Internal);
            match trace::work(span, self.attempt(&item)).await {
                Ok(()) => self.store.finish_follow_up(item.follow_up.id).await?,
                Err(error) => {
                    tracing::warn!(
                        user_id = %item.follow_up.user_id, attempts = item.attempts + 1, error = chain(&*error),
                        "a follow-up of a removed user failed; it is tried again"
                    );
                    let again = now.saturating_add(backoff(item.attempts)).unwrap_or(lease_until);
                    self.store.postpone_follow_up(item.follow_up.id, again).await?;
                }
            }
        }
        Ok(tried)
    }

    async fn attempt(&self, item: &ClaimedFollowUp) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let user_id = item.follow_up.user_id;
        match &item.follow_up.task {
            FollowUpTask::Disconnect => self.integration.disconnect(user_id).await?,
            FollowUpTask::Publish(event) => self.tell(user_id, event).await?,
        }
        Ok(())
    }

    /// Verification traffic leaves no event behind. Only the catalog has anything of a probe user's: analytics counts
    /// events, and there were none.
    async fn tell(
        &self,
        user_id: Uuid,
        event: &serde_json::Value,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match &self.catalog {
            Some(catalog) if event["tenant"] == PROBE_TENANT => catalog.erase(PROBE_TENANT, user_id).await?,
            _ => {
                let id = event["id"].as_str().unwrap_or_default().to_owned();
                let mut payload = event.clone();
                let headers = trace::take_from(&mut payload);
                let record = NewRecord { id, payload, headers };
                self.events.publish(ML_EVENTS, &user_id.to_string(), vec![record]).await?;
            }
        }
        Ok(())
    }
}

/// 1, 2, 4 ... seconds, at most five minutes.
fn backoff(attempts: u32) -> SignedDuration {
    RETRY_BASE.saturating_mul(1_i32.checked_shl(attempts.min(30)).unwrap_or(i32::MAX)).min(RETRY_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_slow_down_to_five_minutes() {
        for (attempts, seconds) in [(0, 1), (1, 2), (8, 256), (9, 300), (1_000, 300)] {
            assert_eq!(backoff(attempts).as_secs(), seconds, "after {attempts} attempts");
        }
    }
}
