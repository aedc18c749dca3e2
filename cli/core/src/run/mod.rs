//! Run: carries a plan out, tells what happens, and can be killed at any point and carried on.

mod cancel;
mod context;
mod engine;
mod hold;
pub mod journal;
mod observe;
mod records;
mod recover;
mod retry;
mod state;
mod step;

pub use cancel::{CancelLevel, CancelToken, Canceller};
pub use context::{Ports, StepContext};
pub(crate) use engine::wall;
pub use engine::{RunReport, RunRequest, execute};
pub(crate) use recover::ROLLBACK;
pub use retry::Backoff;
pub use state::{PhaseState, RunState, StepProgress, StepState};

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
