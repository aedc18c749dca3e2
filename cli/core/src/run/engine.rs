//! The engine: one loop over the steps of a plan, with four clocks, retries, two-step cancel and one way back.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::CancelToken;
use super::context::{Ports, Shared, Teller};
use super::hold::Hold;
use super::journal::{Entry, Replay, Writer};
use super::observe::Observer;
use super::recover::{Decision, decide};
use super::span::{Span, wall};
use crate::event::{EventKind, EventSink, Outcome, RunOutcome};
use crate::item::ItemId;
use crate::mask::Mask;
use crate::plan::{Phase, Plan, Step};
use crate::ports::{ErrorKind, Journal, Lease};
use crate::release::Operator;
use crate::snapshot::Live;
use crate::steps::{Action, StepError, StepNote};

/// Said of a step that an earlier process of the run has done.
pub(super) const DONE_BEFORE: &str = "done before the interruption";

/// Exit code of a run that the system asked to stop: 128 and the number of SIGTERM.
const TERMINATED: u8 = 143;

/// What a run is made of besides its ports.
pub struct RunRequest<'a> {
    /// Names the run.
    pub run: &'a str,
    /// Who runs it.
    pub operator: &'a Operator,
    /// What to do.
    pub plan: &'a Plan,
    /// Seed of everything random in it.
    pub seed: u64,
    /// The journal so far, when an earlier process began the run.
    pub replay: Option<&'a Replay>,
    /// How long the whole run may take.
    pub total: Option<Duration>,
    /// The lease on the target; given back on every path.
    pub lease: &'a dyn Lease,
    /// The lease's time to live; it is renewed at a third of it.
    pub lease_ttl: Duration,
    /// Where the journal goes.
    pub journal: &'a dyn Journal,
    /// Who reads the events.
    pub sink: &'a dyn EventSink,
    /// Who may stop it.
    pub cancel: &'a CancelToken,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReport {
    /// How.
    pub outcome: RunOutcome,
    /// Why, in one sentence; empty after a success.
    pub reason: String,
}

/// Carries a plan out. Always ends with exactly one `run_finished` event and the lease given back.
pub async fn execute(request: &RunRequest<'_>, ports: Ports<'_>) -> RunReport {
    let teller = Teller {
        run: request.run,
        sink: request.sink,
        clock: ports.clock,
        started: Instant::now(),
        seq: AtomicU64::new(0),
    };
    let records = request.replay.map_or(&[][..], |replay| &replay.records);
    let journal = Writer::after(request.run, records, request.journal, ports.clock);
    let (sender, _) = watch::channel(BTreeMap::new());
    let observer = Observer {
        orchestrator: ports.orchestrator,
        teller: &teller,
        ids: watched(request.plan),
        sender,
        place: Mutex::default(),
        seed: request.seed,
    };
    let hold = Hold::new(request.lease, request.lease_ttl, request.cancel);
    let engine = Engine {
        request,
        ports,
        hold: &hold,
        teller: &teller,
        journal: &journal,
        observer: &observer,
        shared: Shared::after(request.replay),
        known: Mutex::default(),
        changed: AtomicBool::new(false),
    };
    let report = tokio::select! {
        biased;
        report = engine.run() => report,
        never = hold.keep() => match never {},
        () = observer.run() => nobody_watches(),
    };
    if let Err(error) = request.lease.release().await
        && error.kind != ErrorKind::LeaseLost
    {
        teller.tell(EventKind::Warning { text: format!("{error}; the lock expires by itself") });
    }
    let head = engine.head().await;
    teller.tell(EventKind::RunFinished {
        outcome: report.outcome,
        exit: exit_code(report.outcome, request.cancel),
        reason: report.reason.clone(),
        head,
        serving: engine.serving(report.outcome, head).await,
    });
    report
}

/// Returns the exit code, which tells a person's stop from the system's.
fn exit_code(outcome: RunOutcome, cancel: &CancelToken) -> u8 {
    match outcome {
        RunOutcome::Interrupted if cancel.by_system() => TERMINATED,
        _ => outcome.exit_code(),
    }
}

/// The observer never ends; should it do so all the same, it is told as a failure of ours.
fn nobody_watches() -> RunReport {
    RunReport {
        outcome: RunOutcome::Failed,
        reason: "a background task of the run ended by itself".to_owned(),
    }
}

/// Returns every workload and store that the plan, or its way back, touches.
fn watched(plan: &Plan) -> Vec<ItemId> {
    let mut ids: Vec<ItemId> = plan
        .phases
        .iter()
        .chain(plan.fallback.iter().map(|f| &f.phase))
        .flat_map(|phase| &phase.steps)
        .flat_map(step_items)
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

pub(super) fn step_items(step: &Step) -> Vec<ItemId> {
    match &step.action {
        Action::Apply(apply) => apply.writes.iter().map(|w| w.id().clone()).collect(),
        _ => Vec::new(),
    }
}

pub(super) struct Engine<'a> {
    pub(super) request: &'a RunRequest<'a>,
    pub(super) ports: Ports<'a>,
    pub(super) hold: &'a Hold<'a>,
    pub(super) teller: &'a Teller<'a>,
    pub(super) journal: &'a Writer<'a>,
    pub(super) observer: &'a Observer<'a>,
    pub(super) shared: Shared,
    /// What was learnt to star the last failure.
    pub(super) known: Mutex<Option<(Mask, Option<String>)>>,
    /// True once a write of a phase that can be rolled back may have happened.
    pub(super) changed: AtomicBool,
}

/// What ended the forward way early.
pub(super) struct Failure {
    pub(super) phase: String,
    pub(super) step: Step,
    pub(super) error: StepError,
}

impl Engine<'_> {
    async fn run(&self) -> RunReport {
        let plan = self.request.plan;
        self.announce();
        if let Err(error) = self.open().await {
            plan.phases.iter().for_each(|phase| self.will_not_run(phase, None, &error));
            if matches!(error, StepError::LeaseLost) {
                return self.lease_lost("open the journal");
            }
            // Not closed: a journal that begins with its end is none, and a run that was to be carried on still can be.
            return RunReport { outcome: RunOutcome::Failed, reason: error.to_string() };
        }
        if let Some(reason) = self.request.replay.and_then(|r| r.rolling_back.clone()) {
            self.changed.store(true, Ordering::Relaxed);
            plan.phases.iter().for_each(|phase| self.will_not_run(phase, None, &StepError::Cancelled));
            return self.roll_back(reason).await;
        }
        if let Err(failure) = self.create_release().await {
            plan.phases.iter().for_each(|phase| self.will_not_run(phase, None, &failure.error));
            return self.fail(failure).await;
        }
        let until = self.request.total.map(Span::beginning_now);
        for (index, phase) in plan.phases.iter().enumerate() {
            let mut done = self.phase(phase, until).await;
            if done.is_ok() && plan.head_after.as_deref() == Some(&phase.name) {
                done = self.become_head().await;
            }
            if let Err(failure) = done {
                let later = plan.phases.iter().skip(index + 1);
                later.for_each(|later| self.will_not_run(later, None, &failure.error));
                return self.fail(failure).await;
            }
        }
        self.close(RunOutcome::Succeeded, String::new()).await
    }

    async fn open(&self) -> Result<(), StepError> {
        let operator = self.request.operator.clone();
        let entry = if self.request.replay.is_some() {
            Entry::Resumed { operator }
        } else {
            Entry::Opened {
                run: self.request.run.to_owned(),
                operator,
                seed: self.request.seed,
                plan: Box::new(self.request.plan.clone()),
            }
        };
        self.record(entry).await
    }

    /// Journals what is about to happen, or how a step ended: only while the lease is ours. Whoever carried the run
    /// on meanwhile writes its journal.
    pub(super) async fn record(&self, entry: Entry) -> Result<(), StepError> {
        self.hold.confirm().await?;
        match self.journal.append(entry).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.hold.judge_by_asking(error.into()).await),
        }
    }

    /// Ends a run that is no longer its target's. Nothing is written: not even to the journal, which may be another's.
    pub(super) fn lease_lost(&self, doing: &str) -> RunReport {
        let why = self.hold.lost().map(|why| format!(": {why}")).unwrap_or_default();
        let reason = format!("{doing}: {}{why}; nothing was changed since", StepError::LeaseLost);
        RunReport { outcome: RunOutcome::LeaseLost, reason }
    }

    fn announce(&self) {
        let plan = self.request.plan;
        self.teller.tell(EventKind::RunStarted {
            operation: plan.operation.clone(),
            system: plan.system.clone(),
            target: plan.target.clone(),
            operator: self.request.operator.clone(),
            release: plan.release.as_ref().map(|r| r.number),
            plan: plan.digest().as_str().to_owned(),
            resumed: self.request.replay.is_some(),
            phases: plan.phases.iter().map(Phase::listing).collect(),
        });
        if let Some(replay) = self.request.replay {
            for effect in &replay.in_doubt {
                let text = format!(
                    "in doubt since the interruption: {effect}; it is probed before it is done again"
                );
                self.teller.tell(EventKind::Warning { text });
            }
        }
        for text in &plan.warnings {
            self.teller.tell(EventKind::Warning { text: text.clone() });
        }
    }

    async fn phase(&self, phase: &Phase, total: Option<Span>) -> Result<(), Failure> {
        let started = Instant::now();
        let span = phase.deadline_ms.map(|ms| Span::beginning_now(Duration::from_millis(ms)));
        self.teller.tell(EventKind::PhaseStarted {
            phase: phase.name.clone(),
            steps: phase.listing().steps,
            deadline: span.map(|span| wall(self.ports.clock, span.until)),
        });
        let mut worst = Outcome::Skipped;
        for step in &phase.steps {
            match self.step(&phase.name, step, span, total).await {
                Ok(outcome) => worst = heavier(worst, outcome),
                Err(error) => {
                    let outcome = failed_outcome(&error);
                    self.will_not_run(phase, Some(&step.id), &error);
                    self.phase_finished(phase, outcome, started);
                    return Err(Failure { phase: phase.name.clone(), step: step.clone(), error });
                }
            }
        }
        self.phase_finished(phase, worst, started);
        Ok(())
    }

    fn phase_finished(&self, phase: &Phase, outcome: Outcome, started: Instant) {
        let took_ms = millis(started.elapsed());
        self.teller.tell(EventKind::PhaseFinished { phase: phase.name.clone(), outcome, took_ms });
    }

    /// Tells that the steps of a phase after the given one (all without one) will not run.
    fn will_not_run(&self, phase: &Phase, after: Option<&str>, error: &StepError) {
        let from = after.and_then(|id| phase.steps.iter().position(|s| s.id == id)).map_or(0, |at| at + 1);
        for step in phase.steps.iter().skip(from) {
            let done = self.request.replay.is_some_and(|replay| replay.done.contains(&step.id));
            let note = if done { StepNote::skipped(DONE_BEFORE) } else { not_run(error) };
            self.finish_step(&phase.name, step, &note, Instant::now());
        }
    }

    /// Decides what a failure leads to, saves evidence first, and goes there.
    async fn fail(&self, failure: Failure) -> RunReport {
        let plan = self.request.plan;
        // A gate over a release that was there before judges what an earlier run changed.
        let judges = !failure.step.action.is_change() && plan.release.as_ref().is_some_and(|r| !r.creates);
        let changed = self.changed.load(Ordering::Relaxed) || judges;
        let decision = decide(&failure.error, failure.step.on_failure, plan, changed);
        let reason = format!("{}: {}", failure.step.title, self.starred(&failure.error).await);
        self.save_evidence(&failure).await;
        match decision {
            Decision::End(RunOutcome::Interrupted) => {
                // Not closed: `--resume` carries on from here.
                self.last_record(Entry::Interrupted).await;
                RunReport { outcome: RunOutcome::Interrupted, reason }
            }
            Decision::End(RunOutcome::LeaseLost) => self.lease_lost(&failure.step.title),
            Decision::End(outcome) => {
                self.mark_failed(outcome, &reason).await;
                if self.hold.lost().is_some() {
                    return self.lease_lost(&reason);
                }
                self.close(outcome, reason).await
            }
            Decision::RollBack => self.roll_back(reason).await,
        }
    }

    pub(super) async fn close(&self, outcome: RunOutcome, reason: String) -> RunReport {
        let entry = Entry::Closed { outcome, reason: reason.clone() };
        self.last_record(entry).await;
        RunReport { outcome, reason }
    }

    /// Journals how the run ended, while the lease is ours; what it ended with stands, whether that can be written or
    /// not.
    pub(super) async fn last_record(&self, entry: Entry) {
        if let Err(error) = self.record(entry).await {
            self.teller
                .tell(EventKind::Warning { text: format!("the end of the run is not recorded: {error}") });
        }
    }
}

/// Says where one item stands: "catalog: 2 of 3 replicas ready, starting (...)".
#[must_use]
pub(super) fn describe(id: &ItemId, live: &Live) -> String {
    let status = &live.status;
    let counts = if status.desired > 0 {
        format!("{} of {} replicas ready", status.ready, status.desired)
    } else {
        status.status.word().to_owned()
    };
    let cause = status.cause.as_ref().map(|cause| format!(", {}", cause.text)).unwrap_or_default();
    format!("{}: {counts}{cause}", id.name)
}

/// Says of a step that never began why it did not.
pub(super) fn not_run(error: &StepError) -> StepNote {
    let text = match error {
        StepError::Cancelled => "not run: the run was stopped",
        StepError::LeaseLost => "not run: the lock was lost",
        _ => "not run: a step before it failed",
    };
    StepNote { outcome: Outcome::WillNotRun, text: text.to_owned() }
}

pub(super) const fn failed_outcome(error: &StepError) -> Outcome {
    match error {
        StepError::Cancelled | StepError::LeaseLost => Outcome::Aborted,
        _ => Outcome::Failed,
    }
}

/// Returns the outcome that says more: a warning outweighs success, success outweighs "nothing to do".
fn heavier(a: Outcome, b: Outcome) -> Outcome {
    let weight = |outcome| match outcome {
        Outcome::Skipped => 0,
        Outcome::Success => 1,
        _ => 2,
    };
    if weight(b) > weight(a) { b } else { a }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
