//! The embedded target, end to end: the real binary, real processes, on this machine.
//!
//! Each test has a sandbox of its own and takes it down again. `cargo test -p mlctl-tests --test local -- NAME` runs
//! one. Tests of `kpis`, `rollouts` and `shipped` measure and run one at a time; the others may run side by side.

#![expect(clippy::unwrap_used, reason = "tests")]

mod acts;
mod broken;
mod evidence;
mod foreign;
mod killed;
mod kpis;
mod load;
mod rollback;
mod rollouts;
mod servers;
mod shipped;

use mlctl_tests::Sandbox;
pub(crate) use mlctl_tests::{BACK, FRONT, assert_settled, item};

/// Returns a sandbox with the two services of one program that does as it is told.
fn knobs() -> Sandbox {
    Sandbox::of_knobs(env!("CARGO_BIN_EXE_knobs"))
}

/// Returns the same with its first release deployed and verified.
async fn deployed() -> Sandbox {
    knobs().deployed().await
}
