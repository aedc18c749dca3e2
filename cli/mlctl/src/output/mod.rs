//! Everything that prints: streams, styles, tables and the readers of a run's events.

mod bug;
mod load;
mod printer;
mod prompt;
pub mod report;
mod streams;
mod style;
mod table;
pub(crate) mod text;
mod world;

pub use bug::{tell_panics, without_telling};
pub use load::endpoint_table;
pub use printer::Printer;
pub use prompt::confirm;
pub use style::{Style, Styles};
pub use table::{Table, gate_table, verdict_style};
pub use world::World;

use crate::error::ExitStatus;

/// Prints clap's answer: help and version to stdout with 0, mistakes to stderr with 2.
#[must_use]
pub fn usage(world: &World, error: &clap::Error) -> ExitStatus {
    let text = error.render();
    if error.use_stderr() {
        world.stderr(text.to_string().as_bytes());
        return ExitStatus::Usage;
    }
    world.stdout(text.to_string().as_bytes());
    ExitStatus::Done
}
