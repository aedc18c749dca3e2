//! `mlctl history`: the releases the target keeps.

use clap::Args;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::release::Release;
use mlctl_core::snapshot::Snapshot;
use mlctl_core::status::Status;

use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, Style, Table};
use crate::session::Session;
use crate::settings::Settings;

/// List the releases, newest first
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {}

pub(super) async fn run(
    _args: &HistoryArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let snapshot = session.observe().await?;
    let (releases, head) = session.releases(&snapshot).await?;
    // After `down` the head is kept, and nothing runs.
    let runs = |head: &Release| head.desired.items.iter().any(|item| is_there(&snapshot, &item.id));
    let running = head.as_ref().filter(|head| runs(head)).map(|head| head.number);
    let head = head.map(|head| head.number);
    if printer.is_json() {
        let rows: Vec<_> = releases
            .iter()
            .rev()
            .map(|release| {
                serde_json::json!({
                    "release": release.number, "tag": release.tag, "state": release.state, "head": Some(release.number) == head, "running": Some(release.number) == running,
                    "created_at": release.created_at, "author": release.author, "run": release.run,
                    "rollback_of": release.rollback_of, "note": release.note,
                })
            })
            .collect();
        printer.json(&rows);
        return Ok(ExitStatus::Done);
    }
    if releases.is_empty() {
        printer.data("no releases yet; `mlctl deploy` makes the first");
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["RELEASE", "TAG", "STATE", "CREATED", "BY", "NOTE"]);
    for release in releases.iter().rev() {
        let here = match Some(release.number) {
            number if number == running => " (running)",
            number if number == head => " (stopped)",
            _ => "",
        };
        let style = match release.state {
            mlctl_core::release::ReleaseState::Verified => Style::Good,
            mlctl_core::release::ReleaseState::Failed => Style::Bad,
            _ => Style::Warn,
        };
        let mut note = release.rollback_of.map(|of| format!("rollback of {of}; ")).unwrap_or_default();
        note.push_str(release.note.as_deref().unwrap_or_default());
        table.row([
            (format!("{}{here}", release.number), None),
            (release.tag.clone().unwrap_or_default(), None),
            (release.state.word().to_owned(), Some(style)),
            (release.created_at.strftime("%Y-%m-%d %H:%M:%S").to_string(), None),
            (release.author.to_string(), None),
            (note.trim_end_matches("; ").chars().take(80).collect(), None),
        ]);
    }
    printer.table(&table);
    Ok(ExitStatus::Done)
}

fn is_there(snapshot: &Snapshot, id: &ItemId) -> bool {
    id.kind == ItemKind::Workload && snapshot.get(id).status.status != Status::NotFound
}
