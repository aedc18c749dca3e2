//! What the agent needs to run one workload.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::item::Digest;

/// Everything the agent needs to run one workload: the payload of a workload item on the local target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// The service's name.
    pub name: String,
    /// Program and arguments. May hold `{port}`, `{metrics_port}`, `{data}`, `{artifact}`, `{artifact_folder}`,
    /// `{file:NAME}`; a brace that is meant stands twice.
    pub argv: Vec<String>,
    /// The content-addressed program that `{artifact}` stands for; none when `argv[0]` is found on PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
    /// The working directory, with the same placeholders as `argv`; none = the replica's own empty folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Variables; nothing else of mlctl's environment reaches a replica but PATH, HOME, LANG, TZ and TMPDIR.
    pub env: BTreeMap<String, EnvSource>,
    /// Files written before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSpec>,
    /// The stable TCP port on 127.0.0.1; none = the service listens to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How the stable port reaches the replicas.
    #[serde(default)]
    pub socket: SocketMode,
    /// Path of the metrics on the replica's metrics port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_path: Option<String>,
    /// How readiness is told.
    pub health: HealthSpec,
    /// How replicas are replaced.
    pub update: UpdateSpec,
    /// The most a replica may use.
    #[serde(default)]
    pub limits: Limits,
    /// Workloads that its replicas cannot do without: none of them is stopped while a replica of this one is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// True when it runs only while another workload needs it: what a release stands on that is not in force, and may
    /// be again. Makes no revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub while_needed: bool,
}

/// A program, or a folder of sources, kept by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// SHA-256 of its bytes; of a folder, of the names and digests of its files.
    pub digest: Digest,
    /// Its file name.
    pub file: String,
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvSource {
    /// A text, with the same placeholders as `argv`.
    Text(String),
    /// The path of the secret's file; the variable is then called NAME_FILE already.
    SecretFile(String),
    /// The secret's value itself, for programs that cannot read files.
    SecretValue(String),
    /// The path of a file that holds a text with the secret's value in it; the variable is then called NAME_FILE
    /// already. Written anew at each start, beside the replica.
    SecretText {
        /// The secret.
        secret: String,
        /// The text; `{secret}` in it is the value as it stands in a URL.
        text: String,
    },
}

impl EnvSource {
    /// Returns the secret it reads, if it reads one.
    #[must_use]
    pub const fn secret(&self) -> Option<&String> {
        match self {
            Self::Text(_) => None,
            Self::SecretFile(secret) | Self::SecretValue(secret) | Self::SecretText { secret, .. } => {
                Some(secret)
            }
        }
    }
}

/// A file beside the replicas of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSpec {
    /// Its name; `{file:NAME}` is its path, the same for all replicas.
    pub name: String,
    /// Its content.
    pub content: String,
    /// True when the program reads it again by itself: a change then rolls no replica.
    pub live: bool,
    /// What a live file holds from later times on, the earliest first. The agent writes it when its time has come,
    /// so that what ends by itself does so while nobody is looking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub later: Vec<LaterContent>,
}

/// What a live file holds from a time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterContent {
    /// From when on.
    pub from: jiff::Timestamp,
    /// What.
    pub content: String,
}

impl FileSpec {
    /// Returns when its content changes by itself next.
    #[must_use]
    pub fn changes_at(&self) -> Option<jiff::Timestamp> {
        self.later.first().map(|later| later.from)
    }

    /// Takes over the content whose time has come; says whether there was one.
    pub fn advance(&mut self, now: jiff::Timestamp) -> bool {
        let due = self.later.iter().take_while(|later| later.from <= now).count();
        match self.later.drain(..due).next_back() {
            Some(later) => {
                self.content = later.content;
                true
            }
            None => false,
        }
    }
}

/// How the stable port reaches the replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketMode {
    /// A TCP relay over the ready replicas.
    #[default]
    Relay,
    /// The listening socket itself, as descriptor 3 of every replica (LISTEN_FDS=1).
    Passed,
    /// The program listens on the stable port itself: there is never more than one replica.
    Own,
}

/// What a replica is asked by its probes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeProtocol {
    /// HTTP requests of the paths; without a path, a TCP connect.
    #[default]
    Http,
    /// A PostgreSQL server: whether it would let somebody log in.
    Postgresql,
    /// A Redis server: PING, as the user that may do nothing else.
    Redis,
}

impl ProbeProtocol {
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// Probes. All times in milliseconds; paths are asked on the replica's own port.
///
/// A replica with a passed socket has no port of its own: its probes go to its metrics port, where the program has
/// to serve the same paths. Without a metrics port, being alive counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// In which language it is asked; the paths are HTTP's.
    #[serde(default, skip_serializing_if = "ProbeProtocol::is_http")]
    pub protocol: ProbeProtocol,
    /// Asked until it first succeeds; still failing after the grace restarts the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<String>,
    /// Asked afterwards; failing restarts the replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// Asked always; failing takes the replica out of the routes. None = a TCP connect, or being alive without a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// Between two probes.
    pub period_ms: u64,
    /// For one probe.
    pub timeout_ms: u64,
    /// Failures in a row that count (readiness and liveness).
    pub failures: u32,
    /// Time after the start in which bad answers do not count: a startup probe must have succeeded by its end, and
    /// without one, liveness is asked from its end on (or from the first readiness, whichever is earlier).
    pub grace_ms: u64,
}

impl HealthSpec {
    /// Returns how long a replica may take until it has to be ready, in milliseconds: the grace, and then as many bad
    /// answers as change a verdict.
    #[must_use]
    pub fn budget_ms(&self) -> u64 {
        let answers = u64::from(self.failures).saturating_mul(self.period_ms);
        self.grace_ms.saturating_add(self.timeout_ms).saturating_add(answers)
    }
}

/// How replicas are replaced. Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSpec {
    /// Replicas above the count while rolling.
    pub surge: u32,
    /// Replicas that may be missing while rolling.
    pub unavailable: u32,
    /// How long a replica must stay ready to count as available.
    pub min_ready_ms: u64,
    /// How long in-flight requests may take after the replica left the routes. Zero = drain switched off.
    pub drain_ms: u64,
    /// From the stop signal to SIGKILL, beyond the drain.
    pub stop_grace_ms: u64,
    /// The stop signal, `TERM` by default.
    pub stop_signal: String,
    /// How long a rollout may make no progress before it is failed.
    pub progress_deadline_ms: u64,
}

/// The most a replica may use; none = no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_over_the_last_content_whose_time_has_come() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let later = |second, content: &str| LaterContent { from: at(second), content: content.to_owned() };
        let mut file = FileSpec {
            name: "f".to_owned(),
            content: "now".to_owned(),
            live: true,
            later: vec![later(10, "then"), later(20, "after"), later(30, "last")],
        };
        assert!(!file.advance(at(9)));
        assert_eq!((file.content.as_str(), file.changes_at()), ("now", Some(at(10))));
        assert!(file.advance(at(20)));
        assert_eq!((file.content.as_str(), file.changes_at()), ("after", Some(at(30))));
        assert!(file.advance(at(99)));
        assert_eq!((file.content.as_str(), file.changes_at()), ("last", None));
        assert!(!file.advance(at(99)));
    }
}
