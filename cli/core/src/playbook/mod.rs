//! Playbooks: what a run does, as people write it. A deploy is one too.
//!
//! [`PlaybookFile::parse`] reads and checks a file; [`PlaybookFile::bind`] fills in its parameters and gives the
//! typed [`Playbook`]. A playbook names no orchestrator, and the ones built in name no service either: what they
//! mean for a certain system is the planner's to find out.

mod bind;
mod cross;
mod file;
mod model;
mod shape;

pub use bind::BindError;
pub use file::{PlaybookFile, reference, schema};
pub use model::*;

/// Names of the playbooks built in.
pub const BUILTIN: &[&str] = &["deploy", "rollback"];

/// Returns the text of a playbook built in, for a system that has no file of that name.
pub fn builtin(name: &str) -> Option<&'static str> {
    match name {
        "deploy" => Some(include_str!("../../../../playbooks/deploy.yaml")),
        "rollback" => Some(include_str!("../../../../playbooks/rollback.yaml")),
        _ => None,
    }
}
