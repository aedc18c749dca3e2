//! RunState: a run as its events tell it. Every reader folds the same events into the same state.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use jiff::Timestamp;

use crate::event::{Event, EventKind, Outcome, PhaseListing, RunOutcome, Serving};
use crate::gate::GateResult;
use crate::item::ItemId;
use crate::ports::LoadReport;
use crate::status::{Cause, Status};

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepProgress {
    /// It has not begun.
    Pending,
    /// It runs.
    Running {
        /// Which attempt, from 1.
        attempt: u32,
        /// Since when.
        since: Timestamp,
    },
    /// It failed and will be tried again.
    Retrying {
        /// Why it failed.
        reason: String,
    },
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
        /// One sentence.
        note: String,
        /// Milliseconds it took.
        took_ms: u64,
    },
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    /// What people read.
    pub title: String,
    /// Where it stands.
    pub progress: StepProgress,
    /// The last progress line: done, total, text.
    pub latest: Option<(u64, u64, String)>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhaseState {
    /// What people read.
    pub title: String,
    /// Its steps by id, in order.
    pub steps: IndexMap<String, StepState>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Milliseconds it took.
    pub took_ms: u64,
}

/// The last told status of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemState {
    /// Where it stands.
    pub status: Status,
    /// Ready, updated and desired replicas.
    pub counts: (u32, u32, u32),
    /// Why it is not current.
    pub cause: Option<Cause>,
    /// When this was told.
    pub since: Timestamp,
    /// When its step gives up.
    pub deadline: Option<Timestamp>,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// How.
    pub outcome: RunOutcome,
    /// The exit code.
    pub exit: u8,
    /// Why.
    pub reason: String,
    /// The release that runs now.
    pub head: Option<u32>,
    /// What is where.
    pub serving: Vec<Serving>,
    /// Milliseconds the run took.
    pub took_ms: u64,
}

/// A run, folded from its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunState {
    /// The highest sequence number seen; what comes again is dropped.
    pub seq: u64,
    /// The run.
    pub run: String,
    /// What it does.
    pub operation: String,
    /// The system.
    pub system: String,
    /// The target.
    pub target: String,
    /// The release it is about.
    pub release: Option<u32>,
    /// Phases by name, in order.
    pub phases: IndexMap<String, PhaseState>,
    /// Items by id.
    pub items: BTreeMap<ItemId, ItemState>,
    /// Everything the gates said, in order, with the step that asked.
    pub gates: Vec<(String, GateResult)>,
    /// What load runs showed, in order, with the step that sent them.
    pub loads: Vec<(String, LoadReport)>,
    /// Warnings, in order.
    pub warnings: Vec<String>,
    /// Evidence about what failures name: item, what, lines.
    pub evidence: Vec<(ItemId, String, Vec<String>)>,
    /// The files that keep it.
    pub evidence_files: Vec<String>,
    /// How it ended; none while it runs.
    pub finish: Option<Finish>,
    /// When the process that tells it began: another one's beginning is no duplicate of it.
    began: Option<Timestamp>,
}

impl RunState {
    /// Takes one event. Duplicates, and anything after the end, change nothing; only a resumed run, told by another
    /// process from its own number 1 on, begins anew.
    pub fn apply(&mut self, event: &Event) {
        let resumes = matches!(event.kind, EventKind::RunStarted { resumed: true, .. });
        if resumes && self.began != Some(event.at) {
            *self = Self::default();
        }
        if event.seq <= self.seq || self.finish.is_some() {
            return;
        }
        if matches!(event.kind, EventKind::RunStarted { .. }) {
            self.began = Some(event.at);
        }
        self.seq = event.seq;
        self.run.clone_from(&event.run);
        match &event.kind {
            EventKind::RunStarted { operation, system, target, release, phases, .. } => {
                self.operation.clone_from(operation);
                self.system.clone_from(system);
                self.target.clone_from(target);
                self.release = *release;
                self.phases = phases.iter().map(|p| (p.name.clone(), phase_of(p))).collect();
            }
            EventKind::PhaseStarted { phase, steps, .. } => {
                self.phases.entry(phase.clone()).or_insert_with(|| {
                    phase_of(&PhaseListing {
                        name: phase.clone(),
                        title: phase.clone(),
                        steps: steps.clone(),
                    })
                });
            }
            EventKind::StepStarted { phase, step, attempt } => {
                self.set(phase, step, StepProgress::Running { attempt: *attempt, since: event.at });
            }
            EventKind::Retry { phase, step, reason, .. } => {
                self.set(phase, step, StepProgress::Retrying { reason: reason.clone() });
            }
            EventKind::StepFinished { phase, step, outcome, note, took_ms } => {
                let (outcome, note, took_ms) = (*outcome, note.clone(), *took_ms);
                self.set(phase, step, StepProgress::Finished { outcome, note, took_ms });
            }
            EventKind::PhaseFinished { phase, outcome, took_ms } => {
                if let Some(state) = self.phases.get_mut(phase) {
                    state.outcome = Some(*outcome);
                    state.took_ms = *took_ms;
                }
            }
            EventKind::Workload { item, status, ready, updated, desired, cause, deadline, .. } => {
                let state = ItemState {
                    status: *status,
                    counts: (*ready, *updated, *desired),
                    cause: cause.clone(),
                    since: event.at,
                    deadline: *deadline,
                };
                self.items.insert(item.clone(), state);
            }
            EventKind::Progress { phase, step, done, total, text } => {
                if let Some(state) = self.phases.get_mut(phase).and_then(|p| p.steps.get_mut(step)) {
                    state.latest = Some((*done, *total, text.clone()));
                }
            }
            EventKind::Gate { step, result, .. } => self.gates.push((step.clone(), result.clone())),
            EventKind::Load { step, report, .. } => self.loads.push((step.clone(), (**report).clone())),
            EventKind::Warning { text } => self.warnings.push(text.clone()),
            EventKind::Evidence { item, named, what, lines, file, .. } => {
                if *named {
                    self.evidence.push((item.clone(), what.clone(), lines.clone()));
                }
                self.evidence_files.extend(file.clone());
            }
            EventKind::RunFinished { outcome, exit, reason, head, serving } => {
                self.finish = Some(Finish {
                    outcome: *outcome,
                    exit: *exit,
                    reason: reason.clone(),
                    head: *head,
                    serving: serving.clone(),
                    took_ms: event.elapsed_ms,
                });
            }
        }
    }

    /// Returns the step that runs now, with its phase.
    #[must_use]
    pub fn current_step(&self) -> Option<(&str, &str, &StepState)> {
        self.phases.iter().find_map(|(phase, state)| {
            let running = |step: &StepState| {
                matches!(step.progress, StepProgress::Running { .. } | StepProgress::Retrying { .. })
            };
            let (id, step) = state.steps.iter().find(|(_, step)| running(step))?;
            Some((phase.as_str(), id.as_str(), step))
        })
    }

    fn set(&mut self, phase: &str, step: &str, progress: StepProgress) {
        if let Some(state) = self.phases.get_mut(phase).and_then(|p| p.steps.get_mut(step)) {
            state.progress = progress;
        }
    }
}

fn phase_of(listing: &PhaseListing) -> PhaseState {
    let step =
        |title: &str| StepState { title: title.to_owned(), progress: StepProgress::Pending, latest: None };
    PhaseState {
        title: listing.title.clone(),
        steps: listing.steps.iter().map(|s| (s.id.clone(), step(&s.title))).collect(),
        outcome: None,
        took_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Operator;

    fn event(seq: u64, kind: EventKind) -> Event {
        event_at(0, seq, kind)
    }

    fn event_at(second: i64, seq: u64, kind: EventKind) -> Event {
        let at = Timestamp::from_second(second).unwrap();
        Event { v: 1, run: "r".into(), seq, at, elapsed_ms: seq, kind }
    }

    fn started(resumed: bool) -> EventKind {
        EventKind::RunStarted {
            operation: "deploy".into(),
            system: "shop".into(),
            target: "local".into(),
            operator: Operator { name: "ana".into(), host: "desk".into() },
            release: Some(1),
            plan: "p".into(),
            resumed,
            phases: Vec::new(),
        }
    }

    fn finished(outcome: RunOutcome) -> EventKind {
        let exit = outcome.exit_code();
        EventKind::RunFinished { outcome, exit, reason: String::new(), head: None, serving: Vec::new() }
    }

    #[test]
    fn a_resumed_run_begins_anew_and_nothing_else_follows_an_end() {
        let mut state = RunState::default();
        state.apply(&event(1, started(false)));
        state.apply(&event(2, finished(RunOutcome::Interrupted)));
        let ended = state.clone();
        state.apply(&event(3, EventKind::Warning { text: "late".into() }));
        assert_eq!(state, ended);
        state.apply(&event_at(60, 1, started(true)));
        assert_eq!(state.finish, None);
        state.apply(&event_at(61, 2, finished(RunOutcome::Succeeded)));
        assert_eq!(state.finish.map(|finish| finish.outcome), Some(RunOutcome::Succeeded));
    }

    #[test]
    fn the_beginning_of_a_resumed_run_told_twice_wipes_nothing() {
        let mut state = RunState::default();
        state.apply(&event_at(60, 1, started(true)));
        state.apply(&event_at(61, 2, EventKind::Warning { text: "once".into() }));
        let before = state.clone();
        state.apply(&event_at(60, 1, started(true)));
        assert_eq!(state, before);
        // The next process is another one, even where its clock goes slow.
        state.apply(&event_at(30, 1, started(true)));
        assert_eq!((state.seq, state.warnings.len()), (1, 0));
    }
}
