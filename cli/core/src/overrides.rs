//! Overrides: what a person or a playbook changed in an emergency, kept on the target until ended or expired.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an override changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverrideKind {
    /// A workload runs at least this many replicas.
    ReplicaFloor {
        /// The workload's name.
        service: String,
        /// The least count.
        replicas: u32,
    },
    /// A workload runs with these variables instead of the release's.
    Env {
        /// The workload's name.
        service: String,
        /// Variable and value.
        set: BTreeMap<String, String>,
    },
    /// The gateway answers 503 to everything but health.
    Maintenance {
        /// The sentence shown to users.
        message: String,
        /// What `Retry-After` says, in seconds.
        retry_after_seconds: u64,
    },
}

/// One override in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Its id, for `mlctl override end`.
    pub id: String,
    /// Who made it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Until when; none = until ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
    /// What it changes.
    pub kind: OverrideKind,
}

impl Override {
    /// Says whether it is in force at that time.
    #[must_use]
    pub fn in_force(&self, now: jiff::Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Says whether it keeps users out at that time.
    #[must_use]
    pub fn is_maintenance(&self, now: jiff::Timestamp) -> bool {
        matches!(self.kind, OverrideKind::Maintenance { .. }) && self.in_force(now)
    }
}
