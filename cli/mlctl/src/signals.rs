//! Signals: Ctrl-C is a person's wish to stop, SIGTERM and SIGHUP are the system's.
//!
//! Once heard, a signal no longer ends the process by itself. Whoever makes [`Signals`] therefore waits for them in
//! everything that may take long; what comes in between is kept until somebody asks.

use std::convert::Infallible;
use std::future::Future;

use mlctl_core::run::{CancelLevel, Canceller};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;

use crate::error::{CommandError, ExitStatus};

/// Who wants the command to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Somebody pressed Ctrl-C.
    ByPerson,
    /// The system ends the process, or its terminal is gone.
    BySystem,
}

impl Asked {
    /// Returns the exit code that goes with it.
    #[must_use]
    pub const fn status(self) -> ExitStatus {
        match self {
            Self::ByPerson => ExitStatus::Interrupted,
            Self::BySystem => ExitStatus::Terminated,
        }
    }
}

/// The signals that ask a command to stop.
pub struct Signals(Mutex<Streams>);

struct Streams {
    interrupt: Signal,
    terminate: Signal,
    /// None where the process was started to outlive its terminal (`nohup`).
    hangup: Option<Signal>,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// A system that installs no handlers.
    pub fn hear() -> Result<Self, CommandError> {
        let stream =
            |kind| signal(kind).map_err(|error| CommandError::bug(format!("listen for signals: {error}")));
        Ok(Self(Mutex::new(Streams {
            hangup: if ignores_hangup() { None } else { Some(stream(SignalKind::hangup())?) },
            interrupt: stream(SignalKind::interrupt())?,
            terminate: stream(SignalKind::terminate())?,
        })))
    }

    /// Waits for the next wish to stop.
    pub async fn next(&self) -> Asked {
        let mut streams = self.0.lock().await;
        let Streams { interrupt, terminate, hangup } = &mut *streams;
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => Asked::ByPerson,
            _ = terminate.recv() => Asked::BySystem,
            _ = hung_up => Asked::BySystem,
        }
    }

    /// Turns signals into requests to stop, the first asks and the second insists; `tell` says so.
    pub async fn pass_on(&self, canceller: &Canceller, tell: impl Fn(CancelLevel)) -> Infallible {
        loop {
            if self.next().await == Asked::BySystem {
                canceller.note_system();
            }
            tell(canceller.escalate());
        }
    }

    /// Waits for what others do until it is done or somebody wants to stop waiting.
    ///
    /// # Errors
    /// Those of the work; a wish to stop.
    pub async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        tokio::select! {
            result = work => result,
            asked = self.next() => Err(CommandError::new(asked.status(), "stopped waiting; what was changed stays")),
        }
    }

    /// Works until it is done or somebody wants it to stop; the work is then dropped where it stands. Only for what
    /// changes nothing on the target.
    ///
    /// # Errors
    /// Those of the work; a wish to stop.
    pub async fn unless_asked<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        tokio::select! {
            result = work => result,
            asked = self.next() => {
                let text = format!("{operation}: stopped before anything was changed");
                Err(CommandError::new(asked.status(), text))
            }
        }
    }
}

/// Says whether this process was told to ignore SIGHUP when it was started; listening would undo that.
fn ignores_hangup() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal n is bit n - 1 (proc_pid_status(5)), and SIGHUP is 1.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use mlctl_core::run::Canceller;
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    /// One test for all: a signal reaches every listener of the process.
    #[tokio::test]
    async fn each_signal_is_somebodys_wish_and_none_is_lost() {
        let signals = Signals::hear().unwrap();
        for (number, asked, status) in [
            (Number::SIGINT, Asked::ByPerson, ExitStatus::Interrupted),
            (Number::SIGTERM, Asked::BySystem, ExitStatus::Terminated),
            (Number::SIGHUP, Asked::BySystem, ExitStatus::Terminated),
        ] {
            if number == Number::SIGHUP && ignores_hangup() {
                // The tests themselves were started so, as by nohup.
                continue;
            }
            // It comes while nobody waits.
            raise(number).unwrap();
            let heard = signals.next().await;
            assert_eq!((heard, heard.status()), (asked, status), "{number}");
        }
        raise(Number::SIGTERM).unwrap();
        let pending = std::future::pending::<Result<(), CommandError>>();
        let error = signals.unless_asked("deploy", pending).await.unwrap_err();
        assert_eq!(error.status, ExitStatus::Terminated);

        let (canceller, cancel) = Canceller::new();
        raise(Number::SIGTERM).unwrap();
        tokio::select! {
            never = signals.pass_on(&canceller, |_| ()) => match never {},
            () = cancel.at_least(CancelLevel::AfterStep) => {}
        }
        assert!(cancel.by_system());
    }
}
