//! Steps: what a planned step does. One variant, one file; each holds its parameters, its run and its tests.

pub mod apply;
pub mod gate;
pub mod load;
pub mod mark;
pub mod migrate;
pub mod wait;

use serde::{Deserialize, Serialize};

use crate::event::Outcome;
use crate::gate::GateResult;
use crate::item::ItemId;
use crate::ports::{JournalError, LoadError, OrchestratorError, StoreError};
use crate::run::StepContext;
use crate::status::Cause;

/// What a step does, complete: the engine looks nothing up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Writes to the target and waits until it is true.
    Apply(apply::Apply),
    /// Runs pending migrations.
    Migrate(migrate::Migrate),
    /// Asks the deep health of services.
    Health(gate::HealthGate),
    /// Looks for expected metric series.
    Metrics(gate::MetricsGate),
    /// Asks one public path.
    Http(gate::HttpGate),
    /// Judges KPIs over a load result.
    Kpis(gate::KpiGate),
    /// Sends load.
    Load(Box<load::Load>),
    /// Marks the release verified.
    Mark(mark::Mark),
    /// Lets time pass.
    Wait(wait::Wait),
}

impl Action {
    /// Says whether the action writes to the target or a store.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        matches!(self, Self::Apply(_) | Self::Migrate(_))
    }

    /// Carries the action out.
    ///
    /// # Errors
    /// Whatever stops the step; the engine decides what follows.
    pub async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        match self {
            Self::Apply(action) => action.run(context).await,
            Self::Migrate(action) => action.run(context).await,
            Self::Health(action) => action.run(context).await,
            Self::Metrics(action) => action.run(context).await,
            Self::Http(action) => action.run(context).await,
            Self::Kpis(action) => action.run(context).await,
            Self::Load(action) => action.run(context).await,
            Self::Mark(action) => action.run(context).await,
            Self::Wait(action) => action.run(context).await,
        }
    }
}

/// How a step that did not fail ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepNote {
    /// Success, warning or skipped.
    pub outcome: Outcome,
    /// One sentence.
    pub text: String,
}

impl StepNote {
    /// Returns a success.
    pub fn success(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Success, text: text.into() }
    }

    /// Returns a skip with its reason.
    pub fn skipped(text: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, text: text.into() }
    }
}

/// Which clock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockKind {
    /// The step's own.
    Step,
    /// The phase's.
    Phase,
    /// The whole run's (`--timeout`).
    Total,
}

impl ClockKind {
    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Phase => "phase",
            Self::Total => "run",
        }
    }
}

/// What stopped a step.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// An item cannot become current.
    #[error("{item}: {}", cause.text)]
    Terminal {
        /// The item.
        item: ItemId,
        /// Why.
        cause: Cause,
    },
    /// A clock ran out.
    #[error("the {} clock, which ran from {since} until {until}, ran out while waiting for {waiting}", clock.word())]
    Deadline {
        /// Which.
        clock: ClockKind,
        /// When it began to run.
        since: jiff::Timestamp,
        /// When it ran out.
        until: jiff::Timestamp,
        /// What the step waited for.
        waiting: String,
    },
    /// A gate said no.
    #[error("{}", crate::gate::summary(results))]
    GateFailed {
        /// All it said.
        results: Vec<GateResult>,
    },
    /// A gate could not tell.
    #[error("{}", crate::gate::summary(results))]
    GateInconclusive {
        /// All it said.
        results: Vec<GateResult>,
    },
    /// The target refused.
    #[error(transparent)]
    Target(#[from] OrchestratorError),
    /// A store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A load run could not begin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The journal could not be written; nothing was done.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Somebody asked to stop.
    #[error("stopped on request")]
    Cancelled,
    /// The lease went to somebody else.
    #[error("the lock is no longer ours")]
    LeaseLost,
}

impl StepError {
    /// Says whether the same step may succeed when tried again.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Target(error) => error.is_transient(),
            Self::Store(error) => error.unreachable,
            _ => false,
        }
    }

    /// Returns the item the error is about.
    #[must_use]
    pub const fn item(&self) -> Option<&ItemId> {
        match self {
            Self::Terminal { item, .. } => Some(item),
            _ => None,
        }
    }
}
