//! What deploy and rollback share: previews, the printed plan, saved plans, the question.

use std::collections::BTreeMap;
use std::path::Path;

use mlctl_core::item::{Desired, ItemId, ItemKind};
use mlctl_core::plan::{self, Difference, Operand, Plan, rows};
use mlctl_core::ports::{ErrorKind, Write};
use mlctl_core::release::Release;
use mlctl_core::snapshot::Snapshot;
use mlctl_core::steps::Action;

use super::ActArgs;
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::input;
use crate::output::{Printer, Style, Table, confirm, report};
use crate::session::Session;

/// Asks the target how each live item differs from the desired one.
pub(super) async fn previews(
    session: &Session,
    desired: &Desired,
    snapshot: &Snapshot,
) -> Result<BTreeMap<ItemId, Vec<Difference>>, CommandError> {
    let mut previews = BTreeMap::new();
    for item in &desired.items {
        let mut differences = session.target.orchestrator.preview(item).await?;
        // A database that does not run yet, not any more or elsewhere is asked when its migrations are due.
        let runs = |need: &ItemId| {
            let live = snapshot.get(need);
            live.is_current() && live.digest.as_ref() == desired.get(need).map(|item| &item.digest)
        };
        let reachable = item.needs.iter().all(runs);
        if item.id.kind == ItemKind::Migration && snapshot.get(&item.id).is_current() && reachable {
            // The target knows that it was handed over; only the store knows what was taken back since.
            let states = session.target.stores.migrations(item).await?;
            let pending = states.iter().filter(|state| state.applied_at.is_none());
            differences.extend(pending.map(|state| Difference {
                path: format!("migrations.{:04}_{}", state.version, state.name),
                before: None,
                after: Some("pending".to_owned()),
            }));
        }
        previews.insert(item.id.clone(), differences);
    }
    Ok(previews)
}

/// Warns that data stays where it is, when a release has its stores elsewhere than the one that runs.
pub(super) fn other_stores(head: Option<&Release>, desired: &Desired) -> Option<String> {
    let (before, after) = (head?.desired.stores, desired.stores);
    (before != after).then(|| {
        format!(
            "the services go from {} to {} stores, and data does not move: what they kept so far stays where it is, \
             and is there again when they go back",
            before.word(),
            after.word()
        )
    })
}

/// Sees that the way back could be taken, and says so before anything is changed where it could not: a program that
/// is kept nowhere any more, a secret that is gone. A failure then stops, which leaves what serves in place.
pub(super) async fn prove_way_back(session: &Session, plan: &mut Plan) -> Result<(), CommandError> {
    let Some(fallback) = &plan.fallback else { return Ok(()) };
    let actions = fallback.phase.steps.iter().map(|step| &step.action);
    let writes = actions.flat_map(|action| match action {
        Action::Apply(apply) => &apply.writes[..],
        _ => &[],
    });
    for write in writes {
        let Write::Put { item, .. } = write else { continue };
        match session.target.orchestrator.preview(item).await {
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Invalid => {
                let (number, id, reason) = (fallback.release, &item.id, &error.reason);
                let why = format!("{id} of release {number} cannot be had: {reason}");
                plan.bar_way_back(&why);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Prints a plan: JSON as it is, or a table of what changes with the fields that differ.
pub(super) fn show(printer: &Printer, plan: &Plan) {
    if printer.is_json() {
        printer.json(plan);
        return;
    }
    let (styles, mut table) = (printer.out_styles(), Table::new(&["PHASE", "STEP", "ITEM", "CHANGE"]));
    for row in rows(plan) {
        let (item, words, style) = match (row.change, row.skip) {
            (_, Some(reason)) => (String::new(), format!("nothing: {reason}"), Style::Dim),
            (None, None) => (String::new(), row.title.to_owned(), Style::Dim),
            (Some(change), None) => {
                let style = match change.op {
                    Operand::Create => Style::Good,
                    Operand::Update => Style::Warn,
                    Operand::Delete => Style::Bad,
                    Operand::Keep => Style::Dim,
                };
                let counts = change.replicas.map(|(before, after)| format!(", replicas {before} -> {after}"));
                (
                    change.item.to_string(),
                    format!("{}{}", change.op.word(), counts.unwrap_or_default()),
                    style,
                )
            }
        };
        table.row([
            (row.phase.to_owned(), None),
            (row.step.to_owned(), None),
            (item, None),
            (words, Some(style)),
        ]);
    }
    printer.table(&table);
    for change in plan.changes().filter(|change| !change.differences.is_empty()) {
        printer.data(&styles.paint(Style::Heading, &change.item.to_string()));
        differences(printer, &change.differences);
    }
    let count = plan.changes().count();
    let noun = if count == 1 { "change" } else { "changes" };
    let release = plan.release.as_ref().filter(|r| r.creates).map(|r| format!(", release {}", r.number));
    let back = match &plan.fallback {
        Some(fallback) => format!("; a failure goes back to release {}", fallback.release),
        // Why there is no way back is among the warnings.
        None if plan.is_way_back_barred() => "; a failure is kept for inspection".to_owned(),
        None if is_release_work(plan) && plan.from_verified => String::new(),
        None if is_release_work(plan) && plan.release.is_some() => {
            "; a failure is kept for inspection: there is no verified release to go back to".to_owned()
        }
        None => String::new(),
    };
    printer.data(&format!("{count} {noun}{}{back}", release.unwrap_or_default()));
    if let Some(text) = plan.release.as_ref().and_then(|release| report::stores(&release.desired)) {
        printer.data(&text);
    }
    plan.warnings.iter().for_each(|text| printer.warning(text));
}

fn is_release_work(plan: &Plan) -> bool {
    ["deploy", "rollback"].contains(&plan.operation.as_str())
}

/// Prints differing fields, old over new.
pub(super) fn differences(printer: &Printer, differences: &[Difference]) {
    let styles = printer.out_styles();
    for difference in differences {
        printer.data(&format!("  {}", difference.path));
        if let Some(before) = &difference.before {
            printer.data(&styles.paint(Style::Bad, &format!("    - {before}")));
        }
        if let Some(after) = &difference.after {
            printer.data(&styles.paint(Style::Good, &format!("    + {after}")));
        }
    }
}

/// Ends a `--dry-run`: saves the plan when told to, and says by the exit code whether there is something to do.
pub(super) fn finish_dry_run(
    printer: &Printer,
    plan: &Plan,
    out: Option<&Path>,
    exit_code: bool,
) -> Result<ExitStatus, CommandError> {
    show(printer, plan);
    if let Some(path) = out {
        save(plan, path)?;
        printer.status(&format!(
            "plan saved to {}; `mlctl deploy --plan {}` runs it",
            path.display(),
            path.display()
        ));
    }
    Ok(if exit_code && !plan.is_empty() { ExitStatus::Pending } else { ExitStatus::Done })
}

fn save(plan: &Plan, path: &Path) -> Result<(), CommandError> {
    let text = serde_json::to_string_pretty(plan)
        .map_err(|error| CommandError::bug(format!("write the plan: {error}")))?;
    std::fs::write(path, text).map_err(|error| {
        CommandError::new(ExitStatus::Bug, format!("save the plan to {}: {error}", path.display()))
            .hint("name a file in a folder that is there, has room and may be written to")
    })
}

/// Reads a saved plan.
pub(super) fn load(path: &Path) -> Result<Plan, CommandError> {
    const WRITTEN_BY: &str = "a plan is what `mlctl deploy --dry-run --out FILE` writes";
    let bytes = input::read(path, plan::LARGEST).map_err(|error| {
        let text = format!("read the plan {}: {error}", path.display());
        CommandError::new(ExitStatus::InvalidInput, text).hint(WRITTEN_BY)
    })?;
    Plan::parse(&path.display().to_string(), &bytes)
        .map_err(|problems| CommandError::from(problems).hint(WRITTEN_BY))
}

/// Shows the plan to whoever can say no, and asks. Without a terminal, a deploy or rollback of the embedded target
/// needs no yes: what it changes can be taken back.
pub(super) async fn ask(conduct: &Conduct<'_>, plan: &Plan) -> Result<(), CommandError> {
    let Conduct { session, settings, printer, .. } = conduct;
    if settings.yes || (session.target.embedded && settings.no_input && is_release_work(plan)) {
        return Ok(());
    }
    if !printer.is_json() && !settings.no_input {
        show(printer, plan);
    }
    let question = match plan.operation.as_str() {
        "down" => format!("stop {} on {} and keep its data?", plan.system, session.target.name),
        operation => format!("{operation} {} on {}?", plan.system, session.target.name),
    };
    conduct.unless_asked(&plan.operation, confirm(settings, printer, &question)).await
}

/// Carries a day-to-day act out, or prints what it would do.
pub(super) async fn act(
    conduct: &Conduct<'_>,
    plan: &Plan,
    how: &ActArgs,
) -> Result<ExitStatus, CommandError> {
    if how.dry_run {
        return finish_dry_run(conduct.printer, plan, None, false);
    }
    conduct.carry_out(plan).await
}
