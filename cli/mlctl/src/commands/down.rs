//! `mlctl down`: removes what the target runs.

use clap::Args;
use mlctl_core::item::Desired;
use mlctl_core::plan;
use mlctl_core::ports::Lease;

use super::{ActArgs, prepare};
use crate::conduct::Conduct;
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
    let conduct = args.how.conduct(&session, settings, printer)?;
    conduct.in_line("down", down(args, &conduct)).await
}

async fn down(args: &DownArgs, conduct: &Conduct<'_>) -> Result<ExitStatus, CommandError> {
    let Conduct { session, settings, printer, .. } = conduct;
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
        prepare::ask(conduct, &plan).await?;
    }
    // The supervisor ends under the lock too: the next run must not lose it in the middle of its work.
    let rest = async |lease: Option<&dyn Lease>| {
        let Some(local) = &session.target.local else { return Ok(()) };
        // Without an agent nothing runs. One that a deploy has started since is not ours to end.
        if let Some(lease) = lease {
            local.stop(lease.fence()).await?;
        }
        if args.purge {
            local.purge().await?;
            printer
                .status("data, releases and secrets are removed; the journals of past runs at home are kept");
        }
        Ok(())
    };
    if runs {
        return conduct.carry_out_and(&plan, async |lease| rest(Some(lease)).await).await;
    }
    if printer.is_json() {
        report::nothing_to_do(printer, &settings.operator, &plan);
    } else {
        printer.data("nothing runs");
    }
    match &session.target.local {
        Some(local) if local.is_running().await => {
            conduct.with_lease("down", async |lease| rest(Some(lease)).await).await?;
        }
        _ => rest(None).await?,
    }
    Ok(ExitStatus::Done)
}
