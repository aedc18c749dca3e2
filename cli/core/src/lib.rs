//! The method of mlctl: what a system is, what should run, what runs, what to do about the difference, and an
//! engine that does it through a few narrow ports.
//!
//! Nothing here opens a socket, reads a file, looks at the environment or prints: the crate computes, and the
//! [`ports`] say what the world must offer. Modules in reading order:
//!
//! 1. [`system`] and [`playbook`]: the two files a person writes, checked with line numbers ([`yaml`]).
//! 2. [`item`], [`release`], [`snapshot`], [`status`], [`cause`]: what should run, what runs, and why not yet.
//! 3. [`plan`]: the pure planner from those to an immutable plan; [`steps`] says what each step does.
//! 4. [`gate`], [`metrics`]: verdicts over probes, samples and load results.
//! 5. [`run`]: the engine, its journal, retries and cancellation; [`event`] is what it tells.
//! 6. [`ports`]: the seams; [`sim`] plays all of them from a script, [`contract`] holds fakes and targets to one behaviour.

pub mod cause;
pub mod clock;
#[cfg(feature = "sim")]
pub mod contract;
pub mod event;
pub mod gate;
pub mod item;
pub mod local_protocol;
pub mod mask;
pub mod metrics;
pub mod overrides;
pub mod plan;
pub mod playbook;
pub mod ports;
pub mod release;
pub mod run;
pub mod secret;
#[cfg(feature = "sim")]
pub mod sim;
pub mod snapshot;
pub mod status;
pub mod steps;
pub mod system;
pub mod yaml;
