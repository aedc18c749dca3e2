//! Cancelling in two steps: the first asks (finish this step, then stop), the second aborts at the next await.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// How urgently a run should end. Ordered: a worse reason wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CancelLevel {
    /// Go on.
    #[default]
    None,
    /// Finish the step at hand, start no other.
    AfterStep,
    /// Stop at the next await.
    Now,
    /// The lease is lost: stop at the next await and write nothing more to the target.
    LeaseLost,
}

/// The sending side, held by whoever hears signals.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<Shared>);

/// The receiving side, held by whoever works.
#[derive(Debug, Clone)]
pub struct CancelToken(watch::Receiver<CancelLevel>, Arc<Shared>);

#[derive(Debug)]
struct Shared {
    level: watch::Sender<CancelLevel>,
    by_system: AtomicBool,
}

impl Canceller {
    /// Returns a canceller and its token.
    #[must_use]
    pub fn new() -> (Self, CancelToken) {
        let (sender, receiver) = watch::channel(CancelLevel::None);
        let shared = Arc::new(Shared { level: sender, by_system: AtomicBool::new(false) });
        (Self(Arc::clone(&shared)), CancelToken(receiver, shared))
    }

    /// Raises the level; a lower one than before changes nothing.
    pub fn raise(&self, level: CancelLevel) {
        self.0.level.send_if_modified(|present| {
            let worse = level > *present;
            if worse {
                *present = level;
            }
            worse
        });
    }

    /// Raises the level by one: what a further Ctrl-C does.
    pub fn escalate(&self) -> CancelLevel {
        let next = match *self.0.level.borrow() {
            CancelLevel::None => CancelLevel::AfterStep,
            _ => CancelLevel::Now,
        };
        self.raise(next);
        *self.0.level.borrow()
    }

    /// Notes that the system asks (SIGTERM), not a person: an interrupted run then ends with another exit code.
    pub fn note_system(&self) {
        self.0.by_system.store(true, Ordering::Relaxed);
    }
}

impl Default for Canceller {
    fn default() -> Self {
        Self::new().0
    }
}

impl CancelToken {
    /// Returns a token nobody cancels.
    #[must_use]
    pub fn never() -> Self {
        Canceller::new().1
    }

    /// Returns the present level.
    #[must_use]
    pub fn level(&self) -> CancelLevel {
        *self.0.borrow()
    }

    /// Says whether the system asked, not a person.
    #[must_use]
    pub fn by_system(&self) -> bool {
        self.1.by_system.load(Ordering::Relaxed)
    }

    /// Waits until the level is at least that.
    pub async fn at_least(&self, level: CancelLevel) {
        let mut receiver = self.0.clone();
        // The token keeps a sender alive, so the channel cannot close before us.
        let _ = receiver.wait_for(|present| *present >= level).await;
    }

    /// Returns a canceller for the same run, for those who find out that it must stop (a lost lease).
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn levels_only_rise_and_waiters_wake() {
        let (canceller, token) = Canceller::new();
        assert_eq!(token.level(), CancelLevel::None);
        assert_eq!(canceller.escalate(), CancelLevel::AfterStep);
        token.at_least(CancelLevel::AfterStep).await;
        assert_eq!(canceller.escalate(), CancelLevel::Now);
        token.canceller().raise(CancelLevel::LeaseLost);
        assert_eq!(canceller.escalate(), CancelLevel::LeaseLost);
        token.at_least(CancelLevel::LeaseLost).await;
    }
}
