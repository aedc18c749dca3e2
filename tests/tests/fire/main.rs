//! The embedded target under fire: killed, raced, starved, fed garbage.
//!
//! `make test-full` runs all of it, one test at a time. `cargo test -p mlctl-tests --test fire -- NAME` runs one.
//! Where a case has a long and a short form, `MLCTL_TEST_LENGTH=full` chooses the long one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod broken;
mod codes;
mod crash;
mod environment;
mod kills;
mod locks;
mod records;
mod verdicts;

use mlctl_tests::Sandbox;

/// Returns a sandbox with the two services of one program that does as it is told.
fn knobs() -> Sandbox {
    Sandbox::of_knobs(env!("CARGO_BIN_EXE_knobs"))
}

/// Returns the same with its first release deployed and verified.
async fn deployed() -> Sandbox {
    knobs().deployed().await
}
