//! `mlctl down`: removes what the target runs.

use clap::Args;
use mlctl_core::item::Desired;
use mlctl_core::plan;

use super::{ActArgs, prepare};
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, confirm, report};
use crate::session::Session;
use crate::settings::Settings;

/// Remove what the target runs; data is kept unless --purge
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Remove data, releases and secrets too
    #[arg(long)]
    purge: bool,
    #[command(flatten)]
    how: ActArgs,
}

pub(super) async fn run(
    args: &DownArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let conduct = args.how.conduct(&session, settings, printer).await?;
    let make = async {
        let snapshot = session.observe().await?;
        let (_, head) = session.releases(&snapshot).await?;
        let running = head.map_or_else(Desired::default, |head| head.desired);
        Ok(plan::down(&session.system.name, &session.target.name, &snapshot, &running)?)
    };
    let plan = conduct.unless_asked("down", make).await?;
    if args.how.dry_run {
        return prepare::finish_dry_run(printer, &plan, None, false);
    }
    let runs = plan.changes().next().is_some();
    if args.purge {
        let question =
            format!("remove {} on {} with all its data?", session.system.name, session.target.name);
        conduct.unless_asked("down", confirm(settings, printer, &question)).await?;
    } else if runs {
        prepare::ask(&conduct, &plan).await?;
    }
    let status = if runs {
        conduct.carry_out(&plan).await?
    } else if printer.is_json() {
        report::nothing_to_do(printer, &settings.operator, &plan);
        ExitStatus::Done
    } else {
        printer.data("nothing runs");
        ExitStatus::Done
    };
    if status != ExitStatus::Done {
        return Ok(status);
    }
    if let Some(local) = &session.target.local {
        local.stop().await?;
    }
    if args.purge
        && let Some(folder) = &session.target.folder
    {
        std::fs::remove_dir_all(folder).or_else(ignore_missing).map_err(|error| {
            CommandError::new(ExitStatus::Failed, format!("remove {}: {error}", folder.display()))
        })?;
        printer.status("data, releases and secrets are removed; the journals of past runs at home are kept");
    }
    Ok(ExitStatus::Done)
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
