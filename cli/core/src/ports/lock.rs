//! The one lease of a target: who asks, who holds it, who waits in line for it, and the holder's hold.

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
    /// How long the lease lives without renewal, and a place in line without being asked for again.
    #[serde(with = "crate::ports::millis")]
    pub ttl: Duration,
}

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// What was asked.
    pub request: LockRequest,
    /// Since when, by the target's wall clock: shown, never compared.
    pub since: jiff::Timestamp,
    /// Until when, if not renewed: shown, never compared.
    pub expires: jiff::Timestamp,
    /// Its fence.
    pub fence: Fence,
}

/// Who waits in line for the lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Its number; a later one is served later.
    pub ticket: u64,
    /// What it asks for.
    pub request: LockRequest,
    /// Since when it waits, by the target's wall clock.
    pub since: jiff::Timestamp,
}

/// Where the lease stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nobody holds it.
    #[default]
    Free,
    /// Its holder renews it.
    Held,
    /// Its holder lives, as far as can be known, and has not renewed it in time. It goes to whoever asks next, or on
    /// with its holder if that one asks first.
    Expired,
    /// Its holder's process is dead. It goes to whoever asks next.
    Dead,
}

/// The lease and the line before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockState {
    /// Who holds it, or held it last and never gave it back; none when it is free.
    pub holder: Option<LockHolder>,
    /// Where it stands.
    pub standing: Standing,
    /// Who waits, first come first.
    pub line: Vec<Waiter>,
}

impl LockState {
    /// Returns the holder that keeps others out.
    #[must_use]
    pub fn held(&self) -> Option<&LockHolder> {
        self.holder.as_ref().filter(|_| self.standing == Standing::Held)
    }

    /// Returns the place of a request in line, from 1.
    #[must_use]
    pub fn place(&self, request: &LockRequest) -> Option<usize> {
        self.line.iter().position(|waiter| waiter.request == *request).map(|at| at + 1)
    }
}

/// What one who stands in line is answered.
pub enum Turn {
    /// It is its turn: the lease.
    Ours(Box<dyn Lease>),
    /// Others come first.
    Waits(LockState),
}

/// The lease while it is held. Dropping it without `release` lets it expire.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Returns the fence to pass with each write.
    fn fence(&self) -> Fence;
    /// Prolongs it by its time to live; fails with `LeaseLost` when it went to another, or was taken away. Late is
    /// fine as long as neither happened: nobody has written in between.
    async fn renew(&self) -> Result<()>;
    /// Names the run that it is held for, when that is known only after it was taken.
    async fn belongs_to(&self, run: &str) -> Result<()>;
    /// Gives it back; giving back twice is fine.
    async fn release(&self) -> Result<()>;
}

/// The line before the one lease of a target. First come, first served; a place is kept by asking for it again and
/// again, and lost with the process or when its time to live passes without a question.
#[async_trait]
pub trait LockLine: Send + Sync {
    /// Takes the lease when it is this request's turn; else takes, or keeps, its place at the end of the line.
    /// Asking again after an answer that got lost returns the lease that was given.
    async fn stand_in_line(&self, request: &LockRequest) -> Result<Turn>;

    /// Gives up the place in line, and the lease if it was given meanwhile. Fine when there is neither.
    async fn leave_line(&self, request: &LockRequest) -> Result<()>;

    /// Tells who holds the lease and who waits.
    async fn lock_state(&self) -> Result<LockState>;

    /// Frees the lease of that fence: what expired or belongs to the dead simply, what is held only by `force`.
    /// `Denied` when it is held, `Conflict` when the fence is not that of the lease.
    async fn break_lock(&self, fence: Fence, by: &Operator, force: bool) -> Result<()>;
}
