//! Two and ten deploys at once: who waits, waits in line; who does not is told who is before them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use mlctl_tests::{BACK, Running, Sandbox, get, note};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{
    assert_calm, assert_one_at_a_time, at, journals, lock, releases, send, slowly, until_holder,
    until_in_line,
};
use crate::deployed;

/// How many come at once.
const MANY: usize = 10;
/// Time for ten deploys, one after the other, on a loaded machine.
const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_is_told_who_is_at_work() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let first = sandbox.start(&["deploy"]);
    let state = until_holder(&sandbox, &first).await;
    let run = state["holder"]["request"]["run"].as_str().unwrap().to_owned();
    sandbox.mlctl(&["lock", "show"]).await.ends(0).says(&run).says("alive, renews it").says("unless renewed");
    sandbox
        .mlctl(&["deploy"])
        .await
        .ends(5)
        .says("the target is locked: deploy by tester@")
        .says(&run)
        .says("--wait-lock 5m waits in line");
    sandbox
        .mlctl(&["deploy", "--wait-lock", "1s"])
        .await
        .ends(5)
        .says("waiting for the lock until")
        .says(&run);
    sandbox.mlctl(&["scale", "back=3"]).await.ends(5);
    sandbox.mlctl(&["down", "--yes"]).await.ends(5);
    first.finish().await.ends(0);
    sandbox.mlctl(&["lock", "show"]).await.ends(0).says("nobody holds the lock of local");
    assert_eq!(releases(&sandbox).await.len(), 2);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_in_line_the_second_plans_on_what_the_first_did() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let first = sandbox.start(&["deploy", "--wait-lock", "5m"]);
    until_holder(&sandbox, &first).await;
    sandbox.edit("KNOB_VERSION: two", "KNOB_VERSION: three");
    let second = sandbox.start(&["deploy", "--wait-lock", "5m"]);
    until_in_line(&sandbox, &second).await;
    sandbox.mlctl(&["lock", "show"]).await.ends(0).says("IN LINE SINCE").says(&second.pid().to_string());
    sandbox.mlctl(&["deploy"]).await.ends(5).says("; 1 in line for it");
    first.finish().await.ends(0);
    second.finish().await.ends(0).says(", place 1 of 1 in line since").says("deploy by tester@");
    assert_eq!(get(&sandbox.url(BACK)).await.body, "three\n");
    let kept = releases(&sandbox).await;
    let states: Vec<&str> = kept.iter().map(|(_, state, _)| state.as_str()).collect();
    assert_eq!(states, ["verified"; 3], "{kept:?}");
    let journals = journals(&sandbox);
    assert_eq!(journals[&kept[2].2][0]["plan"]["from"], 2, "planned on the first's release");
    assert_one_at_a_time(&journals);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

/// Looks at the lock again and again until told to stop; returns who held it by fence, and everybody ever in line by
/// ticket.
async fn watched(
    sandbox: Arc<Sandbox>,
    over: Arc<AtomicBool>,
) -> (BTreeMap<u64, u64>, BTreeMap<u64, String>) {
    let (mut holders, mut tickets) = (BTreeMap::new(), BTreeMap::new());
    let mut newest = 0;
    while !over.load(Ordering::Relaxed) {
        let state = lock(&sandbox).await;
        if let Some(fence) = state["holder"]["fence"].as_u64() {
            let pid = state["holder"]["request"]["pid"].as_u64().unwrap();
            assert!(fence >= newest, "the fences go back: {state:#}");
            newest = fence;
            assert_eq!(*holders.entry(fence).or_insert(pid), pid, "one fence, two holders: {state:#}");
        }
        for waiter in state["line"].as_array().unwrap() {
            let run = waiter["request"]["run"].as_str().unwrap().to_owned();
            tickets.insert(waiter["ticket"].as_u64().unwrap(), run);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (holders, tickets)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_in_line_are_served_in_the_order_of_their_tickets() {
    let sandbox = Arc::new(deployed().await);
    let over = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn(watched(Arc::clone(&sandbox), Arc::clone(&over)));
    let mut version = "one".to_owned();
    let mut deploys: Vec<Running> = Vec::new();
    for number in 0..MANY {
        // Each reads the file as it is when it comes, so each brings a version of its own.
        let next = format!("number-{number}");
        sandbox.edit(&format!("KNOB_VERSION: {version}"), &format!("KNOB_VERSION: {next}"));
        version = next;
        let deploy = sandbox.start(&["deploy", "--wait-lock", "10m"]);
        if number == 0 {
            until_holder(&sandbox, &deploy).await;
        } else {
            until_in_line(&sandbox, &deploy).await;
        }
        deploys.push(deploy);
    }
    for deploy in deploys {
        deploy.finish_within(LONG).await.ends(0);
    }
    over.store(true, Ordering::Relaxed);
    let (holders, tickets) = watching.await.unwrap();
    let journals = journals(&sandbox);
    let mut served: Vec<(Timestamp, &String)> =
        journals.iter().map(|(run, records)| (at(&records[0]), run)).collect();
    served.sort();
    // Neither the first release nor the first of the ten had to wait.
    let served: Vec<&String> = served.into_iter().skip(2).map(|(_, run)| run).collect();
    assert_eq!(tickets.len(), MANY - 1, "{tickets:#?}");
    assert_eq!(served, tickets.values().collect::<Vec<_>>(), "first come, first served");
    let kept = releases(&sandbox).await;
    assert!(kept.iter().all(|(_, state, _)| state == "verified"), "{kept:?}");
    // Each holder once, in a fence of its own.
    let mut pids: Vec<&u64> = holders.values().collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), holders.len(), "{holders:?}");
    assert_eq!(journals.len(), MANY + 1);
    assert_one_at_a_time(&journals);
    assert_eq!(get(&sandbox.url(BACK)).await.body, format!("{version}\n"));
    assert_calm(&sandbox).await;
    Arc::into_inner(sandbox).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_at_once_that_do_not_wait_one_does_the_work() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let deploys: Vec<Running> = (0..MANY).map(|_| sandbox.start(&["deploy"])).collect();
    let (mut worked, mut codes) = (0, Vec::new());
    for deploy in deploys {
        let told = deploy.finish().await;
        let idle = told.stdout.contains("nothing to change");
        worked += usize::from(told.code == Some(0) && !idle);
        assert!(matches!(told.code, Some(0 | 5 | 40)), "{}", told.told());
        codes.push(told.code.unwrap());
    }
    note(&format!("ten at once ended with {codes:?}"));
    assert_eq!(worked, 1, "{codes:?}");
    let kept = releases(&sandbox).await;
    assert_eq!(kept.len(), 2, "{kept:?}");
    let journals = journals(&sandbox);
    assert_eq!(journals.len(), 2, "whoever had no lock left no run: {:?}", journals.keys());
    let at_home = std::fs::read_dir(sandbox.state().join("runs/local/knobs")).unwrap().count();
    assert_eq!(at_home, 2, "nor anything at home");
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_no_longer_waits_leaves_the_line_at_once() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let first = sandbox.start(&["deploy"]);
    until_holder(&sandbox, &first).await;
    let names = |state: &Value| -> Vec<i64> {
        let line = state["line"].as_array().unwrap();
        line.iter().map(|waiter| waiter["request"]["pid"].as_i64().unwrap()).collect()
    };
    for (signal, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)]
    {
        let waiting = sandbox.start(&["deploy", "--wait-lock", "5m"]);
        until_in_line(&sandbox, &waiting).await;
        send(&waiting, signal);
        let told = waiting.finish().await;
        assert_eq!(told.code, code, "{}", told.told());
        assert_eq!(names(&lock(&sandbox).await), [0; 0], "{signal}");
    }
    first.finish().await.ends(0);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}
