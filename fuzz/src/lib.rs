//! What has to hold for any bytes: one function a target. Each panics when it does not hold.
//!
//! The fuzzer calls them with what it makes up; `cli/core/tests/corpus.rs` calls them with the seeds and the broken
//! fixtures, so that `make test` replays what was ever found.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a target tells")]

mod files;
mod journal;
mod protocol;
mod tree;
mod units;

pub use files::{plan, playbook, system};
pub use journal::journal;
pub use protocol::protocol;
pub use units::units;
