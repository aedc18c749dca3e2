//! The command tree: one file a verb, its arguments' comments are its help.

mod audit;
mod completion;
mod config;
mod db;
mod deploy;
mod diff;
mod down;
mod events;
mod health;
mod history;
mod loadtest;
mod lock;
mod logs;
mod maintenance;
mod man;
mod prepare;
mod restart;
mod rollback;
mod runs;
mod scale;
mod status;
pub mod version;

use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use mlctl_core::system::units::TimeSpan;

use crate::conduct::Conduct;
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::session::Session;
use crate::settings::{ColorChoice, OutputFormat, Settings};

/// Turns a deployment plan into something that runs: deploys in phases, proves each step, rolls back safely.
#[derive(Debug, Parser)]
#[command(name = "mlctl", version, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 2 usage, 3 invalid input, 4 unreachable, 5 locked, 6 not found, \
10 changes pending, 20 failed, 21 rolled back, 22 rollback failed, 23 timed out, 30 gate failed, 31 gate \
inconclusive, 40 refused, 130 interrupted (docs/exit-codes.md).";

/// Flags that every verb takes.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Where to: `local`, or a target of mlctl.yaml
    #[arg(long, global = true, env = "MLCTL_TARGET", default_value = "local", value_name = "NAME")]
    pub target: String,
    /// The system's file
    #[arg(long, global = true, env = "MLCTL_FILE", default_value = "mlctl.yaml", value_name = "PATH")]
    pub file: PathBuf,
    /// How results are printed
    #[arg(short, long, global = true, env = "MLCTL_OUTPUT", value_enum, default_value_t)]
    pub output: OutputFormat,
    /// How long the whole run may take, such as 30m
    #[arg(long, global = true, env = "MLCTL_TIMEOUT", value_name = "DURATION")]
    pub timeout: Option<TimeSpan>,
    /// Answer yes to what is asked
    #[arg(short, long, global = true, env = "MLCTL_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,
    /// Never ask; refuse what would need an answer
    #[arg(long, global = true, env = "MLCTL_NO_INPUT", value_parser = FalseyValueParser::new())]
    pub no_input: bool,
    /// When to use colors
    #[arg(long, global = true, env = "MLCTL_COLOR", value_enum, default_value_t)]
    pub color: ColorChoice,
    /// Only data, warnings and errors
    #[arg(short, long, global = true, env = "MLCTL_QUIET", value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// More detail
    #[arg(short, long, global = true, env = "MLCTL_VERBOSE", action = clap::ArgAction::Count, value_parser = count)]
    pub verbose: u8,
}

/// Reads how often a flag is meant: a number as it is, another yes once, a no or nothing never.
fn count(text: &str) -> Result<u8, String> {
    let no = ["", "n", "no", "f", "false", "off"].contains(&text.to_lowercase().as_str());
    Ok(if no { 0 } else { text.parse().unwrap_or(1) })
}

/// How a verb waits for a lock that somebody else holds.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Wait this long for the target's lock when somebody else holds it
    #[arg(long, value_name = "DURATION")]
    pub wait_lock: Option<TimeSpan>,
}

/// How a day-to-day act is carried out.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lock: LockArgs,
}

impl ActArgs {
    /// Makes ready to carry an act out. A dry run waits for nobody.
    fn conduct<'a>(
        &self,
        session: &'a Session,
        settings: &'a Settings,
        printer: &'a Printer,
    ) -> Result<Conduct<'a>, CommandError> {
        let wait = self.lock.wait().filter(|_| !self.dry_run);
        Conduct::new(session, settings, printer, wait)
    }
}

/// Refuses a name that was given twice: which of the two was meant?
fn refuse_twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), CommandError> {
    let mut seen = std::collections::BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(CommandError::new(ExitStatus::Usage, format!("{name} is named twice"))),
        None => Ok(()),
    }
}

/// Says what there is, for a hint.
fn known<'a>(subject: &str, names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() {
        format!("{subject} has none")
    } else {
        format!("{subject} has {}", names.join(", "))
    }
}

impl LockArgs {
    fn wait(&self) -> Option<std::time::Duration> {
        self.wait_lock.map(TimeSpan::get)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Deploy(deploy::DeployArgs),
    Rollback(rollback::RollbackArgs),
    Status(status::StatusArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Health(health::HealthArgs),
    Logs(logs::LogsArgs),
    Events(events::EventsArgs),
    Scale(scale::ScaleArgs),
    Restart(restart::RestartArgs),
    Maintenance(maintenance::MaintenanceArgs),
    Down(down::DownArgs),
    Runs(runs::RunsArgs),
    Audit(audit::AuditArgs),
    Loadtest(loadtest::LoadtestArgs),
    Lock(lock::LockArgs),
    Db(db::DbArgs),
    Config(config::ConfigArgs),
    Version(version::VersionArgs),
    Completion(completion::CompletionArgs),
    Man(man::ManArgs),
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Verbs of the contract that a later version brings.
const LATER: [&str; 18] = [
    "alerts",
    "approve",
    "autoscale",
    "checklist",
    "cost",
    "dash",
    "diagnose",
    "doctor",
    "exec",
    "explain",
    "freeze",
    "images",
    "kill-switch",
    "kpi",
    "override",
    "playbook",
    "render",
    "secrets",
];

/// Does what needs no target: no settings, no runtime, no file and no socket. None for every other verb.
pub(crate) fn at_once(command: &Command, printer: &Printer) -> Option<Result<ExitStatus, CommandError>> {
    match command {
        Command::Version(args) => Some(Ok(version::run(args, printer))),
        Command::Completion(args) => Some(Ok(completion::run(args, printer))),
        Command::Man(args) => Some(man::run(args, printer)),
        Command::Other(words) => Some(Err(unknown(words))),
        _ => None,
    }
}

pub(crate) async fn dispatch(
    command: Command,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitStatus, CommandError> {
    if let Some(result) = at_once(&command, printer) {
        return result;
    }
    match command {
        Command::Deploy(args) => deploy::run(args, settings, printer).await,
        Command::Rollback(args) => rollback::run(args, settings, printer).await,
        Command::Status(args) => status::run(&args, settings, printer).await,
        Command::History(args) => history::run(&args, settings, printer).await,
        Command::Diff(args) => diff::run(&args, settings, printer).await,
        Command::Health(args) => health::run(&args, settings, printer).await,
        Command::Logs(args) => logs::run(&args, settings, printer).await,
        Command::Events(args) => events::run(&args, settings, printer).await,
        Command::Scale(args) => scale::run(&args, settings, printer).await,
        Command::Restart(args) => restart::run(&args, settings, printer).await,
        Command::Maintenance(args) => maintenance::run(&args, settings, printer).await,
        Command::Down(args) => down::run(&args, settings, printer).await,
        Command::Audit(args) => audit::run(&args, settings, printer).await,
        Command::Runs(args) => runs::run(&args, settings, printer).await,
        Command::Lock(args) => lock::run(&args, settings, printer).await,
        Command::Loadtest(args) => loadtest::run(&args, settings, printer).await,
        Command::Db(args) => db::run(&args, settings, printer).await,
        Command::Config(args) => config::run(&args, settings, printer),
        Command::Version(_) | Command::Completion(_) | Command::Man(_) | Command::Other(_) => {
            Err(CommandError::bug("a verb that needs no target came to where targets are opened"))
        }
    }
}

/// Says that a verb is not there yet, or is not there at all, with what was probably meant.
fn unknown(words: &[String]) -> CommandError {
    let verb = words.first().map_or("", String::as_str);
    if LATER.contains(&verb) || ["top", "watch", "port-forward"].contains(&verb) {
        return CommandError::not_yet(&format!("`mlctl {verb}`"));
    }
    let tree = Cli::command();
    let names: Vec<&str> = tree.get_subcommands().map(clap::Command::get_name).collect();
    let error = CommandError::new(ExitStatus::Usage, format!("there is no verb `{verb}`"));
    match mlctl_core::yaml::did_you_mean(verb, names) {
        Some(meant) => error.hint(format!("did you mean `mlctl {meant}`?")),
        None => error.hint("`mlctl help` lists the verbs"),
    }
}
