//! Run: carries a plan out, tells what happens, and can be killed at any point and carried on.

pub mod audit;
mod cancel;
mod context;
mod engine;
mod evidence;
mod gather;
mod hold;
pub mod journal;
mod observe;
mod records;
mod recover;
pub mod retention;
mod retry;
mod span;
mod state;
mod step;
mod witness;

pub use cancel::{CancelLevel, CancelToken, Canceller};
pub use context::{Ports, StepContext};
pub use engine::{RunReport, RunRequest, execute};
pub(crate) use recover::ROLLBACK;
pub use retry::Backoff;
pub(crate) use span::wall;
pub use state::{PhaseState, RunState, StepProgress, StepState};

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests;
