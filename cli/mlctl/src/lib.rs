//! mlctl as a library: parse, settle, dispatch. Callable from tests with an environment and writers of their own.
//!
//! `commands/` holds one file a verb, `settings` what flags, environment and `mlctl.yaml` say together, `session` the
//! system and target a verb works on, `output/` everything that prints. The method itself is `mlctl-core`'s.

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
use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::Cli;
use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, World};
use crate::settings::Settings;

/// Runs the process: the hidden verbs of the local target first, since they must not start what a command needs.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(result) = mlctl_agent::dispatch(args.get(1..).unwrap_or_default()) {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let world = World::of_process();
                Printer::new(&world, &settings::OutputSettings::default())
                    .error(&CommandError::of_hidden(&error));
                ExitStatus::Bug.into()
            }
        };
    }
    let world = World::of_process();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let printer = Printer::new(&world, &settings::OutputSettings::default());
            printer.error(&CommandError::bug(format!("start the async runtime: {error}")));
            return ExitStatus::Bug.into();
        }
    };
    let status = runtime.block_on(run(args, world));
    // A log follower may still sit in a blocking read; nobody waits for it.
    runtime.shutdown_background();
    status.into()
}

/// Runs one command line in the given world and says how it ended.
pub async fn run(args: Vec<OsString>, world: World) -> ExitStatus {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&world, &error),
    };
    let settings = Settings::settle(&cli.global, &world);
    let printer = Printer::new(&world, &settings.output);
    match commands::dispatch(cli.command, &settings, &printer).await {
        Ok(status) => status,
        Err(error) => {
            printer.error(&error);
            error.status
        }
    }
}
