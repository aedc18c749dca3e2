//! mlctl as a library: parse, settle, dispatch. Callable from tests with an environment and writers of their own.
//!
//! `commands/` holds one file a verb, `settings` what flags, environment and `mlctl.yaml` say together, `session` the
//! system and target a verb works on, `output/` everything that prints. The method itself is `mlctl-core`'s.

mod build_log;
pub mod commands;
pub mod conduct;
pub mod error;
pub mod input;
pub mod lock;
pub mod operator;
pub mod output;
pub mod session;
pub mod settings;
pub mod signals;
pub mod store;
pub mod target;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::Cli;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, World};
use crate::settings::{OutputSettings, Settings};
use crate::signals::Signals;

/// Variables of others that say where our folders are.
const FOLDERS: [&str; 4] = ["XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "HOME"];

/// Runs the process: the hidden verbs of the local target first, since they must not start what a command needs.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(result) = mlctl_agent::dispatch(args.get(1..).unwrap_or_default()) {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let world = World::of_process();
                Printer::new(&world, &OutputSettings::default()).error(&CommandError::of_hidden(&error));
                ExitStatus::Bug.into()
            }
        };
    }
    output::tell_panics();
    // The panic was told by then.
    catch_unwind(AssertUnwindSafe(|| whole(args))).unwrap_or(ExitStatus::Bug).into()
}

/// Runs one command line of the process. What needs no target is done without a runtime, in a few milliseconds.
fn whole(args: Vec<OsString>) -> ExitStatus {
    let world = World::of_process();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let printer = Printer::new(&world, &OutputSettings::default());
            let status = match without_text(&world) {
                // clap knows that something is no text, not what.
                Some(named) if error.kind() == clap::error::ErrorKind::InvalidUtf8 => {
                    told(&printer, Err(named))
                }
                _ => output::usage(&world, &error),
            };
            return heard(&printer, status);
        }
    };
    let printer = Printer::new(&world, &OutputSettings::of(&cli.global));
    if let Some(result) = commands::at_once(&cli.command, &printer) {
        return heard(&printer, told(&printer, result));
    }
    let runtime = match start_runtime() {
        Ok(runtime) => runtime,
        Err(error) => return told(&printer, Err(error)),
    };
    world.write_in_background();
    let status = runtime.block_on(async {
        let status = carry_out(cli, &world).await;
        if !all_written(&world).await {
            return status;
        }
        let status = heard(&printer, status);
        all_written(&world).await;
        status
    });
    // A log follower may still sit in a blocking read; nobody waits for it.
    runtime.shutdown_background();
    status
}

/// Waits until the readers have taken all that was said; false when somebody wants to wait no longer.
async fn all_written(world: &World) -> bool {
    let Ok(signals) = Signals::hear() else {
        world.written().await;
        return true;
    };
    tokio::select! {
        biased;
        () = world.written() => true,
        _ = signals.next() => false,
    }
}

/// Starts the runtime. Where the system gives no thread or descriptor, tokio panics; here it is an error as any other.
fn start_runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    let start = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let started = output::without_telling(start).and_then(|built| built.map_err(|error| error.to_string()));
    started.map_err(|reason| {
        CommandError::bug(format!("start the async runtime: {reason}"))
            .hint("see how many threads and open files this user may have: ulimit -u, ulimit -n")
    })
}

/// Runs one command line in the given world and says how it ended.
pub async fn run(args: Vec<OsString>, world: World) -> ExitStatus {
    match Cli::try_parse_from(args) {
        Ok(cli) => carry_out(cli, &world).await,
        Err(error) => output::usage(&world, &error),
    }
}

async fn carry_out(cli: Cli, world: &World) -> ExitStatus {
    let printer = Printer::new(world, &OutputSettings::of(&cli.global));
    if let Some(error) = without_text(world) {
        return told(&printer, Err(error));
    }
    let settings = Settings::settle(&cli.global, world);
    told(&printer, commands::dispatch(cli.command, &settings, &printer).await)
}

/// Names a variable that says where something is, or how to do it, in no text.
fn without_text(world: &World) -> Option<CommandError> {
    let name = world.without_text(&FOLDERS)?;
    let text = format!("read the environment: the variable {name} is not UTF-8 text");
    Some(CommandError::new(ExitStatus::Usage, text).hint(format!("set {name} anew, or unset it")))
}

/// Tells an error, and says how the command ended.
fn told(printer: &Printer, result: Result<ExitStatus, CommandError>) -> ExitStatus {
    result.unwrap_or_else(|error| {
        printer.error(&error);
        error.status
    })
}

/// Says how a command ended whose data may be lost on its way out: a question without its answer has failed, a change
/// has its own outcome.
fn heard(printer: &Printer, status: ExitStatus) -> ExitStatus {
    let Some(reason) = printer.world().stdout_lost() else { return status };
    let error = CommandError::bug(format!("write to stdout: {reason}; what was printed is not whole"))
        .hint("see that there is room where stdout leads to");
    match status {
        ExitStatus::Done | ExitStatus::Pending if !printer.world().has_changed() => told(printer, Err(error)),
        _ => {
            printer.warning(&error.text);
            status
        }
    }
}
