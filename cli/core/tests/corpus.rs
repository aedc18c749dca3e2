//! Replays what the fuzzer is given and has found: every seed, every broken fixture, every file that is shipped.
//!
//! The same functions as under the fuzzer (`fuzz/src`), without one. A crash that is found becomes a seed.

#![cfg(feature = "sim")]

#[path = "../../../fuzz/src/mod.rs"]
mod targets;

use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a target over every file of the folders, which hold at least `least` of them.
#[track_caller]
fn replay(target: impl Fn(&[u8]) + std::panic::RefUnwindSafe, folders: &[&str], least: usize) {
    let (mut count, mut broken) = (0, Vec::new());
    for folder in folders {
        let entries =
            std::fs::read_dir(repository().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        for path in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            let bytes = std::fs::read(&path).unwrap();
            count += 1;
            // All that are broken are told, not the first.
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                broken.push(path.display().to_string());
            }
        }
    }
    assert!(count >= least, "inputs went missing: {count} of {least}");
    assert!(broken.is_empty(), "{} of {count} do not hold:\n{}", broken.len(), broken.join("\n"));
}

const BROKEN: &str = "cli/core/tests/fixtures/broken";

#[test]
fn system_files_hold() {
    let folders =
        ["fuzz/seeds/system", BROKEN, ".", "tests/fixtures/knobs", "tests/fixtures/foreign", "playbooks"];
    replay(targets::system, &folders, 160);
}

#[test]
fn playbooks_hold() {
    replay(targets::playbook, &["fuzz/seeds/playbook", BROKEN, "playbooks", "tests/fixtures/knobs"], 150);
}

#[test]
fn journals_hold() {
    replay(targets::journal, &["fuzz/seeds/journal", "fuzz/seeds/plan"], 20);
}

#[test]
fn messages_of_the_agent_hold() {
    replay(targets::protocol, &["fuzz/seeds/protocol", "fuzz/seeds/journal"], 40);
}

#[test]
fn plans_hold() {
    replay(targets::plan, &["fuzz/seeds/plan", "fuzz/seeds/journal", BROKEN], 150);
}

#[test]
fn units_hold() {
    replay(targets::units, &["fuzz/seeds/units"], 40);
}
