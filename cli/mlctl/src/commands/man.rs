//! `mlctl man`: manual pages, made from the command tree.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::Cli;
use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;

/// Write manual pages to a folder
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder
    folder: PathBuf,
}

pub(super) fn run(args: &ManArgs, printer: &Printer) -> Result<ExitStatus, CommandError> {
    let folder = printer.world().absolute(&args.folder);
    let written =
        std::fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(Cli::command(), &folder));
    written.map_err(|error| {
        CommandError::new(ExitStatus::Bug, format!("write manual pages to {}: {error}", folder.display()))
            .hint("name a folder that can be made, has room and may be written to")
    })?;
    printer.status(&format!("manual pages are in {}", folder.display()));
    Ok(ExitStatus::Done)
}
