//! `mlctl runs`: what was done on the target, by whom, and how it ended.

use clap::{Args, Subcommand};
use mlctl_core::event::EventSink as _;
use mlctl_core::run::RunState;
use mlctl_core::run::journal::{Entry, Replay};

use crate::error::{CommandError, ExitStatus};
use crate::lock::holder_sentence;
use crate::output::report::{Lines, carry_on, summary};
use crate::output::{Printer, Style, Table};
use crate::session::Session;
use crate::settings::Settings;
use crate::store::{KeptRun, kept_runs};

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
    let kept = kept_runs(session.target.mirror.as_ref()).await?;
    match &args.act {
        Some(Act::Show { run }) => show(&session, printer, &kept, run).await,
        _ => list(&session, printer, &kept).await,
    }
}

async fn list(
    session: &Session,
    printer: &Printer,
    kept: &[Result<KeptRun, (String, String)>],
) -> Result<ExitStatus, CommandError> {
    let holder = session.target.orchestrator.lock_holder().await?;
    let lock = holder.as_ref().map(holder_sentence);
    let at_work = holder.map(|holder| holder.request.run);
    if printer.is_json() {
        let rows: Vec<_> = kept
            .iter()
            .rev()
            .map(|run| match run {
                Ok(run) => serde_json::json!({
                    "run": run.replay.run, "operation": run.replay.plan.operation, "operator": run.replay.operator,
                    "release": run.replay.plan.release.as_ref().map(|r| r.number), "outcome": run.replay.closed,
                    "state": state(&run.replay, at_work.as_deref()).word(),
                    "began": run.replay.records.first().map(|r| r.at), "last": run.replay.last_at,
                }),
                Err((run, reason)) => serde_json::json!({"run": run, "broken": reason}),
            })
            .collect();
        printer.json(&serde_json::json!({"lock": lock, "runs": rows}));
        return Ok(ExitStatus::Done);
    }
    if let Some(lock) = lock {
        printer.data(&format!("locked: {lock}"));
    }
    let mut table = Table::new(&["RUN", "OPERATION", "RELEASE", "BEGAN", "BY", "OUTCOME"]);
    for run in kept.iter().rev() {
        let run = match run {
            Ok(run) => run,
            Err((run, reason)) => {
                table.row([
                    (run.clone(), None),
                    (String::new(), None),
                    (String::new(), None),
                    (String::new(), None),
                    (String::new(), None),
                    (format!("broken journal: {reason}"), Some(Style::Bad)),
                ]);
                continue;
            }
        };
        let replay = &run.replay;
        let outcome = match (state(replay, at_work.as_deref()), replay.closed) {
            (State::Ended, Some(outcome)) => outcome.words(),
            (state, _) => state.word(),
        };
        let began = replay.records.first().map(|record| record.at.strftime("%Y-%m-%d %H:%M:%S").to_string());
        table.plain(&[
            &replay.run,
            &replay.plan.operation,
            &replay.plan.release.as_ref().map_or_else(String::new, |release| release.number.to_string()),
            &began.unwrap_or_default(),
            &replay.operator.to_string(),
            outcome,
        ]);
    }
    printer.table(&table);
    Ok(ExitStatus::Done)
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
fn find<'a>(kept: &'a [Result<KeptRun, (String, String)>], asked: &str) -> Result<&'a KeptRun, CommandError> {
    let id = |run: &'a Result<KeptRun, (String, String)>| match run {
        Ok(run) => run.replay.run.as_str(),
        Err((run, _)) => run.as_str(),
    };
    let found: Vec<_> = kept.iter().filter(|run| id(run).starts_with(asked)).collect();
    let not_found = |text: &str| CommandError::new(ExitStatus::NotFound, format!("show run {asked}: {text}"));
    match found[..] {
        [] => Err(not_found("the target keeps no such run").hint("`mlctl runs` lists them")),
        [Ok(run)] => Ok(run),
        [Err((run, reason))] => {
            let text = format!("show run {run}: its journal does not hold together: {reason}");
            Err(CommandError::new(ExitStatus::InvalidInput, text)
                .hint("the target's copy was changed or damaged; `mlctl status` shows what runs"))
        }
        [..] => {
            let ids: Vec<&str> = found.iter().map(|run| id(run)).collect();
            Err(not_found(&format!("{} runs begin so", ids.len()))
                .hint(format!("name one of {}", ids.join(", "))))
        }
    }
}

async fn show(
    session: &Session,
    printer: &Printer,
    kept: &[Result<KeptRun, (String, String)>],
    asked: &str,
) -> Result<ExitStatus, CommandError> {
    let found = find(kept, asked)?;
    let events = session.runs.read_events(&found.replay.run);
    if events.is_empty() {
        journal(printer, found);
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
    summary(printer, &state, None);
    if state.finish.is_none() {
        let holder = session.target.orchestrator.lock_holder().await?;
        let at_work = holder.as_ref().map(|holder| holder.request.run.as_str());
        printer.data(&match self::state(&found.replay, at_work) {
            State::Running => "it is running".to_owned(),
            stands => format!("it was {}; {}", stands.word(), carry_on(&state.operation)),
        });
    }
    Ok(ExitStatus::Done)
}

/// Shows the journal of a run whose events are not on this machine.
fn journal(printer: &Printer, run: &KeptRun) {
    if printer.is_json() {
        printer.world().stdout(run.text.as_bytes());
        return;
    }
    printer.status("the run's events are on another machine; this is its journal");
    for record in &run.replay.records {
        let text = match &record.entry {
            Entry::Opened { operator, plan, .. } => {
                format!("opened by {operator}: {} of {}", plan.operation, plan.system)
            }
            Entry::Resumed { operator } => format!("resumed by {operator}"),
            Entry::ReleaseIntent { release } => format!("record release {release}"),
            Entry::StepIntent { phase, step } => format!("begin {phase}/{step}"),
            Entry::EffectIntent { effect, .. } => format!("about to {effect}"),
            Entry::EffectDone { effect, .. } => format!("did {effect}"),
            Entry::StepDone { phase, step, outcome, note } => {
                format!("{phase}/{step} {}: {note}", outcome.word())
            }
            Entry::HeadIntent { release } => format!("make release {release} the head"),
            Entry::RollbackDecided { reason, release } => format!("go back to release {release}: {reason}"),
            Entry::Interrupted => "interrupted".to_owned(),
            Entry::Closed { outcome, reason } => format!("closed: {} {reason}", outcome.words()),
        };
        printer.data(&format!("{:>4} {} {text}", record.seq, record.at));
    }
}
