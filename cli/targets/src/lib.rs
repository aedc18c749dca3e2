//! The orchestrators that mlctl drives: the only code that knows child processes, agents and clusters.
//!
//! [`local`] is the embedded target, processes of this machine under mlctl's own agent. [`build`] makes artifacts,
//! [`probe`] asks services over HTTP.

pub mod build;
pub mod local;
pub mod probe;
