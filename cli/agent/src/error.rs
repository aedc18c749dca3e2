//! What can go wrong in the processes of the local target.

use std::io;
use std::path::{Path, PathBuf};

/// A process of the local target could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file operation failed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// The verb: `write`, `read`, `lock`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("cannot read {}: not the JSON expected; restore the file, or remove it", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another process holds the folder.
    #[error("{} is held by another process", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The runtime folder belongs to somebody else or is open to others.
    #[error("runtime folder {} must belong to this user and be closed to others: {reason}", path.display())]
    Runtime {
        /// Which folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A process could not be started or set up.
    #[error("cannot {operation} {subject}")]
    Process {
        /// The verb: `start`, `signal`, `become`.
        operation: &'static str,
        /// The program or process.
        subject: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The machine gives less than is needed.
    #[error(
        "the agent cannot start: this user may have {has} {what}, and {needs} are needed; raise the limit ({how}) of the shell that starts mlctl"
    )]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many it may have.
        has: u64,
        /// How many it needs.
        needs: u64,
        /// How to raise it.
        how: &'static str,
    },
    /// The relay did not do what it was asked.
    #[error("relay: cannot {operation}: {reason}")]
    Relay {
        /// The verb.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The command line of a hidden verb is wrong.
    #[error("`{verb}`: {reason}")]
    Usage {
        /// The verb.
        verb: &'static str,
        /// What is missing or unknown.
        reason: String,
    },
}

impl AgentError {
    /// Returns a closure for `map_err` on file operations.
    pub(crate) fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { operation, path, source }
    }

    /// Returns a closure for `map_err` on process operations.
    pub(crate) fn process<E: Into<io::Error>>(
        operation: &'static str,
        subject: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let subject = subject.into();
        move |source| Self::Process { operation, subject, source: source.into() }
    }
}
