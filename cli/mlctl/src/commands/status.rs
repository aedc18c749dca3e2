//! `mlctl status`: what runs, how it is and why, and whether it is what the release says.

use std::time::Duration;

use clap::Args;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::ports::{Replica, StoreMode};
use mlctl_core::release::{Release, ReleaseState};
use mlctl_core::run::journal::Replay;
use mlctl_core::snapshot::{Live, Snapshot};
use mlctl_core::status::Status;
use serde::Serialize;

use crate::error::{CommandError, ExitStatus};
use crate::lock::holder_sentence;
use crate::output::report::{self, carry_on, to_the_second};
use crate::output::{Printer, Style, Table};
use crate::session::Session;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::store::left_open;

/// Show what runs, its health and cause, and drift from the release
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only this service, with its replicas
    service: Option<String>,
    /// Show again at every change until interrupted
    #[arg(short, long)]
    watch: bool,
}

/// One line of the answer.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    item: ItemId,
    status: Status,
    ready: u32,
    desired: u32,
    drift: bool,
    cause: Option<String>,
}

/// The whole answer.
#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    system: String,
    target: String,
    release: Option<u32>,
    release_state: Option<&'static str>,
    /// How the release has its stores: `embedded` or `real`.
    stores: Option<StoreMode>,
    /// The same in words, where they are not all embedded.
    #[serde(skip)]
    stores_shown: Option<String>,
    /// The newest release, where none is in force because it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u32>,
    /// False where nothing of the release is there, as after `down`.
    running: bool,
    /// A run that nobody ended, and how to go on with it.
    interrupted: Option<String>,
    lock: Option<String>,
    overrides: Vec<mlctl_core::overrides::Override>,
    items: Vec<Line>,
    replicas: Vec<Replica>,
}

pub(super) async fn run(
    args: &StatusArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    // Only who watches is there for long; elsewhere a signal ends the process by itself.
    let signals = args.watch.then(Signals::hear).transpose()?;
    let mut shown = None;
    loop {
        let answer = ask(args, &session).await?;
        if shown.as_ref() != Some(&answer) {
            show(args, printer, &answer);
        }
        let Some(signals) = &signals else { return Ok(ExitStatus::Done) };
        shown = Some(answer);
        tokio::select! {
            biased;
            () = printer.world().stdout_unread() => return Ok(ExitStatus::Done),
            asked = signals.next() => return Ok(asked.status()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn ask(args: &StatusArgs, session: &Session) -> Result<Answer, CommandError> {
    let snapshot = session.observe().await?;
    let (releases, head) = session.releases(&snapshot).await?;
    let newest = releases.last().filter(|release| head.is_none() && release.state == ReleaseState::Failed);
    let mut items = lines(&snapshot, head.as_ref());
    let there = |line: &Line| line.item.kind == ItemKind::Workload && line.status != Status::NotFound;
    let running = items.iter().any(there);
    if let Some(service) = &args.service {
        items.retain(|line| line.item.name == *service);
        if items.is_empty() {
            let known: Vec<&str> = session.system.services.keys().map(String::as_str).collect();
            return Err(CommandError::new(ExitStatus::NotFound, format!("show {service}: no such service"))
                .hint(format!("there are {}", known.join(", "))));
        }
    }
    let mut replicas = session.target.inspector.replicas(args.service.as_deref()).await?;
    if args.service.is_none() {
        replicas.retain(|replica| !replica.ready);
    }
    let holder = session.target.orchestrator.lock_holder().await?;
    let at_work = holder.as_ref().map(|holder| holder.request.run.as_str());
    let interrupted = left_open(session.target.mirror.as_ref(), at_work).await?;
    Ok(Answer {
        system: session.system.name.clone(),
        target: session.target.name.clone(),
        release: snapshot.head.as_ref().map(|head| head.number),
        release_state: snapshot.head.as_ref().map(|head| head.state.word()),
        stores: head.as_ref().map(|head| head.desired.stores),
        stores_shown: head.as_ref().and_then(|head| report::stores(&head.desired)),
        failed: newest.map(|release| release.number),
        running,
        interrupted: interrupted.map(|replay| interrupted_sentence(&replay)),
        lock: holder.as_ref().map(holder_sentence),
        overrides: snapshot.overrides.clone(),
        items,
        replicas,
    })
}

fn interrupted_sentence(replay: &Replay) -> String {
    let operation = replay.plan.operation.as_str();
    format!(
        "{operation} by {} (run {}) did not end, its last word was at {}; {}",
        replay.operator,
        replay.run,
        to_the_second(replay.last_at),
        carry_on(operation)
    )
}

/// Says how many workloads are not as they should be, and which; none when all are.
fn trouble(items: &[Line]) -> Option<String> {
    let runs = |line: &&Line| line.item.kind == ItemKind::Workload || line.desired > 0;
    let workloads = || items.iter().filter(runs);
    let bad: Vec<&str> = workloads()
        .filter(|line| line.status != Status::Current || line.ready < line.desired)
        .map(|line| line.item.name.as_str())
        .collect();
    (!bad.is_empty())
        .then(|| format!("{} of {} not well: {}", bad.len(), workloads().count(), bad.join(", ")))
}

/// Returns a line for every item that is there or should be.
fn lines(snapshot: &Snapshot, head: Option<&Release>) -> Vec<Line> {
    let wanted = head.map(|head| &head.desired.items[..]).unwrap_or_default();
    let mut ids: Vec<&ItemId> = wanted.iter().map(|item| &item.id).chain(snapshot.items.keys()).collect();
    ids.sort();
    ids.dedup();
    ids.into_iter()
        .filter(|id| matches!(id.kind, ItemKind::Workload | ItemKind::Store))
        .map(|id| {
            let live = snapshot.get(id);
            let item = wanted.iter().find(|item| item.id == *id);
            line(id, &live, item.map(|item| &item.digest))
        })
        .collect()
}

fn line(id: &ItemId, live: &Live, wanted: Option<&mlctl_core::item::Digest>) -> Line {
    let drift = live.status.status != Status::NotFound && wanted.is_some() && live.digest.as_ref() != wanted;
    Line {
        item: id.clone(),
        status: live.status.status,
        ready: live.status.ready,
        desired: live.status.desired,
        drift,
        cause: live.status.cause.as_ref().map(|cause| cause.text.clone()),
    }
}

fn show(args: &StatusArgs, printer: &Printer, answer: &Answer) {
    match (printer.is_json(), args.watch) {
        (true, true) => return printer.json_line(answer),
        (true, false) => return printer.json(answer),
        (false, _) => {}
    }
    let release = match (answer.release, answer.release_state) {
        (Some(number), _) if !answer.running => format!("nothing runs (release {number} is kept)"),
        (Some(number), Some(state)) => format!("release {number} ({state})"),
        _ => match &answer.failed {
            Some(number) => format!("release {number} (failed, kept for inspection)"),
            None => "no release".to_owned(),
        },
    };
    let trouble = trouble(&answer.items).filter(|_| answer.running);
    let trouble = trouble.map(|text| format!(", {}", printer.out_styles().paint(Style::Bad, &text)));
    let head = format!("{} on {}: {release}{}", answer.system, answer.target, trouble.unwrap_or_default());
    printer.data(&head);
    if let Some(text) = &answer.stores_shown {
        printer.data(text);
    }
    if let Some(text) = &answer.interrupted {
        printer.data(&printer.out_styles().paint(Style::Warn, &printer.hint(text)));
    }
    if let Some(lock) = &answer.lock {
        printer.data(&format!("locked: {lock}"));
    }
    for entry in &answer.overrides {
        let until = entry.until.map_or_else(
            || "until it is ended".to_owned(),
            |until| format!("until {}", to_the_second(until)),
        );
        let reason =
            if entry.reason == entry.id { String::new() } else { format!(", because: {}", entry.reason) };
        printer.data(&format!(
            "{} is in force, set by {} at {}, {until}{reason}",
            entry.id,
            entry.owner,
            to_the_second(entry.since)
        ));
    }
    let mut table = Table::new(&["ITEM", "STATUS", "READY", "CAUSE"]);
    for line in &answer.items {
        let style = match line.status {
            Status::Current => Style::Good,
            Status::Failed => Style::Bad,
            _ => Style::Warn,
        };
        let ready =
            if line.desired > 0 { format!("{}/{}", line.ready, line.desired) } else { "-".to_owned() };
        let drift = if line.drift { "differs from the release; " } else { "" };
        let cause = format!("{drift}{}", line.cause.as_deref().unwrap_or_default());
        table.row([
            (line.item.to_string(), None),
            (line.status.word().to_owned(), Some(style)),
            (ready, None),
            (crate::output::text::strip_control(&cause), None),
        ]);
    }
    printer.table(&table);
    if args.service.is_some() || !answer.replicas.is_empty() {
        printer.data("");
        replicas(printer, &answer.replicas);
    }
}

fn replicas(printer: &Printer, replicas: &[Replica]) {
    let mut table = Table::new(&["REPLICA", "REVISION", "STATE", "RESTARTS", "MEMORY", "LAST EXIT"]);
    for replica in replicas {
        let style = if replica.ready { Style::Good } else { Style::Warn };
        let memory =
            replica.memory_bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        table.row([
            (replica.name.clone(), None),
            (replica.revision.clone(), None),
            (replica.state.clone(), Some(style)),
            (replica.restarts.to_string(), None),
            (memory, None),
            (replica.last_exit.clone().unwrap_or_default(), None),
        ]);
    }
    printer.table(&table);
}
