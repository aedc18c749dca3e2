//! `wait`: lets time pass.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{StepError, StepNote};
use crate::run::StepContext;

/// Parameters of `wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// How long, in milliseconds.
    pub millis: u64,
}

impl Wait {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        context.progress(0, self.millis, format!("waiting {} ms", self.millis));
        tokio::time::sleep(Duration::from_millis(self.millis)).await;
        Ok(StepNote::success(format!("waited {} ms", self.millis)))
    }
}
