//! Changing a target: writes, what they are answered, and the seam that carries them out.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{Lease, LockHolder, LockLine, LockRequest, ReleaseInput, Result};
use crate::item::{Desired, Item, ItemId};
use crate::plan::Difference;
use crate::snapshot::{Live, Snapshot};
use crate::system::System;

/// Proves that the caller holds the lease; a target refuses a write fenced by an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence(pub u64);

/// What a target answers to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The item's generation after the write; an older status is not about it.
    pub generation: u64,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "write")]
pub enum Write {
    /// Make the item exist as described, with that many replicas. Repeating it changes nothing.
    Put {
        /// What should be.
        item: Item,
        /// The replica count of a workload.
        replicas: Option<u32>,
    },
    /// Remove the item; removing what is not there succeeds.
    Remove {
        /// What should go.
        id: ItemId,
    },
    /// Change only the replica count.
    Scale {
        /// The workload.
        id: ItemId,
        /// The new count.
        replicas: u32,
    },
    /// Replace every replica by a fresh one of the same revision, as a rollout.
    Restart {
        /// The workload.
        id: ItemId,
        /// Names this restart, so that repeating it changes nothing.
        token: String,
    },
}

impl Write {
    /// Returns the item that is written to.
    #[must_use]
    pub const fn id(&self) -> &ItemId {
        match self {
            Self::Put { item, .. } => &item.id,
            Self::Remove { id } | Self::Scale { id, .. } | Self::Restart { id, .. } => id,
        }
    }
}

/// One observation of an item by [`Orchestrator::watch`].
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Which item.
    pub id: ItemId,
    /// How it stands.
    pub live: Live,
}

/// A target that runs things.
#[async_trait]
pub trait Orchestrator: LockLine {
    /// Turns a system into items this target understands. Touches nothing.
    async fn resolve(&self, system: &System, input: &ReleaseInput) -> Result<Desired>;

    /// Tells what runs now, with the head release and the overrides in force.
    async fn observe(&self) -> Result<Snapshot>;

    /// Tells how a live item differs from one that should be, without changing anything.
    async fn preview(&self, item: &Item) -> Result<Vec<Difference>>;

    /// Carries out one write. Accepted is not done: `watch` tells when.
    async fn apply(&self, write: &Write, fence: Fence) -> Result<Applied>;

    /// Streams every change of the items named, the present state of each first. Ends only with an error.
    async fn watch(&self, ids: &[ItemId]) -> Result<BoxStream<'static, Result<Observation>>>;

    /// Takes the one lease of the target, or says who holds it or waits in line for it (`Conflict`).
    async fn lock(&self, request: &LockRequest) -> Result<Box<dyn Lease>>;

    /// Tells who holds the lease now and keeps others out.
    async fn lock_holder(&self) -> Result<Option<LockHolder>> {
        Ok(self.lock_state().await?.held().cloned())
    }
}
