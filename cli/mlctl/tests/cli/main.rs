//! The command line, sealed: no environment, no terminal, no network, a simulated target.
//!
//! Snapshots hold what a person or a script reads; `INSTA_UPDATE=always cargo test -p mlctl --test cli` writes them
//! anew, and a reviewer reads the difference. Figures that differ from run to run are filtered out by name.

#![expect(clippy::unwrap_used, reason = "tests")]

mod acts;
mod codes;
mod processes;
mod runs;
mod seal;
mod words;
