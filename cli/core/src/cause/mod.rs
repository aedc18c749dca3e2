//! Causes: a closed table of why a workload is not current yet, and when each of them means that waiting cannot help.
//!
//! A target maps what it sees (an exit, an event, a task's message) to [`Facts`]; [`judge()`] is the only place that
//! turns them into a verdict, so that a crash loop is the same thing on every target. One crash may be chance and one
//! failed pull a busy registry: what may pass by itself is given the patience that its row says, and no more.
//!
//! Where a rule speaks of one replica, the worst one counts. That all of them or one for long enough is what fails a
//! workload lies in the rules themselves: [`Rule::Restarts`] has a number for each, the others have a time.

mod judge;

pub use judge::{Facts, judge, seconds};

/// Restarts of every new replica that make a crash loop.
pub const LOOP_OF_ALL: u32 = 2;
/// Restarts of one new replica that make a crash loop.
pub const LOOP_OF_ONE: u32 = 4;

const SECOND: u64 = 1_000;
const RESTARTS: Rule = Rule::Restarts { all: LOOP_OF_ALL, any: LOOP_OF_ONE };

/// When a cause is terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// As soon as it is seen.
    AtOnce,
    /// When it is seen so many times: the first may be a race that the target itself resolves.
    Sightings(u32),
    /// When every new replica was started again so often in a row, or any of them that much more often.
    Restarts {
        /// Restarts of each.
        all: u32,
        /// Restarts of one.
        any: u32,
    },
    /// When it lasts so many milliseconds and nothing moves; never while the target says that help is on its way.
    Patience(u64),
    /// Never before the time is over that a replica's own probes grant it; then the progress deadline decides.
    ProbeBudget,
    /// Only the progress deadline decides.
    Deadline,
}

/// Why a workload is not current. The words are stable: scripts and playbooks match on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CauseCode {
    /// The program or image of the release is not where the release says.
    ArtifactMissing,
    /// The program cannot be started at all: not executable, no such interpreter, a folder that is not there.
    ExecFailed,
    /// The image's name makes no sense, or the policy forbids to pull it.
    ImageInvalid,
    /// The registry says that there is no such image, or not for us.
    ImageMissing,
    /// The image cannot be had at the moment: a busy registry, a timeout, a name that does not resolve.
    ImagePull,
    /// A process ended that should run.
    Exited,
    /// It ends again and again: what [`Self::Exited`] becomes.
    CrashLoop,
    /// It was killed for its memory.
    Oom,
    /// It ended with 0 and left processes behind: it put itself in the background.
    Backgrounded,
    /// What has to run before it failed.
    InitFailed,
    /// The node could not run it: no fault of the release.
    CannotRun,
    /// Configuration or a secret that it names is not there (yet).
    ConfigMissing,
    /// No node has room for it.
    Unschedulable,
    /// The target refuses to make its replicas: a quota, a limit, a webhook.
    CreateFailed,
    /// A volume cannot be attached or mounted.
    MountFailed,
    /// A node refused a task: a mount, a port, a network, a runtime error.
    Rejected,
    /// Its port is somebody else's.
    PortTaken,
    /// It runs and says that it is not ready.
    NotReady,
    /// It was started and has not answered yet.
    Starting,
    /// It is ready, and not for long enough.
    MinReady,
    /// The new replicas are there and the old ones still end.
    Draining,
    /// Everything runs and the address in front of it does not serve yet.
    Relay,
    /// A replica was moved away: evicted, preempted, its node lost.
    Evicted,
    /// Somebody paused the rollout.
    Paused,
    /// The target gave the rollout up by itself: it stopped it, or took it back without being asked.
    GivenUp,
    /// Nothing came nearer to the end for too long.
    ProgressDeadline,
    /// It was current in this run and is no longer.
    Fell,
}

impl CauseCode {
    /// Every code.
    pub const ALL: [Self; 27] = [
        Self::ArtifactMissing,
        Self::ExecFailed,
        Self::ImageInvalid,
        Self::ImageMissing,
        Self::ImagePull,
        Self::Exited,
        Self::CrashLoop,
        Self::Oom,
        Self::Backgrounded,
        Self::InitFailed,
        Self::CannotRun,
        Self::ConfigMissing,
        Self::Unschedulable,
        Self::CreateFailed,
        Self::MountFailed,
        Self::Rejected,
        Self::PortTaken,
        Self::NotReady,
        Self::Starting,
        Self::MinReady,
        Self::Draining,
        Self::Relay,
        Self::Evicted,
        Self::Paused,
        Self::GivenUp,
        Self::ProgressDeadline,
        Self::Fell,
    ];

    /// Returns the stable word and the rule: the table.
    #[must_use]
    pub const fn row(self) -> (&'static str, Rule) {
        match self {
            Self::ArtifactMissing => ("artifact_missing", Rule::AtOnce),
            Self::ExecFailed => ("exec_failed", Rule::AtOnce),
            Self::ImageInvalid => ("image_invalid", Rule::AtOnce),
            Self::ImageMissing => ("image_missing", Rule::Sightings(2)),
            Self::ImagePull => ("image_pull", Rule::Patience(180 * SECOND)),
            Self::Exited => ("exited", RESTARTS),
            Self::CrashLoop => ("crash_loop", Rule::AtOnce),
            Self::Oom => ("oom", RESTARTS),
            Self::Backgrounded => ("backgrounded", RESTARTS),
            Self::InitFailed => ("init_failed", RESTARTS),
            Self::CannotRun => ("cannot_run", Rule::Deadline),
            Self::ConfigMissing => ("config_missing", Rule::Patience(60 * SECOND)),
            Self::Unschedulable => ("unschedulable", Rule::Patience(75 * SECOND)),
            Self::CreateFailed => ("create_failed", Rule::Patience(30 * SECOND)),
            Self::MountFailed => ("mount_failed", Rule::Patience(180 * SECOND)),
            Self::Rejected => ("rejected", Rule::Sightings(2)),
            // A process that is just ending frees its port within moments.
            Self::PortTaken => ("port_taken", Rule::Patience(3 * SECOND)),
            Self::NotReady => ("not_ready", Rule::ProbeBudget),
            Self::Starting => ("starting", Rule::ProbeBudget),
            Self::MinReady => ("min_ready", Rule::ProbeBudget),
            Self::Draining => ("draining", Rule::Deadline),
            Self::Relay => ("relay", Rule::Deadline),
            Self::Evicted => ("evicted", Rule::Deadline),
            Self::Paused => ("paused", Rule::Deadline),
            Self::GivenUp => ("given_up", Rule::AtOnce),
            Self::ProgressDeadline => ("progress_deadline", Rule::AtOnce),
            Self::Fell => ("fell", Rule::AtOnce),
        }
    }

    /// Returns the stable word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.row().0
    }

    /// Returns when it is terminal.
    #[must_use]
    pub const fn rule(self) -> Rule {
        self.row().1
    }

    /// Returns the code it is told under once its rule is met.
    #[must_use]
    pub const fn when_terminal(self) -> Self {
        match self {
            Self::Exited => Self::CrashLoop,
            other => other,
        }
    }
}

impl From<CauseCode> for String {
    fn from(code: CauseCode) -> Self {
        code.word().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_word_of_its_own() {
        let words: BTreeSet<&str> = CauseCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), CauseCode::ALL.len());
        assert!(
            words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_')),
            "{words:?}"
        );
        let codes: BTreeSet<CauseCode> = CauseCode::ALL.into_iter().collect();
        assert_eq!(codes.len(), CauseCode::ALL.len());
    }

    #[test]
    fn what_a_cause_becomes_when_terminal_is_terminal() {
        for code in CauseCode::ALL {
            let last = code.when_terminal();
            assert!(last == code || last.rule() == Rule::AtOnce, "{code:?}");
        }
    }
}
