//! `mlctl logs`: what a service says.

use clap::Args;
use futures::StreamExt as _;
use mlctl_core::ports::LogQuery;
use mlctl_core::system::units::TimeSpan;

use crate::error::{CommandError, ExitStatus};
use crate::output::text::strip_control;
use crate::output::{Printer, Style};
use crate::session::Session;
use crate::settings::Settings;
use crate::signals::Signals;

/// Show what a service says, all replicas together
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The service
    service: String,
    /// Keep going
    #[arg(short, long)]
    follow: bool,
    /// Only lines of this last time, such as 10m
    #[arg(long, value_name = "DURATION")]
    since: Option<TimeSpan>,
    /// Lines of earlier replicas too
    #[arg(long)]
    previous: bool,
    /// At most this many lines of the past, per replica
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

pub(super) async fn run(
    args: &LogsArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let since = args
        .since
        .map(|span| jiff::Timestamp::now().saturating_sub(span.get()).unwrap_or(jiff::Timestamp::MIN));
    let query = LogQuery {
        service: args.service.clone(),
        previous: args.previous,
        tail: args.tail,
        since,
        until: None,
        follow: args.follow,
    };
    let signals = Signals::hear()?;
    let mut lines = session.target.inspector.logs(&query).await?;
    loop {
        let line = tokio::select! {
            biased;
            () = printer.world().stdout_unread() => None,
            asked = signals.next() => return Ok(asked.status()),
            line = lines.next() => line,
        };
        let Some(line) = line else { return Ok(ExitStatus::Done) };
        let line = line?;
        if printer.is_json() {
            printer.json_line(&line);
        } else {
            let replica = printer.out_styles().paint(Style::Dim, &line.replica);
            printer.data(&format!("{replica} {}", strip_control(&line.text)));
        }
    }
}
