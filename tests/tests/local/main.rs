//! The embedded target, end to end: the real binary, real processes, on this machine.
//!
//! Each test has a sandbox of its own and takes it down again. `cargo test -p mlctl-tests --test local -- NAME` runs
//! one. Tests of `kpis`, `rollouts` and `shipped` measure and run one at a time; the others may run side by side.

#![expect(clippy::unwrap_used, reason = "tests")]

mod acts;
mod broken;
mod foreign;
mod killed;
mod kpis;
mod load;
mod rollback;
mod rollouts;
mod shipped;

use mlctl_tests::Sandbox;
use serde_json::Value;

/// Ports of the fixture `knobs` as its file names them.
const FRONT: u16 = 4000;
const BACK: u16 = 4001;

/// Returns a sandbox with the two services of one program that does as it is told.
fn knobs() -> Sandbox {
    Sandbox::of_fixture("knobs", &[("knobs", env!("CARGO_BIN_EXE_knobs"))])
}

/// Returns the same with its first release deployed and verified.
async fn deployed() -> Sandbox {
    let sandbox = knobs();
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox
}

/// Returns the line of an item of `mlctl status -o json`.
fn item<'a>(status: &'a Value, name: &str) -> &'a Value {
    let items = status["items"].as_array().unwrap();
    let named = |item: &&Value| item["item"].as_str().is_some_and(|id| id.ends_with(&format!("/{name}")));
    items.iter().find(named).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

/// Asserts that every item runs as the release says.
#[track_caller]
fn assert_settled(status: &Value) {
    for item in status["items"].as_array().unwrap() {
        assert_eq!((&item["status"], &item["drift"]), (&"current".into(), &false.into()), "{status:#}");
    }
}
