//! The wish to stop, as a value: signals raise it in production, tests raise it by hand.
//!
//! Two steps, never back: `Drain` (answer what is open, then end) and `Now` (end at the next await).

use tokio::sync::watch;

/// How far the stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Drain,
    Now,
}

/// The listener's side of a stop; cheap to clone, given to every long-running task.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// The side that asks for the stop. Dropping it asks for nothing.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<Phase>);

impl Shutdown {
    /// A trigger and the shutdown that follows it.
    #[must_use]
    pub fn channel() -> (ShutdownTrigger, Shutdown) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (ShutdownTrigger(sender), Shutdown(receiver))
    }

    /// True from the first request to stop on.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Drain
    }

    /// Waits for the first request to stop.
    pub async fn draining(&self) {
        self.reached(Phase::Drain).await;
    }

    /// Waits for the request to stop without finishing anything.
    pub async fn aborted(&self) {
        self.reached(Phase::Now).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|now| *now >= phase).await.is_err() {
            // The trigger is gone and never fired: nobody can ask for a stop any more.
            std::future::pending::<()>().await;
        }
    }
}

impl ShutdownTrigger {
    /// Asks for a drain; a second call changes nothing.
    pub fn drain(&self) {
        self.raise(Phase::Drain);
    }

    /// Asks for an end without a drain.
    pub fn now(&self) {
        self.raise(Phase::Now);
    }

    fn raise(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn phases_only_go_forward() {
        let (trigger, shutdown) = Shutdown::channel();
        assert!(!shutdown.is_draining());
        trigger.now();
        trigger.drain();
        shutdown.draining().await;
        shutdown.aborted().await;
        assert!(shutdown.is_draining());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_is_no_request() {
        let (trigger, shutdown) = Shutdown::channel();
        drop(trigger);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(60), shutdown.draining()).await;
        assert!(waited.is_err());
    }
}
