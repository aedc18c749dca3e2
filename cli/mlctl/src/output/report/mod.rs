//! Readers of a run's events: lines for logs and people, a live region for terminals, JSON for programs, commands
//! for GitHub. One small file a format; all words about a run are here.

mod fold;
mod github;
mod json;
mod lines;
mod progress;
mod stores;
mod summary;
mod words;

pub use fold::Fold;
pub use github::GitHub;
pub use json::{Json, nothing_to_do};
pub use lines::Lines;
pub use progress::Progress;
pub use stores::stores;
pub use summary::{Known, summary};
pub use words::{carry_on, duration, item_line, to_the_second};

use mlctl_core::event::EventSink;

use super::Printer;

/// Returns the reader that fits the streams: JSON when asked, a live region on a terminal, lines elsewhere.
#[must_use]
pub fn reader(printer: &Printer) -> Box<dyn EventSink + '_> {
    if printer.is_json() {
        return Box::new(Json::new(printer));
    }
    let world = printer.world();
    let live = world.stderr_is_terminal()
        && world.var("CI").is_none_or(|ci| ci.is_empty())
        && world.var("TERM").is_none_or(|term| term != "dumb")
        && !printer.is_verbose()
        && !printer.is_quiet();
    if live { Box::new(Progress::new(printer)) } else { Box::new(Lines::new(printer)) }
}
