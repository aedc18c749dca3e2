//! The seams: what the engine and the commands need from the world, in a few verbs each.
//!
//! [`Orchestrator`] changes a target, [`Inspector`] only reads it (all that a read-only profile holds). The rest are
//! one question each. [`crate::sim`] plays them all in memory; [`crate::contract`] holds every target to the same
//! behaviour.

mod build;
mod error;
mod inspect;
mod keep;
mod load;
mod lock;
mod migrate;
pub mod millis;
mod write;

pub use build::{Artifact, BuildError, BuildLine, Builder, ReleaseInput};
pub use error::{ErrorKind, OrchestratorError, Result};
pub use inspect::{
    Inspector, LogLine, LogQuery, ProbeAnswer, ProbeRequest, Replica, Scrape, TargetEvent, Through,
};
pub use keep::{Journal, JournalError, OverrideStore, ReleaseStore, RunMirror};
pub use load::{EndpointReport, LoadError, LoadFault, LoadReport, LoadRequest, LoadRunner, LoadTick};
pub use lock::{Lease, LockHolder, LockLine, LockRequest, LockState, Standing, Turn, Waiter};
pub use migrate::{MigrationFile, MigrationState, StoreAdmin, StoreError, StoreMode};
pub use write::{Applied, Fence, Observation, Orchestrator, Write};

pub use crate::clock::Clock;
