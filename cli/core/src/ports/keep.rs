//! What is kept on a target: releases, overrides, journals.

use async_trait::async_trait;

use super::{ErrorKind, Fence, OrchestratorError, Result};
use crate::overrides::Override;
use crate::release::{Release, ReleaseState};

/// Keeps releases on the target.
#[async_trait]
pub trait ReleaseStore: Send + Sync {
    /// Returns all kept releases, oldest first.
    async fn list(&self) -> Result<Vec<Release>>;
    /// Writes a release for the first time. Its number is one more than the highest ever given.
    async fn create(&self, release: &Release, fence: Fence) -> Result<()>;
    /// Changes state and note of a kept release.
    async fn mark(&self, number: u32, state: ReleaseState, note: Option<String>, fence: Fence) -> Result<()>;
    /// Says which release the target runs from now on.
    async fn set_head(&self, number: u32, fence: Fence) -> Result<()>;
    /// Returns the next free number.
    async fn next_number(&self) -> Result<u32>;
    /// Forgets releases beyond retention: keeps the newest `keep`, the head and the last verified one.
    async fn prune(&self, keep: usize, fence: Fence) -> Result<Vec<u32>>;
}

/// Keeps overrides on the target.
#[async_trait]
pub trait OverrideStore: Send + Sync {
    /// Returns those kept, expired ones too.
    async fn list(&self) -> Result<Vec<Override>>;
    /// Adds or replaces one by id.
    async fn put(&self, entry: &Override, fence: Fence) -> Result<()>;
    /// Ends one; says whether it was there.
    async fn end(&self, id: &str, fence: Fence) -> Result<bool>;
}

/// Keeps journals of runs, written ahead: a line is durable on the target when `append` returns. The copy at home
/// follows, and may end early.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends one line (without newline).
    async fn append(&self, line: &str) -> std::result::Result<(), JournalError>;
}

/// Keeps a copy of each journal on the target, so that a lost machine or home folder loses no run.
#[async_trait]
pub trait RunMirror: Send + Sync {
    /// Appends one record as a line (without newline); durable when this returns. A record that does not follow the
    /// last one kept is refused (`Conflict`): another process has carried the run on.
    async fn append(&self, run: &str, line: &str) -> Result<()>;
    /// Returns a journal as text; none when the target has no such run.
    async fn read(&self, run: &str) -> Result<Option<String>>;
    /// Returns the runs it keeps, oldest first.
    async fn list(&self) -> Result<Vec<String>>;
    /// Drops what stands behind the last whole line of a journal.
    async fn trim(&self, run: &str) -> Result<()> {
        Err(unsupported("trim the journal of", run))
    }
    /// Forgets a journal; one that is not there is fine.
    async fn remove(&self, run: &str) -> Result<()> {
        Err(unsupported("remove the journal of", run))
    }
}

fn unsupported(operation: &'static str, run: &str) -> OrchestratorError {
    let reason = "this target keeps what it was given";
    OrchestratorError::new(ErrorKind::Unsupported, operation, run, reason)
}

/// A journal that could not be written or read; the run must stop before the effect.
#[derive(Debug, thiserror::Error)]
#[error("{operation} the journal of run {run}: {reason}")]
pub struct JournalError {
    /// The verb.
    pub operation: &'static str,
    /// The run.
    pub run: String,
    /// Why.
    pub reason: String,
    /// What lies below.
    #[source]
    pub source: Option<std::io::Error>,
}
