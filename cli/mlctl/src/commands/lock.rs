//! `mlctl lock`: who holds the target's lock, who waits for it, and how to free it.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use mlctl_core::ports::{ErrorKind, LockHolder, LockState, Standing};

use crate::error::{CommandError, ExitStatus};
use crate::lock::holder_sentence;
use crate::output::report::to_the_second;
use crate::output::{Printer, Style, Table, confirm};
use crate::session::Session;
use crate::settings::Settings;

/// Show who holds the target's lock and who waits for it, or free it
///
/// One run at a time changes a target. The lock is kept on the target and renewed by its holder; one whose owner died
/// on the target's machine is free at once, one whose owner went silent when its time is over.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Say who holds the lock, since when, and who waits in line
    Show,
    /// Free a lock whose owner is gone; with --force, take it away from one who is not
    Release {
        /// Although its owner lives and renews it: its next write is refused, and its run ends with 5
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn run(
    args: &LockArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    let state = session.target.orchestrator.lock_state().await?;
    match args.act {
        Act::Show => {
            show(printer, &session.target.name, &state);
            Ok(ExitStatus::Done)
        }
        Act::Release { force } => release(&session, settings, printer, &state, force).await,
    }
}

fn show(printer: &Printer, target: &str, state: &LockState) {
    if printer.is_json() {
        printer.json(&serde_json::json!({
            "held": state.held().is_some(), "standing": state.standing, "holder": state.holder, "line": state.line,
        }));
        return;
    }
    match &state.holder {
        None => printer.data(&format!("nobody holds the lock of {target}")),
        Some(holder) => describe(printer, holder, state.standing),
    }
    if state.line.is_empty() {
        return;
    }
    printer.data("");
    let mut table = Table::new(&["PLACE", "TICKET", "OPERATION", "BY", "RUN", "PID", "IN LINE SINCE"]);
    for (place, waiter) in (1..).zip(&state.line) {
        let request = &waiter.request;
        table.plain(&[
            &place.to_string(),
            &waiter.ticket.to_string(),
            &request.operation,
            &request.operator.to_string(),
            &request.run,
            &request.pid.to_string(),
            &to_the_second(waiter.since),
        ]);
    }
    printer.table(&table);
}

fn describe(printer: &Printer, holder: &LockHolder, standing: Standing) {
    let request = &holder.request;
    let (alive, style) = match standing {
        Standing::Dead => ("its process is dead: whoever asks next gets the lock", Style::Bad),
        Standing::Expired => ("not renewed in time: whoever asks next gets the lock", Style::Warn),
        Standing::Held | Standing::Free => ("alive, renews it", Style::Good),
    };
    let renewed = holder.expires.checked_sub(request.ttl).unwrap_or(Timestamp::MIN);
    printer.data(&format!("{} by {}", request.operation, request.operator));
    let row = |name: &str, text: &str| printer.data(&format!("  {name:<8} {text}"));
    row("run", &request.run);
    row("process", &format!("pid {} on {}", request.pid, request.operator.host));
    row("since", &to_the_second(holder.since));
    row("renewed", &to_the_second(renewed));
    row("expires", &format!("{} unless renewed", to_the_second(holder.expires)));
    row("owner", &printer.out_styles().paint(style, alive));
}

async fn release(
    session: &Session,
    settings: &Settings,
    printer: &Printer,
    state: &LockState,
    force: bool,
) -> Result<ExitStatus, CommandError> {
    let Some(holder) = &state.holder else {
        tell(
            printer,
            None,
            &format!("nobody holds the lock of {}: there is nothing to release", session.target.name),
        );
        return Ok(ExitStatus::Done);
    };
    let sentence = holder_sentence(holder);
    let owner = format!("{} on {}", holder.request.pid, holder.request.operator.host);
    let refused = || {
        CommandError::refused(format!("release the lock: its owner lives and renews it: {sentence}"))
            .hint("--wait-lock 5m waits in line behind it")
            .hint(format!("a SIGTERM to process {owner} ends its run between two steps, and frees the lock"))
            .hint("--force takes the lock away: the run stops at its next write, in the middle of its work")
    };
    if state.held().is_some() {
        if !force {
            return Err(refused());
        }
        let question = format!("take the lock away from {sentence}?");
        confirm(settings, printer, &question).await?;
    }
    let broken = session.target.orchestrator.break_lock(holder.fence, &settings.operator, force).await;
    match broken {
        Ok(()) => {
            let how = if state.held().is_some() { "taken away from" } else { "released; it was that of" };
            tell(printer, Some(holder), &format!("the lock is {how} {sentence}"));
            Ok(ExitStatus::Done)
        }
        // It was renewed since we looked.
        Err(error) if error.kind == ErrorKind::Denied => Err(refused()),
        Err(error) if error.kind == ErrorKind::Conflict => {
            let text = format!("release the lock: it changed hands meanwhile: {}", error.reason);
            Err(CommandError::new(ExitStatus::Locked, text).hint("`mlctl lock show` says who holds it now"))
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(printer: &Printer, released: Option<&LockHolder>, text: &str) {
    if printer.is_json() {
        printer.json(&serde_json::json!({"released": released.is_some(), "holder": released}));
    } else {
        printer.data(text);
    }
}
