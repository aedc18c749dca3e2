//! Replays what the fuzzer is given and has found: every seed, every broken fixture, every file that is shipped.
//!
//! The same functions as under the fuzzer (`fuzz/src`), without one. A crash that is found becomes a seed.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use mlctl_core::local_protocol::{Request, Response};
use mlctl_core::plan::Plan;
use mlctl_core::playbook::PlaybookFile;
use mlctl_core::run::journal::Entry;
use mlctl_core::system::SystemFile;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn good_seeds_are_good() {
    let read = |path: &str| std::fs::read(repository().join("fuzz/seeds").join(path)).unwrap();
    for name in ["system/small.yaml", "system/wide.yaml"] {
        let file = SystemFile::parse(name, &read(name)).unwrap_or_else(|problems| panic!("{problems}"));
        file.system().unwrap();
    }
    for name in ["playbook/small.yaml", "playbook/wide.yaml"] {
        let file = PlaybookFile::parse(name, &read(name)).unwrap_or_else(|problems| panic!("{problems}"));
        file.bind(&IndexMap::new()).unwrap();
    }
    for name in ["small", "full", "apply", "migrate", "health", "metrics", "http", "kpis", "mark", "wait"] {
        let name = format!("plan/{name}.json");
        Plan::parse(&name, &read(&name)).unwrap_or_else(|problems| panic!("{problems}"));
    }
    let good = |path: &str, is_good: &dyn Fn(&str) -> bool| {
        let text = String::from_utf8(read(path)).unwrap();
        let bad: Vec<_> = text.lines().filter(|line| !is_good(line)).collect();
        assert!(bad.is_empty(), "{path}: {bad:?}");
    };
    for name in ["whole", "full-plan"] {
        good(&format!("journal/{name}.jsonl"), &|line| serde_json::from_str::<Entry>(line).is_ok());
    }
    good("protocol/conversation", &|line| Request::decode(line).is_ok());
    for (at, name) in
        ["hello", "applied", "workloads", "workload", "replicas", "events", "locked", "line", "line"]
            .iter()
            .enumerate()
    {
        let path = format!("protocol/answer-{at}-{name}");
        good(&path, &|line| serde_json::from_str::<Response>(line).is_ok());
    }
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
