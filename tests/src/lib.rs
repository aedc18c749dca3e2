//! The harness of the end-to-end suites: the real binary, real processes, in a sandbox of their own.
//!
//! [`Sandbox`] is one machine as mlctl sees it: state, data, sockets and home below one temporary folder, free
//! ports, and a copy of a system file. [`Load`] sends requests all the while and counts what a user would notice.
//! Nothing here reaches into mlctl: what a test knows, it read from an exit code, a stream, an answer or `/proc`.

#![expect(clippy::unwrap_used, reason = "a harness that cannot go on fails its test")]
#![expect(clippy::print_stdout, reason = "what a suite measured belongs into its log")]

mod binaries;
mod finished;
mod http;
mod knobs;
mod load;
mod ports;
mod processes;
mod sandbox;
mod seal;
pub mod stores;

pub use binaries::{mlctl, repository, service};
pub use finished::Finished;
pub use http::{Answer, ask, get, send};
pub use knobs::{BACK, FRONT, assert_settled, at_full_length, item};
pub use load::{Load, Tally};
pub use ports::free_ports;
pub use processes::{Process, alive, family, kill, of_folder};
pub use sandbox::{Running, Sandbox, eventually};
pub use seal::{Seal, begin, documented_codes, end, pause, through};

/// Prints a line that can be told from the output of the tests themselves.
pub fn note(text: &str) {
    println!("    | {text}");
}
