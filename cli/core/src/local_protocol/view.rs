//! Workloads and replicas as the agent tells them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::item::Digest;
use crate::ports::Replica;
use crate::status::WorkloadStatus;

/// One workload as the agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkloadView {
    /// Its name.
    pub name: String,
    /// Digest of the item last put.
    pub digest: Digest,
    /// Counts the writes.
    pub generation: u64,
    /// The generation that `status` speaks of.
    pub observed_generation: u64,
    /// The count asked for.
    pub replicas: u32,
    /// True once the workload is removed; the last view of it.
    #[serde(default)]
    pub gone: bool,
    /// Where it stands; status and cause are computed by the agent's pure `diagnose`.
    pub status: WorkloadStatus,
}

/// One replica as the agent sees it, with where it listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// What people see of it.
    pub replica: Replica,
    /// Its own port.
    pub port: Option<u16>,
    /// Its metrics port.
    pub metrics_port: Option<u16>,
    /// Its folder, with its logs.
    pub folder: PathBuf,
}
