//! Events: the facts of one run, in order, told to any number of readers.
//!
//! Lines, JSON, the dashboard and the summary all read this stream; none of them asks the engine anything. The
//! first event lists every phase and step, so a reader knows the whole at once; exactly one `run_finished` ends it.
//! `docs/events.md` documents the stream field by field. Within one `v` fields are only added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gate::GateResult;
use crate::item::ItemId;
use crate::ports::LoadReport;
use crate::release::Operator;
use crate::status::{Cause, Status};

/// The version of the stream.
pub const EVENT_VERSION: u32 = 1;

/// One fact of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The stream's version, [`EVENT_VERSION`].
    pub v: u32,
    /// The run.
    pub run: String,
    /// Counts the run's events from 1; a reader drops what it has seen.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Milliseconds since the run began.
    pub elapsed_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The run begins; lists all it will do.
    RunStarted {
        /// `deploy`, `rollback`, `scale`, ...
        operation: String,
        /// The system.
        system: String,
        /// The target.
        target: String,
        /// Who runs it.
        operator: Operator,
        /// The release it makes or works on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<u32>,
        /// Digest of the plan.
        plan: String,
        /// True when it carries on an earlier, broken run.
        resumed: bool,
        /// Every phase with its steps, in order.
        phases: Vec<PhaseListing>,
    },
    /// A phase begins.
    PhaseStarted {
        /// Its name.
        phase: String,
        /// Its steps; they repeat `run_started`, except for the rollback phase, which nobody plans to see.
        steps: Vec<StepListing>,
        /// When it must be over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// A step begins.
    StepStarted {
        /// Its phase.
        phase: String,
        /// Its id.
        step: String,
        /// From 1; above 1 after a retry.
        attempt: u32,
    },
    /// The status of an item changed.
    Workload {
        /// The phase.
        phase: String,
        /// The step that waits for it.
        step: String,
        /// The item.
        item: ItemId,
        /// Where it stands.
        status: Status,
        /// Replicas ready.
        ready: u32,
        /// Replicas of the new revision.
        updated: u32,
        /// Replicas asked for.
        desired: u32,
        /// Why it is not current.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// When its step gives up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// Something measurable goes on.
    Progress {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// Done so far.
        done: u64,
        /// Of how many; 0 = not known.
        total: u64,
        /// One line for people.
        text: String,
    },
    /// A gate said something about one subject.
    Gate {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// What it said.
        #[serde(flatten)]
        result: GateResult,
    },
    /// A load run ended.
    Load {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// What it showed, by endpoint too.
        report: Box<LoadReport>,
    },
    /// A step is tried again.
    Retry {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// The attempt that failed.
        attempt: u32,
        /// Milliseconds until the next.
        after_ms: u64,
        /// Why it failed.
        reason: String,
    },
    /// Something a person should know; the run goes on.
    Warning {
        /// One sentence.
        text: String,
    },
    /// What was saved about a failure before anything was undone.
    Evidence {
        /// The phase.
        phase: String,
        /// The step.
        step: String,
        /// The item it is about.
        item: ItemId,
        /// Whether the failure names the item; a KPI names nobody, and everybody is looked at.
        #[serde(default = "yes")]
        named: bool,
        /// What it is: `failure`, `status`, `replica`, `log`, `previous_log`, `event`, `probe`, `gate`, `plan`.
        what: String,
        /// The lines, oldest first, with secrets starred.
        lines: Vec<String>,
        /// What was left out to bound it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cut: Option<String>,
        /// The file that keeps it beside the run; none where it could not be written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file: Option<String>,
    },
    /// A step ended.
    StepFinished {
        /// Its phase.
        phase: String,
        /// Its id.
        step: String,
        /// How.
        outcome: Outcome,
        /// One sentence.
        note: String,
        /// How long it took, all attempts.
        took_ms: u64,
    },
    /// A phase ended.
    PhaseFinished {
        /// Its name.
        phase: String,
        /// How.
        outcome: Outcome,
        /// How long it took.
        took_ms: u64,
    },
    /// The run ended; nothing follows.
    RunFinished {
        /// How.
        outcome: RunOutcome,
        /// The exit code that goes with it.
        exit: u8,
        /// One sentence on why, empty after a success.
        reason: String,
        /// The release the target runs now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<u32>,
        /// What is where: items and the release they run, when that is not all the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        serving: Vec<Serving>,
    },
}

/// Evidence told by an earlier version was about what the failure named.
const fn yes() -> bool {
    true
}

/// An item and what it runs at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// The item.
    pub item: ItemId,
    /// Its status.
    pub status: Status,
    /// The release it belongs to; none when neither the new nor the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
}

/// A phase as announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseListing {
    /// Its name.
    pub name: String,
    /// What people read.
    pub title: String,
    /// Its steps.
    pub steps: Vec<StepListing>,
}

/// A step as announced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepListing {
    /// Its id, unique in the run.
    pub id: String,
    /// What people read.
    pub title: String,
}

/// How a step or phase ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what it should.
    Success,
    /// It did, and there is something to know.
    Warning,
    /// There was nothing to do.
    Skipped,
    /// It did not.
    Failed,
    /// It was stopped from outside.
    Aborted,
    /// It never began, because of what came before.
    WillNotRun,
}

impl Outcome {
    /// Says whether what follows may begin.
    #[must_use]
    pub const fn lets_go_on(self) -> bool {
        matches!(self, Self::Success | Self::Warning | Self::Skipped)
    }

    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Warning => "done, with a warning",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::WillNotRun => "not run",
        }
    }
}

/// How a run ended. Each is one exit code of `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything asked is done.
    Succeeded,
    /// It failed, and what it changed is kept: nothing to go back to, nothing changed yet, or told to stop.
    Failed,
    /// It failed, and the release before runs again, healthy.
    RolledBack,
    /// It failed, and going back failed too.
    RollbackFailed,
    /// A deadline ended a wait that no rollback follows.
    TimedOut,
    /// A gate said no, and nothing was rolled back.
    GateFailed,
    /// A gate could not tell; the new release is kept, unverified.
    GateInconclusive,
    /// The lease went to somebody else.
    LeaseLost,
    /// A person stopped it.
    Interrupted,
}

impl RunOutcome {
    /// Returns the exit code (`docs/exit-codes.md`).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::LeaseLost => 5,
            Self::Failed => 20,
            Self::RolledBack => 21,
            Self::RollbackFailed => 22,
            Self::TimedOut => 23,
            Self::GateFailed => 30,
            Self::GateInconclusive => 31,
            Self::Interrupted => 130,
        }
    }

    /// Returns the words people read.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "failed and was rolled back",
            Self::RollbackFailed => "failed, and so did the rollback",
            Self::TimedOut => "ran out of time",
            Self::GateFailed => "was refused by a gate",
            Self::GateInconclusive => "could not be verified",
            Self::LeaseLost => "lost its lock",
            Self::Interrupted => "was interrupted",
        }
    }
}

/// Reads events as they happen. Readers must not block: the engine waits for them.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn take(&self, event: &Event);
}

/// Hands each event to several readers in turn.
#[derive(Default)]
pub struct Fanout<'a>(pub Vec<&'a dyn EventSink>);

impl EventSink for Fanout<'_> {
    fn take(&self, event: &Event) {
        for sink in &self.0 {
            sink.take(event);
        }
    }
}

/// Keeps every event, for tests and for folding later.
#[derive(Debug, Default)]
pub struct Recorder(std::sync::Mutex<Vec<Event>>);

impl Recorder {
    /// Returns what was taken so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl EventSink for Recorder {
    fn take(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.clone());
    }
}
