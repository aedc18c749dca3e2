//! `mlctl scale`: changes replica counts, inside what mlctl.yaml allows.

use clap::Args;
use mlctl_core::item::Desired;
use mlctl_core::plan;

use super::{ActArgs, prepare, refuse_twice};
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::session::Session;
use crate::settings::Settings;

/// Change replica counts; kept through later releases
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Service and count, such as api=3
    #[arg(required = true, value_name = "SVC=N")]
    counts: Vec<String>,
    #[command(flatten)]
    how: ActArgs,
}

pub(super) async fn run(
    args: &ScaleArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let counts = args.counts.iter().map(|pair| parse(pair)).collect::<Result<Vec<_>, _>>()?;
    refuse_twice(counts.iter().map(|(service, _)| service.as_str()))?;
    let session = Session::open(settings, printer).await?;
    let conduct = args.how.conduct(&session, settings, printer)?;
    let make = async {
        let snapshot = session.observe().await?;
        let (_, head) = session.releases(&snapshot).await?;
        let running = head.map_or_else(Desired::default, |head| head.desired);
        Ok(plan::scale(&session.system.name, &session.target.name, &snapshot, &running, &counts)?)
    };
    let work = async {
        let plan = conduct.unless_asked("scale", make).await?;
        prepare::act(&conduct, &plan, &args.how).await
    };
    conduct.in_line("scale", work).await
}

fn parse(pair: &str) -> Result<(String, u32), CommandError> {
    pair.split_once('=')
        .and_then(|(service, count)| Some((service.to_owned(), count.parse().ok()?)))
        .ok_or_else(|| {
            CommandError::new(ExitStatus::Usage, format!("{pair}: expected SERVICE=COUNT, such as api=3"))
        })
}
