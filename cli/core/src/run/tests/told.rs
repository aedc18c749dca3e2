//! What a run told: what has to hold of it, and its events as lines.

use std::sync::Mutex;

use crate::event::{Event, EventKind, EventSink, Outcome};
use crate::run::{Canceller, RunReport, RunState};

/// What a run told, and how it ended.
pub(super) struct Told {
    pub(super) run: String,
    pub(super) report: RunReport,
    pub(super) events: Vec<Event>,
}

impl Told {
    /// Checks what holds of every run: one end and nothing after it, a whole numbering, and a fold that neither
    /// duplicates nor replay disturb.
    pub(super) fn check(&self) {
        let ends =
            self.events.iter().filter(|event| matches!(event.kind, EventKind::RunFinished { .. })).count();
        assert_eq!(ends, 1, "{}", self.text());
        let Some(EventKind::RunFinished { outcome, exit, reason, .. }) = self.events.last().map(|e| &e.kind)
        else {
            panic!("something follows the end:\n{}", self.text());
        };
        let told = (*outcome, *exit, reason);
        assert_eq!(told, (self.report.outcome, self.report.outcome.exit_code(), &self.report.reason));
        assert!(self.events.iter().map(|event| event.seq).eq(1..=self.events.len() as u64));
        assert!(self.events.is_sorted_by_key(|event| event.elapsed_ms));
        let state = self.state();
        let mut twice = RunState::default();
        for (at, event) in self.events.iter().enumerate() {
            twice.apply(event);
            if at % 16 == 15 {
                self.events[..=at].iter().for_each(|again| twice.apply(again));
            }
        }
        assert_eq!(state, twice, "duplicates change the fold");
        let mut again = RunState::default();
        for (at, event) in self.events.iter().enumerate() {
            again.apply(event);
            // One event alone comes late once more: the first, or any other of those before.
            again.apply(&self.events[if at % 2 == 0 { 0 } else { at * 7 % (at + 1) }]);
        }
        assert_eq!(state, again, "a late duplicate changes the fold");
        let mut read = RunState::default();
        for event in &self.events {
            let line = serde_json::to_string(event).unwrap();
            read.apply(&serde_json::from_str(&line).unwrap());
        }
        assert_eq!(state, read, "events read back fold to another state");
        assert_eq!(state.current_step(), None, "a step still runs at the end:\n{}", self.text());
    }

    /// Returns the run as its events fold to it.
    pub(super) fn state(&self) -> RunState {
        let mut state = RunState::default();
        self.events.iter().for_each(|event| state.apply(event));
        state
    }

    /// Returns how a step ended.
    pub(super) fn outcome(&self, wanted: &str) -> Option<Outcome> {
        self.events.iter().rev().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, outcome, .. } if step == wanted => Some(*outcome),
            _ => None,
        })
    }

    /// Returns the milliseconds a step took.
    pub(super) fn took(&self, wanted: &str) -> u64 {
        let took = self.events.iter().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, took_ms, .. } if step == wanted => Some(*took_ms),
            _ => None,
        });
        took.unwrap_or_else(|| panic!("no step {wanted}:\n{}", self.text()))
    }

    /// Returns the milliseconds the run took.
    pub(super) fn elapsed(&self) -> u64 {
        self.events.last().unwrap().elapsed_ms
    }

    /// Returns the place of the first event that a test finds.
    pub(super) fn place(&self, wanted: impl Fn(&EventKind) -> bool) -> Option<usize> {
        self.events.iter().position(|event| wanted(&event.kind))
    }

    /// Returns the events as lines.
    pub(super) fn text(&self) -> String {
        self.events.iter().map(|event| format!("{}\n", line(&event.kind))).collect()
    }
}

fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::RunStarted { operation, release, resumed, phases, .. } => {
            let steps: usize = phases.iter().map(|phase| phase.steps.len()).sum();
            format!("run {operation}, release {release:?}, resumed {resumed}, {steps} steps")
        }
        EventKind::PhaseStarted { phase, steps, .. } => format!("phase {phase} ({} steps)", steps.len()),
        EventKind::StepStarted { step, attempt, .. } => format!("  step {step}, attempt {attempt}"),
        EventKind::Workload { item, status, ready, updated, desired, cause, .. } => {
            let cause = cause.as_ref().map(|cause| format!(" ({})", cause.code)).unwrap_or_default();
            format!("    {item}: {} {ready}/{updated}/{desired}{cause}", status.word())
        }
        EventKind::Progress { text, .. } => format!("    {text}"),
        EventKind::Gate { result, .. } => {
            format!("    {}: wants {}, got {}: {}", result.subject, result.want, result.got, result.verdict)
        }
        EventKind::Load { report, .. } => format!("    load: {}", crate::steps::load::sentence(report)),
        EventKind::Retry { attempt, reason, .. } => format!("    retry after attempt {attempt}: {reason}"),
        EventKind::Warning { text } => format!("warning: {text}"),
        EventKind::Evidence { item, what, lines, .. } => {
            format!("    evidence {what} of {item}: {}", lines.join(" | "))
        }
        EventKind::StepFinished { step, outcome, note, .. } => {
            format!("  step {step} {}: {note}", outcome.word())
        }
        EventKind::PhaseFinished { phase, outcome, .. } => format!("phase {phase} {}", outcome.word()),
        EventKind::RunFinished { outcome, exit, reason, head, serving } => {
            let serving: Vec<String> = serving
                .iter()
                .map(|s| format!("{} {} {:?}", s.item.name, s.status.word(), s.release))
                .collect();
            format!("run {} ({exit}), head {head:?}: {reason} [{}]", outcome.words(), serving.join(", "))
        }
    }
}

/// Raises the cancel level when an event comes that a test waits for.
pub(super) struct Trigger<F> {
    canceller: Canceller,
    wanted: F,
    raised: Mutex<bool>,
}

impl<F: Fn(&EventKind) -> bool + Send + Sync> Trigger<F> {
    pub(super) fn new(canceller: Canceller, wanted: F) -> Self {
        Self { canceller, wanted, raised: Mutex::new(false) }
    }
}

impl<F: Fn(&EventKind) -> bool + Send + Sync> EventSink for Trigger<F> {
    fn take(&self, event: &Event) {
        let mut raised = self.raised.lock().unwrap();
        if !*raised && (self.wanted)(&event.kind) {
            *raised = true;
            self.canceller.escalate();
        }
    }
}
