//! `mlctl completion`: completions for a shell, made from the command tree.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::Cli;
use crate::error::ExitStatus;
use crate::output::Printer;

/// Print completions for a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, printer: &Printer) -> ExitStatus {
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "mlctl", &mut text);
    printer.world().stdout(&text);
    ExitStatus::Done
}
