//! `mlctl events`: what happened on the target.

use clap::Args;
use mlctl_core::system::units::TimeSpan;

use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, Table};
use crate::session::Session;
use crate::settings::Settings;

/// Show what happened on the target, oldest first
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only this service
    service: Option<String>,
    /// Only this last time, such as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<TimeSpan>,
}

pub(super) async fn run(
    args: &EventsArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    if let Some(service) = &args.service {
        session.known_service("show the events of", service)?;
    }
    let since = args
        .since
        .map(|span| jiff::Timestamp::now().saturating_sub(span.get()).unwrap_or(jiff::Timestamp::MIN));
    let mut events = session.target.inspector.events(since).await?;
    if let Some(service) = &args.service {
        events.retain(|event| event.id.name == *service);
    }
    if printer.is_json() {
        printer.json(&events);
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&["AT", "ITEM", "REPLICA", "REASON", "WHAT"]);
    for event in &events {
        table.plain(&[
            &event.at.strftime("%H:%M:%S%.3f").to_string(),
            &event.id.to_string(),
            event.replica.as_deref().unwrap_or_default(),
            &event.reason,
            &crate::output::text::strip_control(&event.text),
        ]);
    }
    printer.table(&table);
    Ok(ExitStatus::Done)
}
