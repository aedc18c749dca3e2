//! Status of a live item: one of six values, and a cause that says why not yet and whether waiting can help.
//!
//! The vocabulary is kstatus' (`pkg/kstatus/status` of cli-utils); causes are ours.

use serde::{Deserialize, Serialize};

/// Where an item stands with respect to what was last asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The target works towards what was asked.
    InProgress,
    /// What was asked is there and ready.
    Current,
    /// The target gave up, or cannot get there.
    Failed,
    /// The item is being removed.
    Terminating,
    /// There is no such item.
    NotFound,
    /// The target could not tell.
    Unknown,
}

impl Status {
    /// Returns the word people read.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in progress",
            Self::Current => "current",
            Self::Failed => "failed",
            Self::Terminating => "terminating",
            Self::NotFound => "not found",
            Self::Unknown => "unknown",
        }
    }
}

/// Why an item is not current yet. Codes are stable: scripts and playbooks match on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// A stable word, of [`crate::cause::CauseCode`].
    pub code: String,
    /// True when waiting cannot help.
    pub terminal: bool,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// One sentence with the facts: counts, exit code, probe answer.
    pub text: String,
}

impl Cause {
    /// Returns a cause that waiting may cure.
    pub fn transient(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code: code.into(), terminal: false, since: None, text: text.into() }
    }

    /// Returns a cause that waiting cannot cure.
    pub fn terminal(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code: code.into(), terminal: true, since: None, text: text.into() }
    }
}

/// The status of one item at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// Where it stands.
    pub status: Status,
    /// Replicas that answer their readiness probe, old and new.
    pub ready: u32,
    /// Replicas of the newest revision.
    pub updated: u32,
    /// Replicas asked for.
    pub desired: u32,
    /// Why it is not current, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

impl WorkloadStatus {
    /// Returns the status of an item that has no replicas: there or not.
    #[must_use]
    pub const fn simple(status: Status) -> Self {
        Self { status, ready: 0, updated: 0, desired: 0, cause: None }
    }
}

/// A test over statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Every item is current.
    AllCurrent,
    /// No item is left.
    AllGone,
}

impl Condition {
    /// Says whether one item fulfils the condition at the generation that was applied.
    ///
    /// A status of an older generation never counts: it speaks of the world before our write
    /// (cli-utils `taskrunner/condition.go`).
    #[must_use]
    pub fn holds(self, live: &crate::snapshot::Live, applied_generation: u64) -> bool {
        match self {
            Self::AllCurrent => {
                live.observed_generation >= applied_generation && live.status.status == Status::Current
            }
            Self::AllGone => live.status.status == Status::NotFound,
        }
    }
}
