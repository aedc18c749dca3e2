//! `mlctl restart`: replaces every replica of a service by a fresh one, as a rollout.

use clap::Args;
use mlctl_core::item::Desired;
use mlctl_core::plan;

use super::{ActArgs, prepare, refuse_twice};
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::session::Session;
use crate::settings::Settings;

/// Replace every replica of a service by a fresh one, without dropping a request
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The services, one after the other
    #[arg(required = true)]
    services: Vec<String>,
    #[command(flatten)]
    how: ActArgs,
}

pub(super) async fn run(
    args: &RestartArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    refuse_twice(args.services.iter().map(String::as_str))?;
    let session = Session::open(settings, printer).await?;
    let conduct = args.how.conduct(&session, settings, printer)?;
    let make = async {
        let snapshot = session.observe().await?;
        let (_, head) = session.releases(&snapshot).await?;
        let running = head.map_or_else(Desired::default, |head| head.desired);
        let token = ulid::Ulid::new().to_string();
        let (system, target) = (&session.system.name, &session.target.name);
        Ok(plan::restart(system, target, &snapshot, &running, &args.services, &token)?)
    };
    let work = async {
        let plan = conduct.unless_asked("restart", make).await?;
        prepare::act(&conduct, &plan, &args.how).await
    };
    conduct.in_line("restart", work).await
}
