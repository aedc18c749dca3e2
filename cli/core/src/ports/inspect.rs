//! Reading a target: logs, events, replicas, probes, metrics. Nothing here can change anything.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::item::ItemId;

/// One line of a replica's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The workload.
    pub service: String,
    /// The replica.
    pub replica: String,
    /// When it was written, as far as the target knows.
    pub at: Option<jiff::Timestamp>,
    /// The text, without its newline.
    pub text: String,
}

/// Which log lines are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// The workload.
    pub service: String,
    /// Lines of earlier replicas too.
    pub previous: bool,
    /// At most this many lines of the past, per replica; none = all.
    pub tail: Option<usize>,
    /// Only lines since then.
    pub since: Option<jiff::Timestamp>,
    /// Only lines up to then.
    pub until: Option<jiff::Timestamp>,
    /// Keep going.
    pub follow: bool,
}

/// One thing that happened on the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetEvent {
    /// When.
    pub at: jiff::Timestamp,
    /// To what.
    pub id: ItemId,
    /// Which replica, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<String>,
    /// A stable word: `started`, `ready`, `exited`, `back_off`, `killed`, ...
    pub reason: String,
    /// One sentence.
    pub text: String,
}

/// One replica of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// The workload.
    pub service: String,
    /// Short digest of the revision it runs.
    pub revision: String,
    /// True when that is an earlier revision than the one wanted now: it is about to go.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// A word: `starting`, `running`, `ready`, `draining`, `back_off`, `exited`.
    pub state: String,
    /// True while it takes requests.
    pub ready: bool,
    /// Restarts so far.
    pub restarts: u32,
    /// Since when it is in that state.
    pub since: jiff::Timestamp,
    /// How it last ended: exit code or signal, as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// CPU use in millicores over the last seconds, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Resident memory in bytes, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Which way a probe takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Through {
    /// The system's public front.
    Gateway,
    /// The service's stable address.
    Service,
    /// Each replica by itself.
    Replicas,
}

/// One HTTP question to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRequest {
    /// The workload asked; for [`Through::Gateway`] only told in the answer.
    pub service: String,
    /// The way.
    pub through: Through,
    /// Path and query.
    pub path: String,
    /// How long to wait.
    #[serde(with = "crate::ports::millis")]
    pub timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Whom we asked: a replica's name, or the service.
    pub subject: String,
    /// The URL asked.
    pub url: String,
    /// The HTTP status; none when no answer came.
    pub status: Option<u16>,
    /// The first 64 KiB of the body, or why there was no answer, with control characters removed.
    pub detail: String,
    /// How long it took.
    #[serde(with = "crate::ports::millis")]
    pub took: Duration,
}

impl ProbeAnswer {
    /// Says whether the answer is a success (2xx).
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|s| (200..300).contains(&s))
    }
}

/// Metrics text of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrape {
    /// The replica.
    pub replica: String,
    /// The text in Prometheus' exposition format, or why there is none.
    pub body: std::result::Result<String, String>,
}

/// Reads a target and changes nothing: all that `--read-only` and the dashboard hold.
#[async_trait]
pub trait Inspector: Send + Sync {
    /// Streams log lines; ends after the past ones unless `follow`.
    async fn logs(&self, query: &LogQuery) -> Result<BoxStream<'static, Result<LogLine>>>;
    /// Tells what happened lately, oldest first.
    async fn events(&self, since: Option<jiff::Timestamp>) -> Result<Vec<TargetEvent>>;
    /// Tells the replicas of a workload, or of all.
    async fn replicas(&self, service: Option<&str>) -> Result<Vec<Replica>>;
    /// Asks a service over HTTP. An unreachable service is an answer, not an error.
    async fn probe(&self, request: &ProbeRequest) -> Result<Vec<ProbeAnswer>>;
    /// Reads the metrics of each replica of a workload.
    async fn scrape(&self, service: &str) -> Result<Vec<Scrape>>;
    /// Returns the base URL of the public front (`http://127.0.0.1:8080`), or of a service; none when there is none.
    async fn address(&self, service: Option<&str>) -> Result<Option<String>>;
    /// Returns a secret's value, for a load profile or a probe that needs it; never logged.
    async fn secret(&self, name: &str) -> Result<Option<crate::secret::Secret>>;
}
