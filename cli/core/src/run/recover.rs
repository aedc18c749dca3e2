//! After a failure: what it leads to, and the way back.

use super::engine::{Engine, Failure, RunReport};
use super::journal::Entry;
use crate::event::{EventKind, Outcome, RunOutcome, Serving};
use crate::item::{ItemId, ItemKind};
use crate::plan::{Phase, Plan};
use crate::playbook::StepFailure;
use crate::ports::Write;
use crate::release::ReleaseState;
use crate::steps::{Action, StepError};

/// The name of the phase that goes back; no playbook may use it.
pub(crate) const ROLLBACK: &str = "rollback";

/// What a failure leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Take the way back.
    RollBack,
    /// End here.
    End(RunOutcome),
}

/// Decides what a failed step leads to.
///
/// `changed` says whether a phase that the way back takes back has written anything: a failure in infrastructure,
/// which comes before those, is left as it is, and one in verification, which comes after, is not. A gate that could
/// not tell never rolls back: it says nothing against the release.
pub(super) fn decide(error: &StepError, policy: StepFailure, plan: &Plan, changed: bool) -> Decision {
    match error {
        StepError::Cancelled => return Decision::End(RunOutcome::Interrupted),
        StepError::LeaseLost => return Decision::End(RunOutcome::LeaseLost),
        StepError::Journal(_) => return Decision::End(RunOutcome::Failed),
        StepError::GateInconclusive { .. } => return Decision::End(RunOutcome::GateInconclusive),
        _ => {}
    }
    let wanted = policy == StepFailure::Rollback;
    if wanted && changed && plan.fallback.is_some() {
        return Decision::RollBack;
    }
    Decision::End(match error {
        StepError::Deadline { .. } => RunOutcome::TimedOut,
        StepError::GateFailed { .. } if !wanted || !changed || !creates(plan) => RunOutcome::GateFailed,
        _ => RunOutcome::Failed,
    })
}

fn creates(plan: &Plan) -> bool {
    plan.release.as_ref().is_some_and(|release| release.creates)
}

impl Engine<'_> {
    pub(super) fn rolling_back(&self, phase: &str) -> bool {
        phase == ROLLBACK
    }

    /// Takes the planned way back, to the last verified release.
    pub(super) async fn roll_back(&self, reason: String) -> RunReport {
        let Some(fallback) = &self.request.plan.fallback else {
            return self.close(RunOutcome::Failed, reason).await;
        };
        let entry = Entry::RollbackDecided { reason: reason.clone(), release: fallback.release };
        match self.record(entry).await {
            Ok(()) => {}
            Err(StepError::LeaseLost) => return self.lease_lost(&reason),
            Err(error) => return self.close(RunOutcome::RollbackFailed, format!("{reason}; {error}")).await,
        }
        self.mark_failed(RunOutcome::RolledBack, &reason).await;
        self.shared.forget_guarded();
        let started = tokio::time::Instant::now();
        let phase = &fallback.phase;
        self.teller.tell(EventKind::PhaseStarted {
            phase: phase.name.clone(),
            steps: phase.listing().steps,
            deadline: None,
        });
        for step in &phase.steps {
            if let Err(error) = self.step(&phase.name, step, None, None).await {
                let failure = Failure { phase: phase.name.clone(), step: step.clone(), error };
                let why = self.starred(&failure.error).await;
                self.save_evidence(&failure).await;
                return self.rollback_failed(phase, started, &reason, (&failure.error, &why)).await;
            }
        }
        let fence = self.hold.fence();
        let head = async || Ok(self.ports.releases.set_head(fallback.release, fence).await?);
        if let Err(error) = self.patiently(head).await {
            return self.rollback_failed(phase, started, &reason, (&error, &error.to_string())).await;
        }
        self.finish_rollback(phase, Outcome::Success, started);
        self.close(RunOutcome::RolledBack, reason).await
    }

    async fn rollback_failed(
        &self,
        phase: &Phase,
        started: tokio::time::Instant,
        reason: &str,
        (error, why): (&StepError, &str),
    ) -> RunReport {
        self.finish_rollback(phase, Outcome::Failed, started);
        if matches!(error, StepError::LeaseLost) {
            return self.lease_lost(&format!("{reason}; going back failed"));
        }
        let reason = format!("{reason}; going back failed: {why}");
        match error {
            StepError::Cancelled => {
                // Not closed: `--resume` goes on with the way back.
                self.last_record(Entry::Interrupted).await;
                RunReport { outcome: RunOutcome::Interrupted, reason }
            }
            _ => self.close(RunOutcome::RollbackFailed, reason).await,
        }
    }

    fn finish_rollback(&self, phase: &Phase, outcome: Outcome, started: tokio::time::Instant) {
        let took_ms = super::engine::millis(started.elapsed());
        self.teller.tell(EventKind::PhaseFinished { phase: phase.name.clone(), outcome, took_ms });
    }

    /// Marks the release of the run: failed, or unverified where a gate could not tell.
    pub(super) async fn mark_failed(&self, outcome: RunOutcome, reason: &str) {
        let Some(planned) = &self.request.plan.release else { return };
        let state = match outcome {
            // A release that was there before keeps what is known of it, unless it is taken back.
            _ if !planned.creates && outcome != RunOutcome::RolledBack => return,
            RunOutcome::GateInconclusive => ReleaseState::Unverified,
            _ => ReleaseState::Failed,
        };
        let note: Option<String> = Some(reason.chars().take(400).collect());
        let fence = self.hold.fence();
        let mark = async || Ok(self.ports.releases.mark(planned.number, state, note.clone(), fence).await?);
        if let Err(error) = self.patiently(mark).await {
            self.teller.tell(EventKind::Warning { text: error.to_string() });
        }
    }

    pub(super) async fn head(&self) -> Option<u32> {
        let snapshot = self.ports.orchestrator.observe().await.ok()?;
        snapshot.head.map(|head| head.number)
    }

    /// Says what is where after a run that did not simply succeed. What the release that runs now and another one hold
    /// equally belongs to the one that runs.
    pub(super) async fn serving(&self, outcome: RunOutcome, head: Option<u32>) -> Vec<Serving> {
        if outcome == RunOutcome::Succeeded {
            return Vec::new();
        }
        let plan = self.request.plan;
        let kept = self.ports.releases.list().await.unwrap_or_default();
        let running = kept.iter().find(|release| Some(release.number) == head);
        let lives = self.observer.sender.borrow();
        let workloads = lives.iter().filter(|(id, _)| id.kind == ItemKind::Workload);
        workloads
            .map(|(id, live)| {
                let new = plan.release.as_ref().and_then(|r| Some((r.number, &r.desired.get(id)?.digest)));
                let old = plan.fallback.as_ref().and_then(|f| Some((f.release, put_digest(&f.phase, id)?)));
                let running = running.and_then(|r| Some((r.number, &r.desired.get(id)?.digest)));
                let release = [running, old, new]
                    .into_iter()
                    .flatten()
                    .find(|(_, digest)| live.digest.as_ref() == Some(*digest))
                    .map(|(number, _)| number);
                Serving { item: id.clone(), status: live.status.status, release }
            })
            .collect()
    }
}

/// Returns the digest that a phase puts in place for an item.
fn put_digest<'a>(phase: &'a Phase, id: &ItemId) -> Option<&'a crate::item::Digest> {
    phase.steps.iter().find_map(|step| match &step.action {
        Action::Apply(apply) => apply.writes.iter().find_map(|write| match write {
            Write::Put { item, .. } if item.id == *id => Some(&item.digest),
            _ => None,
        }),
        _ => None,
    })
}
