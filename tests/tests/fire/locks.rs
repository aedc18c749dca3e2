//! Many deploys at once, dead and sleeping owners, jumping clocks.

mod clocks;
mod line;
mod owners;
mod sleepers;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mlctl_tests::{Running, Sandbox, eventually};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

/// How long the lease of a run lives without renewal.
const TTL: Duration = Duration::from_secs(15);
/// How long a command may take to get as far as a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

fn send(running: &Running, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(running.pid()), signal).unwrap();
}

async fn lock(sandbox: &Sandbox) -> Value {
    sandbox.query(&["lock", "show"]).await
}

/// Waits until that process holds the lock.
async fn until_holder(sandbox: &Sandbox, running: &Running) -> Value {
    let pid = running.pid();
    eventually("the lock to be taken", PATIENCE, async || {
        let state = lock(sandbox).await;
        let ours = state["held"] == true && state["holder"]["request"]["pid"] == pid;
        if ours { Ok(state) } else { Err(format!("{pid} wants it: {state:#}")) }
    })
    .await
}

/// Waits until that process stands in line; returns the line.
async fn until_in_line(sandbox: &Sandbox, running: &Running) -> Vec<Value> {
    let pid = running.pid();
    eventually("a place in line", PATIENCE, async || {
        let state = lock(sandbox).await;
        let line = state["line"].as_array().unwrap().clone();
        let ours = line.iter().any(|waiter| waiter["request"]["pid"] == pid);
        if ours { Ok(line) } else { Err(format!("{pid} wants in: {state:#}")) }
    })
    .await
}

/// Waits until the newest run replaces replicas of the applications, with the rest of it still to come.
async fn until_rolling(sandbox: &Sandbox) {
    eventually("the first new replica of phase 2", PATIENCE, async || {
        let events = sandbox.newest_events();
        let rolling = events.iter().any(|event| {
            event["kind"] == "workload" && event["phase"] == "applications" && event["updated"] == 1
        });
        if rolling { Ok(()) } else { Err(format!("{} events so far", events.len())) }
    })
    .await;
}

/// Makes rollouts slow enough to be met in the middle.
fn slowly(sandbox: &Sandbox) {
    sandbox.edit("minReady: 300ms", "minReady: 2s");
}

/// Returns the journals that the target keeps, by run.
fn journals(sandbox: &Sandbox) -> BTreeMap<String, Vec<Value>> {
    let folder = sandbox.local().join("knobs/journals");
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let run = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (run, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    };
    entries.map(|entry| read(entry.path())).collect()
}

fn at(record: &Value) -> Timestamp {
    record["at"].as_str().unwrap().parse().unwrap()
}

/// Asserts that no two runs were at work at the same time, by what they wrote.
#[track_caller]
fn assert_one_at_a_time(journals: &BTreeMap<String, Vec<Value>>) {
    let mut times: Vec<(Timestamp, Timestamp, &String)> =
        journals.iter().map(|(run, records)| (at(&records[0]), at(records.last().unwrap()), run)).collect();
    times.sort();
    for pair in times.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two at once: {pair:?}");
    }
}

/// Returns the kept releases, oldest first: number, state and run.
async fn releases(sandbox: &Sandbox) -> Vec<(u64, String, String)> {
    let history = sandbox.query(&["history"]).await;
    let kept = history.as_array().unwrap_or_else(|| panic!("{history:#}"));
    let mut kept: Vec<_> = kept
        .iter()
        .map(|release| {
            let text = |key: &str| release[key].as_str().unwrap_or_default().to_owned();
            (release["release"].as_u64().unwrap(), text("state"), text("run"))
        })
        .collect();
    kept.sort();
    kept
}

/// Asserts that everything is as the last deploy wanted it and that nobody holds or wants the lock.
async fn assert_calm(sandbox: &Sandbox) {
    mlctl_tests::assert_settled(&sandbox.query(&["status"]).await);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    let state = lock(sandbox).await;
    assert_eq!(
        (&state["standing"], state["line"].as_array().unwrap().len()),
        (&"free".into(), 0),
        "{state:#}"
    );
    let runs = sandbox.query(&["runs"]).await;
    let broken = |run: &Value| run.get("broken").is_some();
    assert!(!runs["runs"].as_array().unwrap().iter().any(broken), "{runs:#}");
}
