//! How a target refuses: one error, sorted so that retry and exit codes need no text.

use serde::{Deserialize, Serialize};

/// Sorts the ways in which a target can refuse, so that retry and exit codes need no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It does not answer, or only now and then.
    Unavailable,
    /// It answers that we may not.
    Denied,
    /// There is no such thing.
    NotFound,
    /// Somebody else changed it, or holds it.
    Conflict,
    /// What we sent makes no sense to it.
    Invalid,
    /// It did not answer in time.
    Timeout,
    /// This orchestrator cannot do that at all.
    Unsupported,
    /// The lease that fenced the call is no longer ours.
    LeaseLost,
}

/// A refusal by a target: the operation, its subject, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}: {reason}")]
pub struct OrchestratorError {
    /// What sort of refusal.
    pub kind: ErrorKind,
    /// The verb: `apply`, `observe`, `lock`.
    pub operation: &'static str,
    /// What it was done to.
    pub subject: String,
    /// One sentence; the source's text is not repeated in it.
    pub reason: String,
    /// What lies below.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl OrchestratorError {
    /// Returns an error without a source.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        subject: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self { kind, operation, subject: subject.into(), reason: reason.into(), source: None }
    }

    /// Adds what lies below.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says whether trying again may help. Retry asks only this.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

/// The result of every port that talks to a target.
pub type Result<T, E = OrchestratorError> = std::result::Result<T, E>;
