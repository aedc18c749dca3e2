//! Sending load: a request, its report, and who runs it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A load profile as the runner gets it: everything resolved, nothing left to look up.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// The profile of `mlctl.yaml`.
    pub profile: crate::system::LoadProfile,
    /// The base URL, `http://127.0.0.1:8080`.
    pub base: String,
    /// Values for `{{secret:NAME}}`.
    pub secrets: BTreeMap<String, crate::secret::Secret>,
    /// The seed of everything random in it.
    pub seed: u64,
}

/// One second of a load run, for progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadTick {
    /// Milliseconds since the first request was due.
    pub elapsed_ms: u64,
    /// Milliseconds the schedule lasts.
    pub total_ms: u64,
    /// Requests sent so far.
    pub sent: u64,
    /// Of them failed so far.
    pub failed: u64,
    /// Response latency p99 of the last second, in microseconds.
    pub p99_us: u64,
}

/// The result of a load run; latencies count from when a request was due, not from when it was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// What was offered, requests per second.
    pub offered_per_second: f64,
    /// What was achieved, requests per second.
    pub achieved_per_second: f64,
    /// Requests that were due.
    pub due: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests with the expected answer.
    pub succeeded: u64,
    /// Requests that failed, by class: `status_500`, `refused`, `reset`, `timeout`, `not_sent`, ...
    pub failures: BTreeMap<String, u64>,
    /// Over all endpoints.
    pub total: EndpointReport,
    /// By the names of the mix.
    pub endpoints: BTreeMap<String, EndpointReport>,
    /// How late the client itself was, p99 in microseconds; large = the figures are not the server's.
    pub client_lateness_p99_us: u64,
    /// Verdict per threshold of the profile.
    pub verdicts: Vec<crate::gate::GateResult>,
    /// True when it was cut short; never passes then.
    pub interrupted: bool,
    /// Seconds the schedule lasted.
    pub seconds: f64,
}

/// Latency and errors of one endpoint. Percentiles in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Requests finished.
    pub count: u64,
    /// Of them failed.
    pub failed: u64,
    /// Response latency (from due) by percentile name: `p50`, `p90`, `p95`, `p99`, `p999`, `max`.
    pub response_us: BTreeMap<String, u64>,
    /// Service latency (from sent), same names.
    pub service_us: BTreeMap<String, u64>,
}

/// What kept a load run from its begin, and so what can be said against whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadFault {
    /// The profile cannot be sent as it stands.
    Profile,
    /// This side could not send it: no memory, a host that it must not load.
    Client,
    /// A request of the setup got no answer.
    NoAnswer,
    /// A request of the setup got another answer than the expected one: this status.
    Answer(u16),
}

/// What the public front answers while it is closed to users.
const UNAVAILABLE: u16 = 503;

impl LoadFault {
    /// Says whether the system was out of service, which says nothing about how it serves.
    #[must_use]
    pub const fn is_out_of_service(self) -> bool {
        matches!(self, Self::Answer(UNAVAILABLE))
    }
}

/// A load run that could not even begin.
#[derive(Debug, thiserror::Error)]
#[error("load profile against {base}: {reason}")]
pub struct LoadError {
    /// The base URL.
    pub base: String,
    /// What kept it.
    pub fault: LoadFault,
    /// Why, in one sentence.
    pub reason: String,
}

/// Runs load profiles.
#[async_trait]
pub trait LoadRunner: Send + Sync {
    /// Runs a profile: setup, warm-up, schedule, teardown. `tick` is called about once a second; stops early when
    /// `cancel` is set.
    async fn run(
        &self,
        request: &LoadRequest,
        tick: &(dyn Fn(LoadTick) + Send + Sync),
        cancel: &crate::run::CancelToken,
    ) -> Result<LoadReport, LoadError>;
}
