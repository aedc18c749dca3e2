//! Time, injected: wall time for records, tokio's clock for waiting.

use jiff::Timestamp;
use tokio::time::Instant;

/// Tells the wall time.
pub trait Clock: Send + Sync {
    /// Returns the time now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that starts at a fixed time and moves with tokio's, so that paused tests see virtual time everywhere.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    base: Timestamp,
    started: Instant,
}

impl VirtualClock {
    /// Returns a clock that says `base` now.
    #[must_use]
    pub fn starting_at(base: Timestamp) -> Self {
        Self { base, started: Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.base.saturating_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }
}
