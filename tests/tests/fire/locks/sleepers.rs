//! Runs that are stopped in the middle of their work and woken later.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use mlctl_tests::{BACK, Running, Sandbox, at_full_length, eventually, get, note};
use nix::sys::signal::Signal;

use super::{TTL, assert_calm, journals, lock, releases, send, slowly, until_rolling};
use crate::deployed;

/// How long they sleep: longer than a lease lives.
fn sleep() -> Duration {
    if at_full_length() { Duration::from_secs(300) } else { TTL + Duration::from_secs(5) }
}

/// Starts a deploy and stops it in the middle of replacing replicas.
async fn stopped(sandbox: &Sandbox) -> (Running, Instant) {
    slowly(sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let deploy = sandbox.start(&["deploy"]);
    until_rolling(sandbox).await;
    send(&deploy, Signal::SIGSTOP);
    (deploy, Instant::now())
}

/// Everything that runs change on the target: releases, head, items, overrides, secrets, workloads with their
/// generations, journals.
fn kept(sandbox: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    let root = sandbox.local().join("knobs");
    let mut files = BTreeMap::new();
    let entries = [
        "artifacts",
        "generations.json",
        "head.json",
        "items",
        "journals",
        "overrides.json",
        "releases",
        "secrets",
        "workloads",
    ];
    for entry in entries {
        collect(&root, &root.join(entry), &mut files);
    }
    assert!(files.len() > 10, "{:?}", files.keys());
    files
}

fn collect(root: &Path, path: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(root, &entry.unwrap().path(), files);
        }
    } else if let Ok(content) = std::fs::read(path) {
        files.insert(path.strip_prefix(root).unwrap().display().to_string(), content);
    }
}

#[track_caller]
fn assert_same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    let names = before.keys().chain(after.keys());
    let differ: Vec<&String> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(differ.is_empty(), "changed by a run that was overtaken: {differ:?}");
}

/// Wakes a run that was overtaken, and asserts that it changes nothing any more and says why.
async fn wakes_and_touches_nothing(sandbox: &Sandbox, deploy: Running, slept_from: Instant) {
    tokio::time::sleep(sleep().saturating_sub(slept_from.elapsed())).await;
    let before = kept(sandbox);
    let slept = slept_from.elapsed();
    send(&deploy, Signal::SIGCONT);
    let told = deploy.finish().await.ends(5).says("the lock is no longer ours");
    told.clone().says("and this run had not renewed it for").says("nothing was changed since");
    note(&format!("woken after {slept:?}: ended {:?} after its start", told.took));
    assert_same(&before, &kept(sandbox));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_that_another_deploy_overtook_touches_nothing() {
    let sandbox = deployed().await;
    let (deploy, slept_from) = stopped(&sandbox).await;
    sandbox.edit("KNOB_VERSION: two", "KNOB_VERSION: three");
    sandbox.mlctl(&["deploy"]).await.ends(5);
    sandbox.mlctl(&["deploy", "--wait-lock", "1m"]).await.ends(0).says("waiting for the lock until");
    let waited = slept_from.elapsed();
    assert!(waited > TTL * 2 / 3, "{waited:?}: the sleeper had its lock for as long as it lives");
    wakes_and_touches_nothing(&sandbox, deploy, slept_from).await;
    assert_eq!(get(&sandbox.url(BACK)).await.body, "three\n");
    let states: Vec<String> = releases(&sandbox).await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, ["verified", "failed", "verified"], "the one that was cut off is told as such");
    sandbox.mlctl(&["deploy", "--resume"]).await.ends(40).says("came after it");
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_whose_run_another_carried_on_leaves_its_journal_whole() {
    let sandbox = deployed().await;
    let (deploy, slept_from) = stopped(&sandbox).await;
    sandbox.mlctl(&["deploy", "--resume", "--wait-lock", "1m"]).await.ends(0);
    wakes_and_touches_nothing(&sandbox, deploy, slept_from).await;
    let kept = releases(&sandbox).await;
    assert_eq!(kept.last().unwrap().1, "verified", "{kept:?}");
    let journals = journals(&sandbox);
    let records = &journals[&kept.last().unwrap().2];
    let mut chained = records.windows(2).map(|pair| (&pair[0]["hash"], &pair[1]["prev"]));
    assert!(chained.all(|(hash, prev)| hash == prev), "{records:#?}");
    assert_eq!(records.last().unwrap()["record"], "closed");
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

/// It goes on: its fence is still the newest, so nobody has written since it fell asleep, and what it is about to do
/// is what the target expects.
#[tokio::test(flavor = "multi_thread")]
async fn a_sleeper_that_nobody_overtook_goes_on() {
    let sandbox = deployed().await;
    let (deploy, slept_from) = stopped(&sandbox).await;
    eventually("the lock to expire", TTL * 2, async || {
        let state = lock(&sandbox).await;
        if state["standing"] == "expired" { Ok(()) } else { Err(format!("{state:#}")) }
    })
    .await;
    tokio::time::sleep(sleep().saturating_sub(slept_from.elapsed())).await;
    send(&deploy, Signal::SIGCONT);
    deploy.finish().await.ends(0);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    let states: Vec<String> = releases(&sandbox).await.into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, ["verified", "verified"]);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}
