//! Plan: phases of steps with nothing left to choose, made by a pure function and carried out by [`crate::run`].
//!
//! A plan serializes: `--out` saves it, `--plan` runs it, the journal keeps it for a resume.

mod acts;
mod build;
mod error;
mod fallback;
mod file;
mod order;
mod planner;
mod render;

use serde::{Deserialize, Serialize};

pub use acts::{down, restart, scale};
pub use error::PlanError;
pub use fallback::{BREAKS_OLDER, IRREVERSIBLE};
pub use file::LARGEST;
pub use planner::{Operation, PlanInput, Selection, plan, rollback_desired};
pub use render::{Row, rows};

use crate::event::{PhaseListing, StepListing};
use crate::item::{Desired, Digest, ItemId};
use crate::playbook::{OnFailure, StepFailure};
use crate::steps::Action;

/// What a step does to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// It is not there yet.
    Create,
    /// It is there and differs.
    Update,
    /// It is there and should not be.
    Delete,
    /// It is as it should be.
    Keep,
}

impl Operand {
    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Keep => "keep",
        }
    }
}

/// One field that differs. Secret values never stand here, only their versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field, as a dotted path: `env.LOG_LEVEL`.
    pub path: String,
    /// What it is; none = absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it will be; none = absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What happens to one item, with the reasons as data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The item.
    pub item: ItemId,
    /// What happens.
    pub op: Operand,
    /// Fields that differ, for an update.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
    /// Replicas before and after, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<(u32, u32)>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in the plan: `apply:api`.
    pub id: String,
    /// What people read.
    pub title: String,
    /// What it does.
    pub action: Action,
    /// What it changes; empty for a step that only looks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Milliseconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Attempts after the first, when the error may pass.
    pub retries: u32,
    /// What its failure leads to.
    pub on_failure: StepFailure,
    /// Why it is known beforehand to have nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<String>,
}

/// One phase of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// What people read.
    pub title: String,
    /// Milliseconds it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

impl Phase {
    /// Returns the phase as it is announced.
    #[must_use]
    pub fn listing(&self) -> PhaseListing {
        let steps =
            self.steps.iter().map(|s| StepListing { id: s.id.clone(), title: s.title.clone() }).collect();
        PhaseListing { name: self.name.clone(), title: self.title.clone(), steps }
    }
}

/// The release that a plan makes or works on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRelease {
    /// Its number.
    pub number: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// True when the run creates it; false when it only verifies what runs.
    pub creates: bool,
    /// The release it restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u32>,
    /// What should run.
    pub desired: Desired,
}

/// The way back, planned together with the way forward.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fallback {
    /// The release it leads to: the last verified one.
    pub release: u32,
    /// Its steps.
    pub phase: Phase,
}

/// An immutable plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `deploy`, `rollback`, `scale`, `restart`.
    pub operation: String,
    /// The system.
    pub system: String,
    /// The target's name.
    pub target: String,
    /// Fingerprint of the snapshot it was made for.
    pub base: Digest,
    /// The release that was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// True when that release passed verification.
    pub from_verified: bool,
    /// Milliseconds the whole run may take, as the playbook limits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The release it is about; none for a change that is no release (scale, restart, infrastructure alone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<PlannedRelease>,
    /// The phases, in order.
    pub phases: Vec<Phase>,
    /// What a failure leads to, where a step does not say otherwise.
    pub on_failure: OnFailure,
    /// The way back; none when there is no verified release before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Phases whose failure takes the way back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rolls_back: Vec<String>,
    /// The phase after which the release is the head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_after: Option<String>,
    /// What a person should know before saying yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// True when the run ends with the release verified.
    pub verifies: bool,
}

impl Plan {
    /// Returns the digest that names this plan, for approvals and the journal.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // A plan holds only strings, numbers and JSON values: it always serializes.
        Digest::of_json(&serde_json::to_value(self).unwrap_or_default())
    }

    /// Returns every change that is not "keep".
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.phases
            .iter()
            .flat_map(|p| &p.steps)
            .flat_map(|s| &s.changes)
            .filter(|change| change.op != Operand::Keep)
    }

    /// Returns all steps with the names of their phases.
    pub fn steps(&self) -> impl Iterator<Item = (&str, &Step)> {
        self.phases.iter().flat_map(|p| p.steps.iter().map(|s| (p.name.as_str(), s)))
    }

    /// Gives up the way back, and says why: a failure then stops, which leaves what serves in place.
    pub fn bar_way_back(&mut self, why: &str) {
        self.fallback = None;
        self.warnings.push(fallback::barred(why));
    }

    /// Says whether the warnings tell why there is no way back.
    #[must_use]
    pub fn is_way_back_barred(&self) -> bool {
        self.warnings.iter().any(|text| text.starts_with(fallback::BARRED))
    }

    /// Says whether carrying it out would change nothing and prove nothing new.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let creates = self.release.as_ref().is_some_and(|release| release.creates);
        !self.verifies
            && !creates
            && self.changes().next().is_none()
            && self.steps().all(|(_, s)| s.is_idle())
    }
}

impl Step {
    /// Says whether the step neither writes nor has anything to look at that was not seen at plan time.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.skip.is_some() || (self.action.is_change() && self.changes.iter().all(|c| c.op == Operand::Keep))
    }
}

#[cfg(test)]
mod tests;
