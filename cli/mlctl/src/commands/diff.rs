//! `mlctl diff`: a release against what runs.

use clap::Args;
use mlctl_core::item::ItemKind;
use mlctl_core::plan::Difference;
use mlctl_core::status::Status;

use super::prepare;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, Style};
use crate::session::Session;
use crate::settings::Settings;

/// Compare a release with what runs; ends with 10 when they differ
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The release; the running one when none is named
    revision: Option<u32>,
}

pub(super) async fn run(
    args: &DiffArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let snapshot = session.observe().await?;
    let (releases, head) = session.releases(&snapshot).await?;
    let release = match args.revision {
        None => head.ok_or_else(|| {
            CommandError::new(ExitStatus::NotFound, "compare the running release: nothing is deployed yet")
                .hint("mlctl deploy")
        })?,
        Some(number) => {
            releases.iter().find(|release| release.number == number).cloned().ok_or_else(|| {
                let text = format!("compare with release {number}: the target keeps no such release");
                CommandError::new(ExitStatus::NotFound, text).hint("`mlctl history` lists the releases")
            })?
        }
    };
    let mut found: Vec<(String, Vec<Difference>)> = Vec::new();
    for item in release.desired.items.iter().filter(|item| item.id.kind != ItemKind::Migration) {
        let live = snapshot.get(&item.id);
        let differences = if live.status.status == Status::NotFound {
            vec![Difference { path: "(whole)".into(), before: None, after: Some("not there".into()) }]
        } else {
            session.target.orchestrator.preview(item).await?
        };
        if !differences.is_empty() {
            found.push((item.id.to_string(), differences));
        }
    }
    if printer.is_json() {
        let items: Vec<_> = found
            .iter()
            .map(|(id, differences)| serde_json::json!({"item": id, "differences": differences}))
            .collect();
        printer.json(&serde_json::json!({"release": release.number, "items": items}));
    } else if found.is_empty() {
        printer.data(&format!("what runs is release {}", release.number));
    } else {
        printer.data(&format!("what runs (-) against release {} (+)", release.number));
        for (id, differences) in &found {
            printer.data(&printer.out_styles().paint(Style::Heading, id));
            prepare::differences(printer, differences);
        }
    }
    Ok(if found.is_empty() { ExitStatus::Done } else { ExitStatus::Pending })
}
