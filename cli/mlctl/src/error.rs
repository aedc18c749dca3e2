//! Errors at the edge: what is printed, with which hints, and the exit code that goes with it.

use std::process::ExitCode;

use mlctl_core::event::RunOutcome;
use mlctl_core::plan::PlanError;
use mlctl_core::ports::{
    BuildError, ErrorKind, JournalError, LoadError, LoadFault, OrchestratorError, StoreError,
};
use mlctl_core::yaml::Problems;

/// Every way in which mlctl can end. The numbers are API: `docs/exit-codes.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done; the check passed.
    Done = 0,
    /// Our bug, or a failure that no other code names.
    Bug = 1,
    /// Wrong arguments.
    Usage = 2,
    /// An input file is invalid.
    InvalidInput = 3,
    /// The target or a store is unreachable, or refused us.
    Unreachable = 4,
    /// Locked by another run, or our lock was lost.
    Locked = 5,
    /// No such service, revision, run or playbook.
    NotFound = 6,
    /// Changes are pending, or drift was found.
    Pending = 10,
    /// Failed; what was changed is kept.
    Failed = 20,
    /// Failed, rolled back, healthy again.
    RolledBack = 21,
    /// The rollback failed too.
    RollbackFailed = 22,
    /// A deadline ended a wait that no rollback follows.
    TimedOut = 23,
    /// A gate said no.
    GateFailed = 30,
    /// A gate could not tell.
    GateInconclusive = 31,
    /// Refused by a guard, a read-only profile or a missing confirmation.
    Refused = 40,
    /// Interrupted by a person.
    Interrupted = 130,
    /// Asked to stop by the system.
    Terminated = 143,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

impl From<RunOutcome> for ExitStatus {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Succeeded => Self::Done,
            RunOutcome::Failed => Self::Failed,
            RunOutcome::RolledBack => Self::RolledBack,
            RunOutcome::RollbackFailed => Self::RollbackFailed,
            RunOutcome::TimedOut => Self::TimedOut,
            RunOutcome::GateFailed => Self::GateFailed,
            RunOutcome::GateInconclusive => Self::GateInconclusive,
            RunOutcome::LeaseLost => Self::Locked,
            RunOutcome::Interrupted => Self::Interrupted,
        }
    }
}

/// An error as a person meets it: what failed, what lies below, and what to do next.
#[derive(Debug)]
pub struct CommandError {
    /// How the process ends.
    pub status: ExitStatus,
    /// One sentence, or one line a problem.
    pub text: String,
    /// What lies below, outermost first.
    pub causes: Vec<String>,
    /// The next things to do.
    pub hints: Vec<String>,
}

impl CommandError {
    /// Returns an error without causes and hints.
    pub fn new(status: ExitStatus, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Returns an error that is our own fault.
    pub fn bug(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Bug, text)
    }

    /// Returns a refusal.
    pub fn refused(text: impl Into<String>) -> Self {
        Self::new(ExitStatus::Refused, text)
    }

    /// Returns the refusal of what a later version brings.
    pub fn not_yet(what: &str) -> Self {
        Self::refused(format!("{what} is not part of this version of mlctl"))
            .hint("`mlctl help` lists what is; CHANGELOG.md says what came when")
    }

    /// Adds a next thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Returns what stopped one of the hidden processes; it goes to their log.
    #[must_use]
    pub fn of_hidden(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::of(ExitStatus::Bug, error)
    }

    /// Takes over the text and causes of another error.
    fn of(status: ExitStatus, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut below = error.source();
        while let Some(cause) = below {
            causes.push(cause.to_string());
            below = cause.source();
        }
        Self { status, text: error.to_string(), causes, hints: Vec::new() }
    }
}

impl From<OrchestratorError> for CommandError {
    fn from(error: OrchestratorError) -> Self {
        let (status, hint) = match error.kind {
            ErrorKind::Unavailable | ErrorKind::Timeout => {
                (ExitStatus::Unreachable, Some("see that the target runs, or name another with --target"))
            }
            ErrorKind::Denied => {
                (ExitStatus::Unreachable, Some("the target refuses this user; ask who owns it"))
            }
            ErrorKind::NotFound => (ExitStatus::NotFound, Some("`mlctl status` lists what there is")),
            ErrorKind::Conflict | ErrorKind::LeaseLost => (
                ExitStatus::Locked,
                Some("`mlctl lock show` says who is at work; --wait-lock 5m waits in line"),
            ),
            ErrorKind::Invalid => (ExitStatus::InvalidInput, None),
            ErrorKind::Unsupported => (ExitStatus::Refused, None),
        };
        let mut edge = Self::of(status, &error);
        edge.hints.extend(hint.map(str::to_owned));
        edge
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        let edge = |status| Self::of(status, &error);
        match &error {
            PlanError::EarlierPhase { missing, .. } => {
                edge(ExitStatus::Refused).hint(format!("mlctl deploy --phase {missing}"))
            }
            PlanError::Mixed { .. } => edge(ExitStatus::Refused).hint("mlctl deploy, or mlctl rollback"),
            PlanError::NoSuchPhase { .. } => edge(ExitStatus::Usage),
            PlanError::BadStep { .. } | PlanError::Cycle { .. } => edge(ExitStatus::InvalidInput),
            PlanError::AlreadyThere { .. } => {
                edge(ExitStatus::Refused).hint("`mlctl history` lists the releases")
            }
            PlanError::NotRunning { .. } | PlanError::NothingDeployed { .. } => {
                edge(ExitStatus::Refused).hint("mlctl deploy starts it")
            }
            PlanError::NothingVerified { .. } => {
                edge(ExitStatus::Refused).hint("name one with --to-revision; `mlctl history` lists them")
            }
            PlanError::NoSuchRelease { .. } => {
                edge(ExitStatus::NotFound).hint("`mlctl history` lists the releases")
            }
            PlanError::NoSuchService { .. } => edge(ExitStatus::NotFound),
            PlanError::OtherStores { .. } => {
                edge(ExitStatus::Refused).hint("roll the whole release back: name no service")
            }
            PlanError::OutOfRange { .. } => {
                edge(ExitStatus::Refused).hint("change `replicas` in mlctl.yaml and deploy")
            }
        }
    }
}

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> Self {
        let mut edge = Self::of(ExitStatus::Failed, &error);
        edge.causes.extend(error.tail.iter().cloned());
        edge.hint("nothing was changed on the target; mend the build and deploy again")
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let status = if error.unreachable { ExitStatus::Unreachable } else { ExitStatus::Failed };
        Self::of(status, &error)
    }
}

impl From<mlctl_stores::FilesError> for CommandError {
    fn from(error: mlctl_stores::FilesError) -> Self {
        Self::of(ExitStatus::InvalidInput, &error)
    }
}

impl From<LoadError> for CommandError {
    fn from(error: LoadError) -> Self {
        let status = match error.fault {
            LoadFault::Profile => ExitStatus::InvalidInput,
            LoadFault::Client | LoadFault::NoAnswer => ExitStatus::Unreachable,
            fault if fault.is_out_of_service() => ExitStatus::GateInconclusive,
            LoadFault::Answer(_) => ExitStatus::GateFailed,
        };
        Self::of(status, &error)
    }
}

impl From<JournalError> for CommandError {
    fn from(error: JournalError) -> Self {
        Self::of(ExitStatus::Bug, &error)
            .hint("see that the state folder is writable and has room ($MLCTL_STATE)")
    }
}

impl From<Problems> for CommandError {
    fn from(problems: Problems) -> Self {
        let text = problems.to_string();
        Self::new(ExitStatus::InvalidInput, text.trim_end())
    }
}

impl From<mlctl_core::system::ProfileError> for CommandError {
    fn from(error: mlctl_core::system::ProfileError) -> Self {
        Self::of(ExitStatus::InvalidInput, &error)
    }
}

impl From<mlctl_core::playbook::BindError> for CommandError {
    fn from(error: mlctl_core::playbook::BindError) -> Self {
        Self::of(ExitStatus::InvalidInput, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_outcomes_and_statuses_agree_on_the_number() {
        for outcome in [
            RunOutcome::Succeeded,
            RunOutcome::Failed,
            RunOutcome::RolledBack,
            RunOutcome::RollbackFailed,
            RunOutcome::TimedOut,
            RunOutcome::GateFailed,
            RunOutcome::GateInconclusive,
            RunOutcome::LeaseLost,
            RunOutcome::Interrupted,
        ] {
            assert_eq!(ExitStatus::from(outcome) as u8, outcome.exit_code(), "{outcome:?}");
        }
    }
}
