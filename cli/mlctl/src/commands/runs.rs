//! `mlctl runs`: what was done on the target, by whom, and how it ended.

use std::path::Path;

use clap::{Args, Subcommand};
use mlctl_core::event::EventSink as _;
use mlctl_core::run::RunState;
use mlctl_core::run::journal::{Entry, Replay};

use crate::error::{CommandError, ExitStatus};
use crate::lock::holder_sentence;
use crate::output::report::{self, Lines, carry_on, summary};
use crate::output::{Printer, Style, Table};
use crate::session::Session;
use crate::settings::Settings;
use crate::store::{EvidenceIndex, Kept, KeptRun, kept_run};

/// List the runs, newest first, or show one
#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List the runs
    List,
    /// Show one run: its events, or its journal where the events are on another machine
    Show {
        /// The run, or the beginning of its id
        run: String,
    },
}

pub(super) async fn run(
    args: &RunsArgs,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    let session = Session::open(settings, printer).await?;
    match &args.act {
        Some(Act::Show { run }) => show(&session, printer, run).await,
        _ => list(&session, printer).await,
    }
}

/// Returns what the target keeps of a run that it lists.
async fn kept(session: &Session, run: &str) -> Result<Kept, CommandError> {
    // One that was removed meanwhile is as good as never begun.
    Ok(kept_run(session.target.mirror.as_ref(), run).await?.unwrap_or(Kept::NeverBegan))
}

async fn list(session: &Session, printer: &Printer) -> Result<ExitStatus, CommandError> {
    let holder = session.target.orchestrator.lock_holder().await?;
    let lock = holder.as_ref().map(holder_sentence);
    let at_work = holder.map(|holder| holder.request.run);
    if let Some(lock) = lock.as_ref().filter(|_| !printer.is_json()) {
        printer.data(&format!("locked: {lock}"));
    }
    let mut rows = Vec::new();
    let mut table = Table::new(&["RUN", "OPERATION", "RELEASE", "BEGAN", "BY", "OUTCOME"]);
    // One at a time: a thousand plans are not held at once.
    for run in session.target.mirror.list().await?.iter().rev() {
        let evidence = session.runs.evidence(run);
        let evidence = evidence.exists().then(|| evidence.display().to_string());
        let replay = match kept(session, run).await? {
            Kept::Run(kept) => kept.replay,
            Kept::NeverBegan => {
                rows.push(serde_json::json!({"run": run, "state": "never began"}));
                odd_row(&mut table, run, ("never began".to_owned(), None));
                continue;
            }
            Kept::Broken(reason) => {
                rows.push(serde_json::json!({"run": run, "broken": reason, "evidence": evidence}));
                odd_row(&mut table, run, (format!("broken journal: {reason}"), Some(Style::Bad)));
                continue;
            }
        };
        let state = state(&replay, at_work.as_deref());
        let began = replay.records.first().map(|record| record.at);
        if printer.is_json() {
            rows.push(serde_json::json!({
                "run": replay.run, "operation": replay.plan.operation, "operator": replay.operator,
                "release": replay.plan.release.as_ref().map(|r| r.number), "outcome": replay.closed,
                "state": state.word(), "began": began, "last": replay.last_at, "evidence": evidence,
            }));
            continue;
        }
        let outcome = match (state, replay.closed) {
            (State::Ended, Some(outcome)) => outcome.words(),
            (state, _) => state.word(),
        };
        table.plain(&[
            &replay.run,
            &replay.plan.operation,
            &replay.plan.release.as_ref().map_or_else(String::new, |release| release.number.to_string()),
            &began.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
            &replay.operator.to_string(),
            outcome,
        ]);
    }
    if printer.is_json() {
        printer.json(&serde_json::json!({"lock": lock, "runs": rows}));
    } else {
        printer.table(&table);
    }
    Ok(ExitStatus::Done)
}

/// Adds a run of which only its end can be told.
fn odd_row(table: &mut Table, run: &str, outcome: (String, Option<Style>)) {
    let empty = || (String::new(), None);
    table.row([(run.to_owned(), None), empty(), empty(), empty(), empty(), outcome]);
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ended,
    Running,
    Interrupted,
    CutOff,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::CutOff => "cut off",
        }
    }
}

/// Tells where a run stands: one that neither ended nor holds the lease is over, and only the journal's last line
/// says whether somebody stopped it or it was killed.
fn state(replay: &Replay, at_work: Option<&str>) -> State {
    if replay.closed.is_some() {
        return State::Ended;
    }
    if at_work == Some(replay.run.as_str()) {
        return State::Running;
    }
    match replay.records.last().map(|record| &record.entry) {
        Some(Entry::Interrupted) => State::Interrupted,
        _ => State::CutOff,
    }
}

/// Finds the one run whose id begins as asked.
pub(super) fn find<'a>(runs: &'a [String], operation: &str, asked: &str) -> Result<&'a str, CommandError> {
    let found: Vec<&str> = runs.iter().map(String::as_str).filter(|run| run.starts_with(asked)).collect();
    let not_found =
        |text: &str| CommandError::new(ExitStatus::NotFound, format!("{operation} run {asked}: {text}"));
    match found[..] {
        [] => Err(not_found("there is no such run").hint("`mlctl runs` lists them")),
        [run] => Ok(run),
        [..] => Err(not_found(&format!("{} runs begin so", found.len()))
            .hint(format!("name one of {}", found.join(", ")))),
    }
}

async fn show(session: &Session, printer: &Printer, asked: &str) -> Result<ExitStatus, CommandError> {
    let runs = session.target.mirror.list().await?;
    let run = find(&runs, "show", asked)?;
    let found = match kept(session, run).await? {
        Kept::Run(found) => found,
        Kept::NeverBegan => {
            let text = format!("show run {run}: it ended before its first record, and changed nothing");
            return Err(CommandError::new(ExitStatus::NotFound, text).hint("`mlctl runs` lists the runs"));
        }
        Kept::Broken(reason) => {
            let text = format!("show run {run}: its journal does not hold together: {reason}");
            return Err(CommandError::new(ExitStatus::InvalidInput, text).hint(format!(
                "`mlctl audit verify {run}` says what is wrong; `mlctl status` shows what runs"
            )));
        }
    };
    let events = session.runs.read_events(run);
    if events.is_empty() {
        journal(printer, &found);
        return Ok(ExitStatus::Done);
    }
    let mut state = RunState::default();
    if printer.is_json() {
        for event in &events {
            printer.data(&serde_json::to_string(event).unwrap_or_default());
        }
        return Ok(ExitStatus::Done);
    }
    let lines = Lines::new(printer);
    for event in &events {
        lines.take(event);
        state.apply(event);
    }
    summary(printer, &state, &report::Known::default());
    if state.finish.is_none() {
        let holder = session.target.orchestrator.lock_holder().await?;
        let at_work = holder.as_ref().map(|holder| holder.request.run.as_str());
        printer.data(&match self::state(&found.replay, at_work) {
            State::Running => "it is running".to_owned(),
            stands => format!("it was {}; {}", stands.word(), printer.hint(carry_on(&state.operation))),
        });
    }
    evidence(printer, &session.runs.evidence(run));
    Ok(ExitStatus::Done)
}

/// Lists the evidence of a run, where there is any on this machine.
fn evidence(printer: &Printer, folder: &Path) {
    let Some(index) = EvidenceIndex::read(folder) else { return };
    printer.data("");
    printer.data(&format!("Evidence in {}:", folder.display()));
    let mut table = Table::new(&["FILE", "LINES", "BYTES", "LEFT OUT"]);
    for file in index.failures.iter().flat_map(|failure| &failure.files) {
        let cut = file.cut.as_deref().unwrap_or_default();
        table.plain(&[&file.file, &file.lines.to_string(), &file.bytes.to_string(), cut]);
    }
    printer.table(&table);
}

/// Shows the journal of a run whose events are not on this machine.
fn journal(printer: &Printer, run: &KeptRun) {
    if printer.is_json() {
        printer.world().stdout(run.text.as_bytes());
        return;
    }
    printer.status("the run's events are on another machine; this is its journal");
    for record in &run.replay.records {
        printer.data(&format!("{:>4} {} {}", record.seq, record.at, record.entry.words()));
    }
}
