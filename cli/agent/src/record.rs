//! What the processes of the local target leave for each other in the state folder.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use jiff::Timestamp;
use mlctl_core::item::Digest;
use mlctl_core::local_protocol::{EnvSource, Limits, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::process::{Process, boot};

/// Files in a replica's folder.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaFolder(pub(crate) PathBuf);

impl ReplicaFolder {
    /// The agent's own record of the replica ([`ReplicaRecord`]).
    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("replica.json")
    }
    /// What the shim is to run ([`ShimSpec`]).
    pub(crate) fn shim_spec(&self) -> PathBuf {
        self.0.join("shim.json")
    }
    /// Held by the shim for as long as it lives; names it ([`Process`]).
    pub(crate) fn shim_lock(&self) -> PathBuf {
        self.0.join("shim.lock")
    }
    /// What the shim itself has to say.
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }
    /// Who runs ([`ShimStatus`]).
    pub(crate) fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }
    /// How it ended ([`ExitRecord`]).
    pub(crate) fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }
    /// Why the program could not be started at all; written in place of starting it.
    pub(crate) fn exec_error(&self) -> PathBuf {
        self.0.join("exec-error")
    }
    /// The text that a variable of it names, a secret in it.
    pub(crate) fn filled(&self, variable: &str) -> PathBuf {
        self.0.join(format!("env-{variable}"))
    }
    /// The working directory when none was asked for.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }
    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// What a shim is to run. Holds names of secrets, never their values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShimSpec {
    /// Program and arguments, nothing left to fill in.
    pub(crate) argv: Vec<String>,
    /// Variables, complete; texts with nothing left to fill in.
    pub(crate) env: BTreeMap<String, EnvSource>,
    /// The working directory.
    pub(crate) directory: PathBuf,
    /// The state folder, where the secrets are.
    pub(crate) root: PathBuf,
    /// The most it may use.
    pub(crate) limits: Limits,
    /// The stop signal, without `SIG`.
    pub(crate) stop_signal: String,
    /// From the stop signal to SIGKILL, in milliseconds.
    pub(crate) grace_ms: u64,
    /// The listening socket to pass as descriptor 3.
    pub(crate) passed: Option<PassedSocket>,
    /// The ports that were filled in.
    #[serde(default)]
    pub(crate) ports: Ports,
    /// Whether the shim itself starts the program again whenever it ends unasked.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// The ports of one run of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// Its own.
    pub(crate) own: Option<u16>,
    /// That of its metrics.
    pub(crate) metrics: Option<u16>,
}

/// Where to fetch a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassedSocket {
    /// The relay's control socket.
    pub(crate) relay: PathBuf,
    /// The service it belongs to.
    pub(crate) service: String,
    /// The port it is bound to.
    #[serde(default)]
    pub(crate) port: u16,
}

/// A replica that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimStatus {
    /// The shim.
    pub(crate) shim: Process,
    /// The program.
    pub(crate) program: Process,
    /// Since when.
    pub(crate) started_at: Timestamp,
    /// What of its limits is not enforced by the kernel, in words; none when all is.
    #[serde(default)]
    pub(crate) approximate: Option<String>,
    /// The ports it was told: an agent that died while starting it may have chosen others for the next try.
    #[serde(default)]
    pub(crate) ports: Option<Ports>,
    /// The boot of the machine that all this is about.
    #[serde(default)]
    pub(crate) boot: Option<String>,
}

impl ShimStatus {
    /// Says whether the shim is the one that wrote this: neither pid nor start time mean anything in another boot.
    pub(crate) fn is_alive(&self) -> bool {
        self.is_of_this_boot() && self.shim.is_alive()
    }

    /// Says whether its processes are of this boot of the machine.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.boot.as_deref().is_none_or(|known| known == boot())
    }
}

/// How a run of a replica ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// True when it was killed for its memory.
    pub(crate) oom: bool,
    /// Why it could not be started at all.
    pub(crate) exec_error: Option<String>,
    /// When.
    pub(crate) at: Timestamp,
    /// How long it ran, in milliseconds.
    pub(crate) ran_ms: u64,
    /// Processes that outlived it and were ended.
    #[serde(default)]
    pub(crate) left: u32,
    /// What people should know besides.
    #[serde(default)]
    pub(crate) note: Option<String>,
    /// Why the agent ended it, when it did.
    #[serde(default)]
    pub(crate) sick: Option<String>,
}

impl ExitRecord {
    /// Returns the record of a run that could not be begun.
    pub(crate) fn not_started(reason: String) -> Self {
        Self { exec_error: Some(reason), ..Self::unrecorded(None) }
    }

    /// Returns what there is to say of a run whose shim has left no word: how its program ended, when that can still
    /// be seen.
    pub(crate) fn unrecorded(program: Option<ExitStatus>) -> Self {
        Self {
            code: program.and_then(|status| status.code()),
            signal: program.and_then(|status| status.signal()),
            oom: false,
            exec_error: None,
            at: Timestamp::now(),
            ran_ms: 0,
            left: 0,
            note: None,
            sick: None,
        }
    }

    /// Returns how people read it: `exit code 3`, `signal 9 (SIGKILL)`, `killed for its memory`; with the note behind
    /// it in parentheses.
    pub(crate) fn words(&self) -> String {
        if let Some(reason) = &self.exec_error {
            return reason.clone();
        }
        let note = self.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        if self.oom {
            return format!("killed for its memory{note}");
        }
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => format!("signal {signal} ({name})"),
                Err(_) => format!("signal {signal}"),
            },
            (None, None) => "unknown end (its shim died)".to_owned(),
        };
        end + &note
    }
}

/// Whether the agent wants a replica to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Intent {
    /// It runs, and is started again when it ends.
    Run,
    /// It is on its way out.
    Stop,
    /// It has ended for good; its folder is kept for its logs.
    Ended,
}

/// A replica as the agent keeps it across its own death.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReplicaRecord {
    /// The workload.
    pub(crate) service: String,
    /// The revision it runs.
    pub(crate) revision: Revision,
    /// What it runs.
    pub(crate) spec: WorkloadSpec,
    /// Its own port.
    pub(crate) port: Option<u16>,
    /// Its metrics port.
    pub(crate) metrics_port: Option<u16>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// What is wanted of it.
    pub(crate) intent: Intent,
    /// How often in a row, without a minute of health in between.
    #[serde(default)]
    pub(crate) restarts_in_row: u32,
    /// True once it stayed ready for long enough.
    #[serde(default)]
    pub(crate) proven: bool,
    /// How its last run ended.
    #[serde(default)]
    pub(crate) last_exit: Option<ExitRecord>,
    /// Why the agent ends its present run, when it does.
    #[serde(default)]
    pub(crate) sick: Option<String>,
    /// True from the end of a run until the replica is available again.
    #[serde(default)]
    pub(crate) failing: bool,
}

/// What tells replicas apart in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revision {
    /// Digest of the spec, live files left out.
    pub(crate) digest: Digest,
    /// The last restart asked for.
    pub(crate) restart: Option<String>,
}

/// What was last asked of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkloadRecord {
    /// What to run.
    pub(crate) spec: WorkloadSpec,
    /// Digest of the item it was put as.
    pub(crate) digest: Digest,
    /// How many.
    pub(crate) replicas: u32,
    /// Counts the writes.
    pub(crate) generation: u64,
    /// The last restart asked for.
    #[serde(default)]
    pub(crate) restart: Option<String>,
    /// True while it is being removed.
    #[serde(default)]
    pub(crate) removed: bool,
}

impl WorkloadRecord {
    /// Returns the revision its replicas should be of. A live file is re-read by the program itself, so its content
    /// makes no revision; its name does.
    pub(crate) fn revision(&self) -> Revision {
        let mut spec = self.spec.clone();
        for file in spec.files.iter_mut().filter(|f| f.live) {
            file.content.clear();
            file.later.clear();
        }
        spec.while_needed = false;
        let value = serde_json::to_value(&spec).unwrap_or_default();
        Revision { digest: Digest::of_json(&value), restart: self.restart.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_another_boot_or_of_a_reused_pid_is_of_nobody_alive() {
        let own = Process::own();
        let status = |shim: Process, known: Option<&str>| ShimStatus {
            shim,
            program: shim,
            started_at: Timestamp::UNIX_EPOCH,
            approximate: None,
            ports: None,
            boot: known.map(ToOwned::to_owned),
        };
        assert!(status(own, Some(boot())).is_alive());
        assert!(status(own, None).is_alive(), "an older shim does not tell its boot");
        assert!(!status(own, Some("another boot")).is_alive());
        assert!(!status(Process { start: own.start + 1, ..own }, Some(boot())).is_alive());
    }
}
