//! The supervisor behind the local target.
//!
//! Five kinds of process, each started from the same binary by a hidden verb ([`dispatch`]):
//!
//! - [`agent`]: one per state folder. Takes requests over a Unix socket, drives rolling updates, probes replicas.
//! - [`shim`]: one per replica. Holds its log, wait status, limits and stop signal, so that the agent may die and
//!   lose nothing. When the shim dies, its replica dies with it, and what its program started in the shim's session.
//! - [`shim_exec`]: between shim and program for a moment; sets what only a process can set for itself, then
//!   becomes the program.
//! - `store_exec`: makes a store's data folder and configuration, then becomes its server (PostgreSQL, Redis).
//! - [`relay`]: under a shim of its own. Owns every listening address and passes connections on to ready replicas;
//!   serves from its last table while there is no agent.
//!
//! What is absent: the crate never reads `mlctl.yaml`, knows no release and decides no rollback. It makes
//! workloads run as they were last put and says how that goes.

pub mod agent;
mod disk;
mod error;
mod listener;
mod process;
mod record;
pub mod relay;
mod runtime;
pub mod shim;
pub mod shim_exec;
mod store_exec;
mod verb;

pub use error::AgentError;
pub use process::Process;
pub use verb::dispatch;
