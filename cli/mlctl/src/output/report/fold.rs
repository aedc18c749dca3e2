//! Folds the events of a run for its summary.

use std::sync::{Mutex, PoisonError};

use mlctl_core::event::{Event, EventSink};
use mlctl_core::run::RunState;

/// Keeps what the events so far add up to.
#[derive(Default)]
pub struct Fold(Mutex<RunState>);

impl Fold {
    /// Returns what they add up to.
    #[must_use]
    pub fn into_state(self) -> RunState {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Fold {
    fn take(&self, event: &Event) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).apply(event);
    }
}
