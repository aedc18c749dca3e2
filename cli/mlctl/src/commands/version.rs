//! `mlctl version`: what this binary is. Opens no socket and reads no file.

use clap::Args;
use mlctl_core::event::EVENT_VERSION;
use mlctl_core::local_protocol::PROTOCOL;

use crate::error::ExitStatus;
use crate::output::Printer;

/// Print the version
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {}

/// Returns what tells this build from another: an agent of another build is replaced.
#[must_use]
pub fn build_id() -> String {
    format!("{}+{}", env!("CARGO_PKG_VERSION"), env!("MLCTL_BUILD"))
}

pub(super) fn run(_args: &VersionArgs, printer: &Printer) -> ExitStatus {
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "build": env!("MLCTL_BUILD"),
            "events": EVENT_VERSION, "agent_protocol": PROTOCOL,
        }));
    } else {
        printer.data(&format!("mlctl {} (build {})", env!("CARGO_PKG_VERSION"), env!("MLCTL_BUILD")));
    }
    ExitStatus::Done
}
