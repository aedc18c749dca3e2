//! `mlctl maintenance`: the gateway answers 503 to users while health checks go on.

use std::time::Duration;

use clap::{Args, Subcommand};
use mlctl_core::overrides::{Override, OverrideKind};
use mlctl_core::ports::{Lease, ProbeRequest, Through};
use mlctl_core::system::units::TimeSpan;

use super::ActArgs;
use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::output::report::to_the_second;
use crate::session::Session;
use crate::settings::Settings;

/// The override's id: there is at most one.
const ID: &str = "maintenance";
/// A path that maintenance closes and that nothing else answers with 503.
const CLOSED_PATH: &str = "/api/";
/// What a closed path answers.
const UNAVAILABLE: u16 = 503;
/// How long the gateway may take to show the mode.
const PATIENCE: Duration = Duration::from_secs(10);

/// Turn maintenance mode on or off; an override that outlives releases until ended
#[derive(Debug, Args)]
pub(crate) struct MaintenanceArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Answer 503 with Retry-After to users
    On {
        /// What users read
        #[arg(long, default_value = "Down for maintenance; please try again soon.")]
        message: String,
        /// When clients may come back
        #[arg(long, default_value = "60s", value_name = "DURATION")]
        retry_after: TimeSpan,
        /// End by itself after this time
        #[arg(long, value_name = "DURATION")]
        ends_in: Option<TimeSpan>,
        /// Why, for whoever looks later
        #[arg(long, default_value = "maintenance")]
        reason: String,
        #[command(flatten)]
        how: ActArgs,
    },
    /// Answer users again
    Off {
        #[command(flatten)]
        how: ActArgs,
    },
    /// Say whether it is on
    Status,
}

pub(super) async fn run(
    args: &MaintenanceArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    if session.system.gateway().is_none() {
        return Err(CommandError::refused("maintenance: the system has no gateway to answer for it")
            .hint("mark one service `gateway: true` in mlctl.yaml"));
    }
    let overrides = &session.target.overrides;
    let now = jiff::Timestamp::now();
    match &args.act {
        Act::On { message, retry_after, ends_in, reason, how } => {
            let entry = Override {
                id: ID.to_owned(),
                owner: settings.operator.to_string(),
                reason: reason.clone(),
                since: now,
                until: ends_in.and_then(|span| now.checked_add(span.get()).ok()),
                kind: OverrideKind::Maintenance {
                    message: message.clone(),
                    retry_after_seconds: retry_after.get().as_secs(),
                },
            };
            if how.dry_run {
                would(printer, true, &format!("would turn maintenance on: {message}"));
                return Ok(ExitStatus::Done);
            }
            let conduct = Conduct::new(&session, settings, printer, how.lock.wait())?;
            let put = async |lease: &dyn Lease| Ok(overrides.put(&entry, lease.fence()).await?);
            conduct.with_lease("maintenance on", put).await?;
            conduct.unless_stopped(until_served(&session, true)).await?;
            tell(printer, Some(&entry));
        }
        Act::Off { how } => {
            if how.dry_run {
                would(printer, false, "would turn maintenance off");
                return Ok(ExitStatus::Done);
            }
            let conduct = Conduct::new(&session, settings, printer, how.lock.wait())?;
            let end = async |lease: &dyn Lease| Ok(overrides.end(ID, lease.fence()).await?);
            conduct.with_lease("maintenance off", end).await?;
            conduct.unless_stopped(until_served(&session, false)).await?;
            tell(printer, None);
        }
        Act::Status => {
            let kept = overrides.list().await?;
            tell(printer, kept.iter().find(|entry| entry.id == ID && entry.in_force(now)));
        }
    }
    Ok(ExitStatus::Done)
}

/// Waits until the gateway shows the mode; one that runs takes a new table over within a fraction of a second. Where
/// none runs, the override waits for the next one.
async fn until_served(session: &Session, on: bool) -> Result<(), CommandError> {
    let request = ProbeRequest {
        service: session.system.gateway().map(|(name, _)| name.to_owned()).unwrap_or_default(),
        through: Through::Gateway,
        path: CLOSED_PATH.to_owned(),
        timeout: Duration::from_secs(1),
    };
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answers = session.target.inspector.probe(&request).await?;
        let Some(status) = answers.first().and_then(|answer| answer.status) else { return Ok(()) };
        if (status == UNAVAILABLE) == on {
            return Ok(());
        }
        if tokio::time::Instant::now() >= until {
            let did = if on { "is kept" } else { "is ended" };
            let text = format!(
                "maintenance: the override {did}, but the gateway still answers {status} after {} s",
                PATIENCE.as_secs()
            );
            return Err(
                CommandError::new(ExitStatus::TimedOut, text).hint("`mlctl logs` of the gateway says why")
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Says what a dry run would do.
fn would(printer: &Printer, maintenance: bool, text: &str) {
    if printer.is_json() {
        printer.json(&serde_json::json!({"dry_run": true, "maintenance": maintenance}));
    } else {
        printer.data(text);
    }
}

fn tell(printer: &Printer, entry: Option<&Override>) {
    if printer.is_json() {
        printer.json(&serde_json::json!({"maintenance": entry.is_some(), "override": entry}));
        return;
    }
    printer.data(&entry.map_or_else(
        || "maintenance is off".to_owned(),
        |entry| {
            let until = entry.until.map_or_else(
                || "until `mlctl maintenance off`".to_owned(),
                |at| format!("until {}", to_the_second(at)),
            );
            format!("maintenance is on since {} by {}, {until}", to_the_second(entry.since), entry.owner)
        },
    ));
}
