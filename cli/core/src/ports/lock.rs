//! The one lease of a target: who asks, who holds it, and the holder's hold.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Fence, Result};
use crate::release::Operator;

/// Asks for the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRequest {
    /// The verb that wants it.
    pub operation: String,
    /// Who runs it.
    pub operator: Operator,
    /// Its run.
    pub run: String,
    /// The process on the operator's host.
    pub pid: u32,
    /// That process's start time in clock ticks since boot; tells a reused pid apart. Zero = unknown.
    pub pid_start: u64,
    /// How long the lease lives without renewal.
    #[serde(with = "crate::ports::millis")]
    pub ttl: Duration,
}

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// What was asked.
    pub request: LockRequest,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Until when, if not renewed.
    pub expires: jiff::Timestamp,
    /// Its fence.
    pub fence: Fence,
}

/// The lease while it is held. Dropping it without `release` lets it expire.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Returns the fence to pass with each write.
    fn fence(&self) -> Fence;
    /// Prolongs it by its time to live; fails with `LeaseLost` when another took it.
    async fn renew(&self) -> Result<()>;
    /// Gives it back; giving back twice is fine.
    async fn release(&self) -> Result<()>;
}
