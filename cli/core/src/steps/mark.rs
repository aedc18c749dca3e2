//! `mark`: records that a release passed verification; a rollback may go there from now on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{StepError, StepNote};
use crate::event::Outcome;
use crate::ports::ErrorKind;
use crate::release::ReleaseState;
use crate::run::StepContext;

/// How long something may be down at the moment of truth, such as a replica that starts again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Releases that are kept, besides the head and the last verified one.
const KEPT: usize = 10;

/// Parameters of `mark`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The release.
    pub release: u32,
}

impl Mark {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        context.all_current(PATIENCE).await?;
        let effect = format!("mark release {} verified", self.release);
        // It may be marked already: by this run, cut off right after it, or by the one that verified it before.
        let kept = context.ports.releases.list().await?;
        let is_marked = kept.iter().any(|r| r.number == self.release && r.state == ReleaseState::Verified);
        if !is_marked || context.is_in_doubt(&effect) {
            context.intend(&effect, None).await?;
            context.ports.releases.mark(self.release, ReleaseState::Verified, None, context.fence).await?;
            context.done(&effect, None).await?;
        }
        // What is too much can go the next time; the release is verified all the same.
        if let Err(error) = context.ports.releases.prune(KEPT, context.fence).await {
            if error.kind == ErrorKind::LeaseLost {
                return Err(error.into());
            }
            let text = format!("release {} is verified; {error}", self.release);
            return Ok(StepNote { outcome: Outcome::Warning, text });
        }
        Ok(StepNote::success(format!("release {} is verified", self.release)))
    }
}
