//! One step: its attempts, the clocks over them, and how it ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::CancelLevel;
use super::context::{StepContext, lock};
use super::engine::{DONE_BEFORE, Engine, describe, failed_outcome, millis, not_run, step_items};
use super::journal::Entry;
use super::observe::Place;
use super::retry::Backoff;
use super::span::{Span, wall};
use crate::event::{EventKind, Outcome};
use crate::item::ItemId;
use crate::plan::Step;
use crate::playbook::StepFailure;
use crate::steps::{Action, ClockKind, StepError, StepNote};

impl Engine<'_> {
    /// Carries one step out, with its retries. The first request to cancel lets it finish.
    pub(super) async fn step(
        &self,
        phase: &str,
        step: &Step,
        of_phase: Option<Span>,
        total: Option<Span>,
    ) -> Result<Outcome, StepError> {
        let started = Instant::now();
        if let Some(error) = self.stops_before(phase) {
            self.finish_step(phase, step, &not_run(&error), started);
            return Err(error);
        }
        if let Some(note) = self.known_beforehand(step) {
            return Ok(self.finish_step(phase, step, &note, started));
        }
        let intent = Entry::StepIntent { phase: phase.to_owned(), step: step.id.clone() };
        if let Err(error) = self.record(intent).await {
            let note = match &error {
                StepError::LeaseLost => not_run(&error),
                _ => StepNote { outcome: Outcome::WillNotRun, text: format!("not run: {error}") },
            };
            self.finish_step(phase, step, &note, started);
            return Err(error);
        }
        let mut backoff = Backoff::new(
            Duration::from_millis(500),
            Duration::from_secs(10),
            self.request.seed ^ step.id.len() as u64,
        );
        let mut attempt = 1;
        loop {
            let (phase_owned, id) = (phase.to_owned(), step.id.clone());
            self.teller.tell(EventKind::StepStarted { phase: phase_owned, step: id, attempt });
            match self.attempt(phase, step, attempt, of_phase, total).await {
                Ok(note) => return self.end_step(phase, step, &note, started).await,
                Err(error) if error.is_transient() && attempt <= step.retries => {
                    let after = backoff.next_delay();
                    self.teller.tell(EventKind::Retry {
                        phase: phase.to_owned(),
                        step: step.id.clone(),
                        attempt,
                        after_ms: millis(after),
                        reason: error.to_string(),
                    });
                    // The next attempt sees at once that it must not begin.
                    let _ = tokio::time::timeout(after, self.request.cancel.at_least(CancelLevel::Now)).await;
                    attempt += 1;
                }
                Err(error) if step.on_failure == StepFailure::Continue && may_continue(&error) => {
                    let note = StepNote { outcome: Outcome::Warning, text: self.starred(&error).await };
                    // There is no evidence of it; the next failure learns anew.
                    lock(&self.known).take();
                    return self.end_step(phase, step, &note, started).await;
                }
                Err(error) => {
                    let text = self.starred(&error).await;
                    let note = StepNote { outcome: failed_outcome(&error), text };
                    if matches!(error, StepError::LeaseLost) {
                        // Whoever carried the run on meanwhile writes its journal.
                        self.finish_step(phase, step, &note, started);
                    } else {
                        self.end_step(phase, step, &note, started).await?;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Says whether the run was stopped; the way back is finished all the same after a first request.
    fn stops_before(&self, phase: &str) -> Option<StepError> {
        match self.request.cancel.level() {
            CancelLevel::LeaseLost => Some(StepError::LeaseLost),
            CancelLevel::Now => Some(StepError::Cancelled),
            CancelLevel::AfterStep if !self.rolling_back(phase) => Some(StepError::Cancelled),
            _ => None,
        }
    }

    /// Records how a step ended, then tells it. A record that cannot be written is how it ended, beside what it failed
    /// by before.
    async fn end_step(
        &self,
        phase: &str,
        step: &Step,
        note: &StepNote,
        started: Instant,
    ) -> Result<Outcome, StepError> {
        if let Err(error) = self.record_step(phase, step, note.outcome, &note.text).await {
            let (error, text) = beside(error, note);
            let failed = StepNote { outcome: failed_outcome(&error), text };
            self.finish_step(phase, step, &failed, started);
            return Err(error);
        }
        Ok(self.finish_step(phase, step, note, started))
    }

    /// Returns how a step ends that need not run: skipped by the plan, or done before an interruption.
    ///
    /// After a resume only what cannot change by itself counts as done: migrations and the mark. An `apply` looks again,
    /// and writes nothing that is there already; a yes that a gate gave before, perhaps hours ago, says nothing now.
    fn known_beforehand(&self, step: &Step) -> Option<StepNote> {
        if let Some(reason) = &step.skip {
            return Some(StepNote::skipped(reason.clone()));
        }
        let done = self.request.replay.is_some_and(|replay| replay.done.contains(&step.id));
        let lasts = matches!(step.action, Action::Migrate(_) | Action::Mark(_));
        (done && lasts).then(|| StepNote::skipped(DONE_BEFORE))
    }

    async fn attempt(
        &self,
        phase: &str,
        step: &Step,
        attempt: u32,
        of_phase: Option<Span>,
        total: Option<Span>,
    ) -> Result<StepNote, StepError> {
        let of_step = step.timeout_ms.map(|ms| Span::beginning_now(Duration::from_millis(ms)));
        let clocks = [(of_step, ClockKind::Step), (of_phase, ClockKind::Phase), (total, ClockKind::Total)];
        let first = clocks
            .into_iter()
            .filter_map(|(span, clock)| Some((span?, clock)))
            .min_by_key(|(span, _)| span.until);
        let items = step_items(step);
        self.observer.enter(Place {
            phase: phase.to_owned(),
            step: step.id.clone(),
            deadline: first.map(|(span, _)| wall(self.ports.clock, span.until)),
            items: items.clone(),
        });
        if step.action.is_change() && (self.request.plan.rolls_back.iter().any(|p| p == phase)) {
            self.changed.store(true, Ordering::Relaxed);
        }
        let context = StepContext {
            ports: self.ports,
            fence: self.hold.fence(),
            cancel: self.request.cancel,
            seed: seed_of(self.request.seed, self.journal.last().await, attempt),
            observations: self.observer.sender.subscribe(),
            phase,
            step: &step.id,
            teller: self.teller,
            journal: self.journal,
            hold: self.hold,
            shared: &self.shared,
        };
        let act = async {
            self.first_look(&items).await;
            step.action.run(&context).await
        };
        tokio::select! {
            biased;
            error = self.stopped() => Err(error),
            result = act => match result {
                Ok(note) => Ok(note),
                Err(error) => Err(self.hold.judge_by_asking(error).await),
            },
            error = self.fallen() => Err(error),
            (span, clock) = ran_out(first) => Err(StepError::Deadline {
                clock,
                since: wall(self.ports.clock, span.since),
                until: wall(self.ports.clock, span.until),
                waiting: self.waiting(&items, step),
            }),
        }
    }

    /// Waits until the watch has told every item of the step once, so that a write that is already there is seen.
    async fn first_look(&self, items: &[ItemId]) {
        let mut receiver = self.observer.sender.subscribe();
        let all = receiver.wait_for(|lives| items.iter().all(|id| lives.contains_key(id)));
        // A target that stays silent must not hold the step: the write itself repeats harmlessly.
        let _ = tokio::time::timeout(Duration::from_secs(3), all).await;
    }

    /// Ends when an item that was current before has failed for good.
    async fn fallen(&self) -> StepError {
        let mut receiver = self.observer.sender.subscribe();
        loop {
            let fallen = self.shared.fallen(&receiver.borrow_and_update());
            if let Some(error) = fallen {
                return error;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says what a step waits for, for the message of a clock that ran out.
    fn waiting(&self, items: &[ItemId], step: &Step) -> String {
        let lives = self.observer.sender.borrow();
        let open: Vec<String> = items
            .iter()
            .filter_map(|id| lives.get(id).map(|live| (id, live)))
            .filter(|(_, live)| !live.is_current())
            .map(|(id, live)| describe(id, live))
            .collect();
        if open.is_empty() { step.title.clone() } else { open.join("; ") }
    }

    pub(super) fn finish_step(&self, phase: &str, step: &Step, note: &StepNote, started: Instant) -> Outcome {
        self.teller.tell(EventKind::StepFinished {
            phase: phase.to_owned(),
            step: step.id.clone(),
            outcome: note.outcome,
            note: note.text.clone(),
            took_ms: millis(started.elapsed()),
        });
        note.outcome
    }

    async fn record_step(
        &self,
        phase: &str,
        step: &Step,
        outcome: Outcome,
        note: &str,
    ) -> Result<(), StepError> {
        let (phase, step) = (phase.to_owned(), step.id.clone());
        self.record(Entry::StepDone { phase, step, outcome, note: note.to_owned() }).await
    }
}

/// Returns why a step could not be recorded, and what is said of it then: both name what it failed by itself.
fn beside(unrecorded: StepError, note: &StepNote) -> (StepError, String) {
    if matches!(note.outcome, Outcome::Success | Outcome::Skipped) {
        let text = unrecorded.to_string();
        return (unrecorded, text);
    }
    let text = format!("{}; then: {unrecorded}", note.text);
    let error = match unrecorded {
        StepError::Journal(mut error) => {
            error.reason = format!("{}; it was to hold: {}", error.reason, note.text);
            StepError::Journal(error)
        }
        other => other,
    };
    (error, text)
}

/// Returns the seed of one attempt at a step. What an attempt makes by its seed may outlive it when the process is
/// killed; the next one, here or after a resume, must not make the same again.
fn seed_of(run: u64, record: u64, attempt: u32) -> u64 {
    // 2^64 over the golden ratio: neighbours land far from each other.
    let place = (record << 32 | u64::from(attempt)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    run ^ place
}

/// Waits until the clock that runs out first has run out.
async fn ran_out(first: Option<(Span, ClockKind)>) -> (Span, ClockKind) {
    match first {
        Some((span, clock)) => {
            tokio::time::sleep_until(span.until).await;
            (span, clock)
        }
        None => std::future::pending().await,
    }
}

const fn may_continue(error: &StepError) -> bool {
    !matches!(error, StepError::Cancelled | StepError::LeaseLost | StepError::Journal(_))
}
