//! `kill -9` of mlctl and of the agent: nothing is lost, nothing is done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use mlctl_tests::{Load, Process, Sandbox, eventually, get, kill, note, of_folder};
use serde_json::Value;

use crate::{BACK, FRONT, assert_settled, deployed, item};

/// Asks `mlctl status` and leaves out what differs between any two runs.
async fn shape(sandbox: &Sandbox) -> Value {
    let mut status = sandbox.query(&["status"]).await;
    status.as_object_mut().unwrap().remove("replicas");
    status
}

/// Rolls both services to a version, slowly enough to be met in the middle.
fn next_version(sandbox: &Sandbox) {
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.edit("minReady: 300ms", "minReady: 1s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_deploy_is_carried_on() {
    let undisturbed = deployed().await;
    next_version(&undisturbed);
    undisturbed.mlctl(&["deploy"]).await.ends(0);

    let sandbox = deployed().await;
    next_version(&sandbox);
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    let running = sandbox.start(&["deploy"]);
    eventually("the first new replica of phase 2", Duration::from_secs(20), async || {
        let events = sandbox.newest_events();
        let rolling = events.iter().any(|event| {
            event["kind"] == "workload" && event["phase"] == "applications" && event["updated"] == 1
        });
        if rolling { Ok(()) } else { Err(format!("{} events so far", events.len())) }
    })
    .await;
    kill(running.pid());
    assert_eq!(running.finish().await.code, None, "killed, not ended");

    sandbox.mlctl(&["runs"]).await.ends(0).says("cut off");
    let resumed = sandbox.mlctl(&["deploy", "--resume"]).await.ends(0).says("resum");
    load.stop().await.is_clean();
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    assert_eq!(shape(&sandbox).await, shape(&undisturbed).await, "{}", resumed.told());
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");

    // One journal, whole, each effect once.
    let runs = sandbox.query(&["runs"]).await;
    let run = runs["runs"][0]["run"].as_str().unwrap();
    assert_eq!(runs["runs"][0]["outcome"], "succeeded", "{runs:#}");
    let mut effects = BTreeMap::new();
    for record in journal(&sandbox, run) {
        if record["record"] == "effect_done" {
            *effects.entry(record["effect"].to_string()).or_insert(0) += 1;
        }
    }
    assert!(!effects.is_empty() && effects.values().all(|count| *count == 1), "{effects:#?}");

    sandbox.mlctl(&["deploy", "--resume"]).await.ends(6);
    sandbox.end().await;
    undisturbed.end().await;
}

/// Returns the records of a run's journal at home.
fn journal(sandbox: &Sandbox, run: &str) -> Vec<Value> {
    let path = sandbox.state().join("runs/local/knobs").join(run).join("journal.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn processes(sandbox: &Sandbox, verb: &str) -> Vec<Process> {
    let mut found: Vec<Process> =
        of_folder(&sandbox.local()).into_iter().filter(|each| each.is_verb(verb)).collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn programs(sandbox: &Sandbox) -> Vec<Process> {
    let all = of_folder(&sandbox.local());
    let mut found: Vec<Process> =
        all.into_iter().filter(|each| each.args[0].contains("/artifacts/")).collect();
    found.sort_by_key(|process| process.pid);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_nothing() {
    let sandbox = deployed().await;
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 200, false, None);
    let before = programs(&sandbox);
    assert_eq!(before.len(), 4, "{before:?}");
    let agents = processes(&sandbox, "agent");
    let [agent] = &agents[..] else { panic!("one agent expected: {agents:?}") };
    kill(agent.pid);
    eventually("the agent to be gone", Duration::from_secs(5), async || {
        let left = processes(&sandbox, "agent");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    // Nobody watches, and everything goes on: a while of it.
    let served = load.so_far().good;
    eventually("a few hundred more answers", Duration::from_secs(10), async || {
        let now = load.so_far().good;
        if now > served + 300 { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    // The next command brings it back; it takes over what runs.
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(programs(&sandbox), before, "the same processes");
    assert_eq!(processes(&sandbox, "agent").len(), 1);
    sandbox.mlctl(&["logs", "back"]).await.ends(0).says("version one listens");
    let tally = load.stop().await;
    note(&format!("without an agent and with its successor: {tally}"));
    tally.is_clean();

    // What ends while nobody watches is known to the next agent: its exit status, and that it has to be replaced.
    for agent in processes(&sandbox, "agent") {
        kill(agent.pid);
    }
    kill(before[0].pid);
    eventually("a replica in the killed one's place", Duration::from_secs(15), async || {
        let status = sandbox.query(&["status"]).await;
        let whole = ["front", "back"].iter().all(|name| item(&status, name)["status"] == "current");
        if whole && programs(&sandbox).len() == 4 { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    let mut exits = String::new();
    for service in ["front", "back"] {
        exits.push_str(&sandbox.query(&["status", service]).await["replicas"].to_string());
    }
    assert!(exits.contains("signal 9") || exits.contains("SIGKILL"), "{exits}");
    sandbox.end().await;
}
