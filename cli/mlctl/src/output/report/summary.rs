//! The last words of a run: what came of it, why, what is where, and what to do next.

use std::path::Path;

use mlctl_core::event::{Outcome, RunOutcome};
use mlctl_core::gate::{GateResult, Verdict};
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::ports::LoadReport;
use mlctl_core::run::{RunState, StepProgress};
use mlctl_core::status::Status;

use super::words::{carry_on, duration};
use crate::output::text::{SHOWN, shortened};
use crate::output::{Printer, Style, Table, endpoint_table, gate_table};

/// What a summary says beyond what the run's events tell.
#[derive(Debug, Default)]
pub struct Known {
    /// The public front's base URL.
    pub front: Option<String>,
    /// The release that the run had no means to verify.
    pub unverified: Option<u32>,
    /// How the release has its stores, where they are not all embedded.
    pub stores: Option<String>,
}

/// Prints the summary of a finished run as data; nothing for `-o json`, whose last event is the summary.
pub fn summary(printer: &Printer, state: &RunState, known: &Known) {
    let Some(finish) = state.finish.as_ref().filter(|_| !printer.is_json()) else { return };
    let styles = printer.out_styles();
    let style = match finish.outcome {
        RunOutcome::Succeeded => Style::Good,
        RunOutcome::GateInconclusive | RunOutcome::Interrupted => Style::Warn,
        _ => Style::Bad,
    };
    let release = state.release.map_or_else(String::new, |number| match state.operation.as_str() {
        // What it goes back to is in the note of the new release.
        "rollback" => format!(", as release {number},"),
        _ => format!(" of release {number}"),
    });
    let line =
        format!("{}{release} {} in {}", state.operation, finish.outcome.words(), duration(finish.took_ms));
    printer.data("");
    printer.data(&styles.paint(style, &line));
    if !finish.reason.is_empty() {
        printer.data(&format!("  because: {}", shortened(&finish.reason, SHOWN)));
    }
    if let Some(head) = finish.head.filter(|_| state.operation != "down") {
        printer.data(&format!("  running: release {head}"));
    }
    if let Some(stores) = known.stores.as_ref().filter(|_| finish.outcome == RunOutcome::Succeeded) {
        printer.data(&format!("  {stores}"));
    }
    if let Some(number) = known.unverified.filter(|_| finish.outcome == RunOutcome::Succeeded) {
        let how = printer.hint("`mlctl deploy --phase verification` proves it");
        printer.data(&format!("  not verified: nothing has proven release {number} yet; {how}"));
    }
    if let Some(folder) = evidence(state) {
        printer.data(&format!("  evidence: {folder}"));
    }
    gates(printer, state, finish.outcome);
    load(printer, state);
    serving(printer, state);
    for hint in next(state, known.front.as_deref()) {
        printer.data(&printer.hint(&hint));
    }
}

/// Returns the folder of the run's evidence: its files lie in one below it for each failure.
fn evidence(state: &RunState) -> Option<String> {
    let file = Path::new(state.evidence_files.first()?);
    Some(file.parent()?.parent()?.display().to_string())
}

/// Shows whatever did not pass and, after a success, what the last gate said; the rest is a number, its lines were
/// told before.
fn gates(printer: &Printer, state: &RunState, outcome: RunOutcome) {
    let Some((last, _)) = state.gates.last() else { return };
    let proves = |step: &String| step == last && outcome == RunOutcome::Succeeded;
    let told = |(step, gate): &&(String, GateResult)| proves(step) || gate.verdict != Verdict::Pass;
    let shown: Vec<_> = state.gates.iter().filter(told).collect();
    let others = state.gates.len() - shown.len();
    if others > 0 {
        let other = if shown.is_empty() { "" } else { "other " };
        let noun = if others == 1 { "check" } else { "checks" };
        printer.data(&format!("  {others} {other}{noun} passed"));
    }
    if shown.is_empty() {
        return;
    }
    let table = gate_table(shown.into_iter().map(|(_, gate)| gate));
    printer.data("");
    printer.table(&table);
}

/// Shows each endpoint of a load whose result did not pass: which of them it was.
fn load(printer: &Printer, state: &RunState) {
    let failed = |gate: &GateResult| gate.verdict != Verdict::Pass;
    let judged = |report: &LoadReport| {
        let told = |gate: &GateResult| report.verdicts.iter().any(|each| each.got == gate.got);
        report.verdicts.iter().any(failed) && state.gates.iter().any(|(_, gate)| failed(gate) && told(gate))
    };
    for (_, report) in state.loads.iter().filter(|(_, report)| judged(report)) {
        printer.data("");
        printer.table(&endpoint_table(report));
    }
}

/// Shows which item runs which release, when not everything runs the same.
fn serving(printer: &Printer, state: &RunState) {
    let Some(finish) = &state.finish else { return };
    let odd = finish.serving.iter().any(|s| s.release != finish.head || s.status != Status::Current);
    if finish.serving.is_empty() || !odd {
        return;
    }
    let mut table = Table::new(&["SERVICE", "STATUS", "RELEASE"]);
    for serving in &finish.serving {
        let release = serving.release.map_or_else(|| "-".to_owned(), |number| number.to_string());
        table.plain(&[&serving.item.name, serving.status.word(), &release]);
    }
    printer.data("");
    printer.table(&table);
}

/// Says what to try next.
fn next(state: &RunState, front: Option<&str>) -> Vec<String> {
    let Some(finish) = &state.finish else { return Vec::new() };
    let failed_step = state
        .phases
        .values()
        .flat_map(|p| p.steps.values())
        .any(|step| matches!(&step.progress, StepProgress::Finished { outcome: Outcome::Failed, .. }));
    let workload = |item: &&ItemId| item.kind == ItemKind::Workload;
    let suspect = state.evidence.iter().map(|(item, _, _)| item).find(workload).map(|item| item.name.clone());
    let mut hints = vec![String::new()];
    match finish.outcome {
        RunOutcome::Succeeded => {
            if let Some(front) = front.filter(|_| state.operation != "down") {
                hints.push(format!("The system answers at {front}"));
                hints.push(format!("  curl {front}/health"));
            }
            if state.operation != "down" {
                hints.push("  mlctl status          what runs, and how it is".to_owned());
                hints.push("  mlctl logs SERVICE    what it says".to_owned());
                hints.push("  mlctl history         the releases; `mlctl rollback` goes back".to_owned());
            }
        }
        RunOutcome::Interrupted => {
            hints.push(format!("  {}", carry_on(&state.operation)));
        }
        RunOutcome::LeaseLost => hints.push("  mlctl lock show       who holds the lock now".to_owned()),
        _ => {
            if let Some(suspect) = suspect.filter(|_| failed_step) {
                hints.push(format!("  mlctl logs {suspect} --previous    what it said"));
            }
            hints.push(format!("  mlctl runs show {}    everything about this run", state.run));
        }
    }
    hints
}
