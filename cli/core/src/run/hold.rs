//! The run's hold on the target: its lease, renewed beside the work and made sure of before each effect.
//!
//! A process that did not run for a while (stopped, starved) wakes in the middle of its work, and the lease may be
//! another's by then. This keeps it from beginning a write. A machine that slept is not noticed: the clock used here
//! stands still meanwhile. The target's fence refuses what comes late, whatever the cause.

use std::convert::Infallible;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::context::lock;
use super::{CancelLevel, CancelToken};
use crate::ports::{ErrorKind, Fence, Lease, OrchestratorError};
use crate::steps::StepError;

/// Between two tries to renew a lease that has to be made sure of.
const AGAIN: Duration = Duration::from_millis(200);

/// The lease of a run.
pub(super) struct Hold<'a> {
    lease: &'a dyn Lease,
    ttl: Duration,
    cancel: &'a CancelToken,
    /// When the last renewal that worked was asked for: the target counts from then at the earliest.
    renewed: Mutex<Instant>,
    lost: OnceLock<String>,
}

impl<'a> Hold<'a> {
    /// Returns the hold of a run that has just begun.
    pub(super) fn new(lease: &'a dyn Lease, ttl: Duration, cancel: &'a CancelToken) -> Self {
        Self { lease, ttl, cancel, renewed: Mutex::new(Instant::now()), lost: OnceLock::new() }
    }

    pub(super) fn fence(&self) -> Fence {
        self.lease.fence()
    }

    /// Returns why the lease was lost, once it was.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Makes sure that the lease is still ours. Asks the target only when the last renewal is older than it should
    /// be: then this process did not run for a while, or the target did not answer.
    ///
    /// # Errors
    /// The lease is another's, was taken away, or cannot be made sure of.
    pub(super) async fn confirm(&self) -> Result<(), StepError> {
        if self.cancel.level() == CancelLevel::LeaseLost {
            return Err(StepError::LeaseLost);
        }
        if self.age() < self.ttl * 2 / 3 {
            return Ok(());
        }
        self.ask().await
    }

    /// Asks the target whether the lease is still ours, as long as it may be when no answer comes.
    async fn ask(&self) -> Result<(), StepError> {
        let until = (*lock(&self.renewed) + self.ttl).max(Instant::now() + self.ttl / 3);
        loop {
            match self.renew().await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind != ErrorKind::LeaseLost && Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(self.lose(&error)),
            }
        }
    }

    /// Renews the lease for ever; when it is lost, the run is told to stop.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            match self.renew().await {
                Ok(()) => {}
                Err(error) if error.kind != ErrorKind::LeaseLost && self.age() < self.ttl => {}
                Err(error) => {
                    self.lose(&error);
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Turns an error of a write into what it means for the run: one that was refused by its fence means that the
    /// lease is gone, whatever the renewal has seen so far.
    pub(super) fn judge(&self, error: StepError) -> StepError {
        match error {
            StepError::Target(error) if error.kind == ErrorKind::LeaseLost => self.lose(&error),
            other => other,
        }
    }

    /// As [`Self::judge`], and asks the target about errors of those who know no fence: a journal that was carried on
    /// by another, a store.
    pub(super) async fn judge_by_asking(&self, error: StepError) -> StepError {
        match self.judge(error) {
            error @ (StepError::Journal(_) | StepError::Store(_)) => match self.renew().await {
                Err(lost) if lost.kind == ErrorKind::LeaseLost => self.lose(&lost),
                _ => error,
            },
            other => other,
        }
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        let asked = Instant::now();
        // An answer that does not come is no renewal: the lease runs out all the same.
        let renewed = tokio::time::timeout(self.ttl / 3, self.lease.renew()).await;
        renewed.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", (self.ttl / 3).as_secs());
            Err(OrchestratorError::new(ErrorKind::Timeout, "renew", "the lock", reason))
        })?;
        *lock(&self.renewed) = asked;
        Ok(())
    }

    fn age(&self) -> Duration {
        lock(&self.renewed).elapsed()
    }

    fn lose(&self, error: &OrchestratorError) -> StepError {
        self.lost.get_or_init(|| {
            let age = self.age();
            let silent = if age < self.ttl {
                String::new()
            } else {
                format!(", and this run had not renewed it for {} s", age.as_secs())
            };
            format!("{}{silent}", error.reason)
        });
        self.cancel.canceller().raise(CancelLevel::LeaseLost);
        StepError::LeaseLost
    }
}

/// The hold as a lease, for effects in places that know no fence: it is made sure of with the same patience.
#[async_trait]
impl Lease for Hold<'_> {
    fn fence(&self) -> Fence {
        self.lease.fence()
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        self.ask().await.map_err(|_| {
            let reason = self.lost().unwrap_or("it is no longer ours");
            OrchestratorError::new(ErrorKind::LeaseLost, "renew", "the lock", reason)
        })
    }

    async fn belongs_to(&self, run: &str) -> Result<(), OrchestratorError> {
        self.lease.belongs_to(run).await
    }

    async fn release(&self) -> Result<(), OrchestratorError> {
        self.lease.release().await
    }
}
