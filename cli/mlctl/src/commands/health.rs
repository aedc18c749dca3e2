//! `mlctl health`: the health checks of the verification phase, now.

use std::time::Duration;

use clap::Args;
use mlctl_core::gate::{GateResult, Verdict};
use mlctl_core::item::ItemKind;
use mlctl_core::playbook::Through;
use mlctl_core::ports::ProbeRequest;
use mlctl_core::status::Status;
use mlctl_core::steps::gate::{health_checks, judge_health};

use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, gate_table};
use crate::session::Session;
use crate::settings::Settings;

/// Ask every service how it is, through the gateway and direct; ends with 30 when one is not well
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Only these services
    services: Vec<String>,
}

pub(super) async fn run(
    args: &HealthArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    for name in &args.services {
        session.known_service("ask", name)?;
    }
    let snapshot = session.observe().await?;
    let mut workloads = snapshot.items.iter().filter(|(id, _)| id.kind == ItemKind::Workload);
    if workloads.all(|(_, live)| live.status.status == Status::NotFound) {
        return Err(CommandError::refused(format!(
            "ask {} how it is: nothing runs on {}",
            session.system.name, session.target.name
        ))
        .hint("mlctl deploy starts it"));
    }
    let mut results = Vec::new();
    let chosen = |name: &str| args.services.is_empty() || args.services.iter().any(|asked| asked == name);
    for check in health_checks(&session.system, chosen, &[Through::Direct, Through::Gateway]) {
        let request = ProbeRequest {
            service: check.service.clone(),
            through: check.through,
            path: check.path.clone(),
            timeout: Duration::from_secs(3),
        };
        results.push(judge_health(&check, &session.target.inspector.probe(&request).await?));
    }
    show(printer, &results);
    Ok(match Verdict::worst(results.iter().map(|result| result.verdict)) {
        Verdict::Pass => ExitStatus::Done,
        Verdict::Fail => ExitStatus::GateFailed,
        Verdict::Inconclusive => ExitStatus::GateInconclusive,
    })
}

fn show(printer: &Printer, results: &[GateResult]) {
    if printer.is_json() {
        printer.json(&results);
        return;
    }
    printer.table(&gate_table(results));
}
