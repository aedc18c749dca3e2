//! The engine's own writes to the target: the release record and which release is the head.

use std::time::Duration;

use super::CancelLevel;
use super::engine::{Engine, Failure};
use super::journal::Entry;
use super::retry::Backoff;
use crate::event::EventKind;
use crate::plan::Step;
use crate::playbook::StepFailure;
use crate::release::{Release, ReleaseState};
use crate::steps::{Action, StepError};

/// How often one of them is tried again.
const OWN_RETRIES: u32 = 4;

impl Engine<'_> {
    /// Writes the release record, unless an earlier process of this run did.
    pub(super) async fn create_release(&self) -> Result<(), Failure> {
        let Some(planned) = self.request.plan.release.as_ref().filter(|r| r.creates) else { return Ok(()) };
        let create = async || {
            let kept = self.ports.releases.list().await?;
            if kept.iter().any(|r| r.number == planned.number && r.run == self.request.run) {
                return Ok(());
            }
            self.record(Entry::ReleaseIntent { release: planned.number }).await?;
            let fence = self.hold.fence();
            for cut_off in kept.iter().filter(|release| release.state == ReleaseState::Pending) {
                let note = format!("cut off; release {} came after it", planned.number);
                self.ports.releases.mark(cut_off.number, ReleaseState::Failed, Some(note), fence).await?;
            }
            let release = Release {
                number: planned.number,
                tag: planned.tag.clone(),
                system: self.request.plan.system.clone(),
                created_at: self.ports.clock.now(),
                author: self.request.operator.clone(),
                run: self.request.run.to_owned(),
                state: ReleaseState::Pending,
                rollback_of: planned.rollback_of,
                note: None,
                desired: planned.desired.clone(),
            };
            self.ports.releases.create(&release, fence).await?;
            Ok(())
        };
        self.patiently(create).await.map_err(|error| self.outside_steps("record the release", error))
    }

    pub(super) async fn become_head(&self) -> Result<(), Failure> {
        let Some(planned) = self.request.plan.release.as_ref() else { return Ok(()) };
        let (number, fence) = (planned.number, self.hold.fence());
        let set = async || {
            self.record(Entry::HeadIntent { release: number }).await?;
            // An earlier process of this run may have brought it further than this already.
            let kept = self.ports.releases.list().await?;
            if kept.iter().any(|r| r.number == number && r.state == ReleaseState::Pending) {
                self.ports.releases.mark(number, ReleaseState::Unverified, None, fence).await?;
            }
            self.ports.releases.set_head(number, fence).await?;
            Ok(())
        };
        self.patiently(set).await.map_err(|error| self.outside_steps("make the release the head", error))
    }

    /// Tries one of the engine's own writes again while its error may pass; all of them repeat without harm.
    pub(super) async fn patiently(
        &self,
        write: impl AsyncFn() -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2), self.request.seed);
        let tries = async {
            for _ in 0..OWN_RETRIES {
                match write().await {
                    Err(error) if error.is_transient() => {
                        self.teller.tell(EventKind::Warning { text: format!("{error}; trying again") });
                        tokio::time::sleep(backoff.next_delay()).await;
                    }
                    done => return done,
                }
            }
            write().await
        };
        tokio::select! {
            biased;
            error = self.stopped() => Err(error),
            done = tries => done.map_err(|error| self.hold.judge(error)),
        }
    }

    /// Ends when the run has to stop at the next await.
    pub(super) async fn stopped(&self) -> StepError {
        self.request.cancel.at_least(CancelLevel::Now).await;
        let lost = self.request.cancel.level() == CancelLevel::LeaseLost;
        if lost { StepError::LeaseLost } else { StepError::Cancelled }
    }

    /// Dresses an error of the engine's own writes as a failed step, so that one path decides on it.
    fn outside_steps(&self, title: &str, error: StepError) -> Failure {
        let step = Step {
            id: title.replace(' ', "-"),
            title: title.to_owned(),
            action: Action::Wait(crate::steps::wait::Wait { millis: 0 }),
            changes: Vec::new(),
            timeout_ms: None,
            retries: 0,
            on_failure: StepFailure::Stop,
            skip: None,
        };
        Failure { phase: String::new(), step, error }
    }
}
