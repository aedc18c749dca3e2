//! The line before the lock: who waits, and what is held until a run takes it over.

use std::future::Future;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::Conduct;
use crate::error::CommandError;
use crate::lock::{self, Held, keep};

impl Conduct<'_> {
    /// Does the whole of a command. With `--wait-lock` it waits in line first, and the lock is its own through build,
    /// plan and question until a run takes it over: what the run before changed is in the plan, and nobody comes
    /// between.
    ///
    /// # Errors
    /// A lock that is still taken when the time is over, or lost; a wish to stop while it waits; those of the work.
    pub async fn in_line<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let Some(wait) = self.wait_lock else { return work.await };
        let held = self.stand_in_line(operation, wait).await?;
        *self.held() = Some(held);
        let result = tokio::select! {
            result = work => result,
            lost = self.keep_held() => Err(lost),
        };
        if let Some(held) = self.take_held() {
            // No run took it over. One that is not given back expires by itself.
            let _ = held.lease.release().await;
        }
        result
    }

    /// Waits in line until the lock is ours. Whoever stops waiting leaves the line at once.
    pub(super) async fn stand_in_line(&self, operation: &str, wait: Duration) -> Result<Held, CommandError> {
        let run = self.session.next_run().await?;
        let request = self.request(operation, &run);
        let orchestrator = self.session.target.orchestrator.as_ref();
        let turn = lock::turn(orchestrator, &request, wait, self.printer);
        match self.signals.unless_asked(operation, turn).await {
            Ok(lease) => Ok(Held { run, lease }),
            Err(error) => {
                // A place that is not given up is lost with this process.
                let _ = orchestrator.leave_line(&request).await;
                Err(error)
            }
        }
    }

    /// Renews the lock while it is held for a run that has not begun; returns only when it is lost before.
    async fn keep_held(&self) -> CommandError {
        loop {
            let lease = self.held().as_ref().map(|held| Arc::clone(&held.lease));
            let Some(lease) = lease else { return std::future::pending().await };
            tokio::select! {
                lost = keep(lease.as_ref()) => {
                    // The run that took it over says itself how it ends.
                    if self.held().is_some() {
                        return lost;
                    }
                }
                () = self.taken_over() => {}
            }
        }
    }

    /// Ends when a run has taken the lock over, within a moment.
    async fn taken_over(&self) {
        while self.held().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_held(&self) -> Option<Held> {
        self.held().take()
    }
}
