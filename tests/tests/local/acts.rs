//! Day-to-day acts: scale, restart, logs, events, runs, diff, locks, saved plans, down.

use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use mlctl_tests::{Load, Sandbox, ask, eventually, get, of_folder};

use crate::{BACK, FRONT, assert_settled, deployed, item, knobs};

/// Returns the ids of the replicas' own processes of a service, as `status` names them.
async fn replicas(sandbox: &Sandbox, service: &str) -> Vec<String> {
    let status = sandbox.query(&["status", service]).await;
    let replicas = status["replicas"].as_array().unwrap();
    replicas.iter().map(|replica| replica["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_change_and_outlive_releases() {
    let sandbox = deployed().await;
    let load = Load::start(&[sandbox.url(BACK)], 100, false, None);
    sandbox.mlctl(&["scale", "back=4", "--dry-run"]).await.ends(0).says("2 -> 4");
    assert_eq!(replicas(&sandbox, "back").await.len(), 2);
    sandbox.mlctl(&["scale", "back=4"]).await.ends(0);
    assert_eq!(replicas(&sandbox, "back").await.len(), 4);
    sandbox.mlctl(&["scale", "back=5"]).await.ends(40).says("4");
    sandbox.mlctl(&["scale", "nobody=2"]).await.ends(6);
    sandbox.mlctl(&["scale", "back"]).await.ends(2);

    // The count is the live one's, whatever the file's minimum is.
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_eq!(replicas(&sandbox, "back").await.len(), 4);
    sandbox.mlctl(&["rollback"]).await.ends(0);
    assert_eq!(replicas(&sandbox, "back").await.len(), 4);
    sandbox.mlctl(&["scale", "back=2"]).await.ends(0);
    assert_eq!(replicas(&sandbox, "back").await.len(), 2);
    load.stop().await.is_clean();
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_replaces_every_replica_and_drops_nothing() {
    let sandbox = deployed().await;
    let (front, back) = (replicas(&sandbox, "front").await, replicas(&sandbox, "back").await);
    let load = Load::start(&[sandbox.url(BACK)], 200, false, None);
    sandbox.mlctl(&["restart", "back"]).await.ends(0);
    load.stop().await.is_clean();
    let now = replicas(&sandbox, "back").await;
    assert!(now.len() == 2 && now.iter().all(|name| !back.contains(name)), "{back:?}, then {now:?}");
    assert_eq!(replicas(&sandbox, "front").await, front);
    sandbox.mlctl(&["restart", "nobody"]).await.ends(6);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_happened_can_be_read() {
    let sandbox = deployed().await;
    let logs = sandbox.mlctl(&["logs", "back"]).await.ends(0).says("version one listens on port");
    assert!(logs.stdout.lines().count() >= 2, "a line of each replica: {}", logs.told());
    let lines = sandbox.mlctl(&["logs", "back", "--tail", "1", "-o", "json"]).await.ends(0).events();
    assert!(lines.iter().all(|line| line["service"] == "back") && lines.len() == 2, "{lines:#?}");
    sandbox.mlctl(&["logs", "nobody"]).await.ends(6);

    sandbox.mlctl(&["events"]).await.ends(0).says("back");
    let events = sandbox.mlctl(&["events", "front", "--since", "10m"]).await.ends(0);
    assert!(events.stdout.contains("front") && !events.stdout.contains("back-"), "{}", events.told());

    let runs = sandbox.query(&["runs"]).await;
    assert_eq!(
        (&runs["runs"][0]["operation"], &runs["runs"][0]["outcome"]),
        (&"deploy".into(), &"succeeded".into())
    );
    let run = runs["runs"][0]["run"].as_str().unwrap();
    sandbox.mlctl(&["runs", "show", run]).await.ends(0).says("deploy release 1");
    let told = sandbox.mlctl(&["runs", "show", run, "-o", "json"]).await.ends(0).events();
    assert_eq!(told.last().unwrap()["kind"], "run_finished");
    assert_eq!(told.iter().filter(|event| event["kind"] == "run_finished").count(), 1);
    sandbox.mlctl(&["runs", "show", "nobody"]).await.ends(6);

    sandbox.mlctl(&["health"]).await.ends(0).says("2xx from all 2").says("front through the gateway");
    sandbox.mlctl(&["health", "nobody"]).await.ends(6);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_told_field_by_field() {
    let sandbox = deployed().await;
    sandbox.mlctl(&["diff"]).await.ends(0).says("release 1");
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy", "--dry-run", "--exit-code"]).await.ends(10).says("KNOB_VERSION").says("two");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.mlctl(&["deploy", "--dry-run", "--exit-code"]).await.ends(0);
    sandbox.mlctl(&["diff"]).await.ends(0);
    let diff = sandbox.mlctl(&["diff", "1"]).await.ends(10).says("KNOB_VERSION");
    assert!(diff.stdout.contains("two") && diff.stdout.contains("one"), "{}", diff.told());
    sandbox.mlctl(&["diff", "9"]).await.ends(6);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_runs_in_the_world_it_was_made_for() {
    let sandbox = deployed().await;
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy", "--dry-run", "--out", "plan.json"]).await.ends(0);
    sandbox.mlctl(&["deploy", "--plan", "plan.json"]).await.ends(0);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    // The same plan again: the world has moved, by the plan itself.
    sandbox.mlctl(&["deploy", "--plan", "plan.json"]).await.ends(40);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_do_not_meet() {
    let sandbox = deployed().await;
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.edit("minReady: 300ms", "minReady: 1s");
    let first = sandbox.start(&["deploy"]);
    eventually("the first run to have the lock", Duration::from_secs(10), async || {
        let runs = sandbox.query(&["runs"]).await;
        runs["lock"].as_str().map(|_| ()).ok_or_else(|| runs.to_string())
    })
    .await;
    sandbox.mlctl(&["restart", "back"]).await.ends(5).says("locked").says("deploy by");
    let second = sandbox.start(&["restart", "back", "--wait-lock", "60s"]);
    first.finish().await.ends(0);
    second.finish().await.ends(0).says("waiting");
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deploy_stops_and_goes_on() {
    let sandbox = deployed().await;
    sandbox.edit("minReady: 300ms", "minReady: 2s");
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    // A person at the keyboard, and a system that shuts down.
    for (signal, code, from, to) in
        [(Signal::SIGINT, 130, "one", "two"), (Signal::SIGTERM, 143, "two", "three")]
    {
        sandbox.edit(&format!("KNOB_VERSION: {from}"), &format!("KNOB_VERSION: {to}"));
        let running = sandbox.start(&["deploy"]);
        let run = eventually("the first new replica", Duration::from_secs(20), async || {
            let events = sandbox.newest_events();
            let rolling = events.iter().any(|event| event["kind"] == "workload" && event["updated"] == 1);
            let ended = events.last().is_none_or(|event| event["kind"] == "run_finished");
            if rolling && !ended {
                Ok(events[0]["run"].clone())
            } else {
                Err(format!("{} events", events.len()))
            }
        })
        .await;
        tell(running.pid(), signal);
        eventually("the first signal to be taken", Duration::from_secs(5), async || {
            // Two signals at once are one signal; the first one shows in what the process still listens to.
            if is_pending(running.pid()) { Err("it is still pending".to_owned()) } else { Ok(()) }
        })
        .await;
        tell(running.pid(), signal);
        let stopped = running.finish().await.ends(code).says("--resume");
        assert!(stopped.took < Duration::from_secs(20), "{:?}", stopped.took);
        sandbox.mlctl(&["deploy", "--resume"]).await.ends(0).says(run.as_str().unwrap());
        assert_eq!(get(&sandbox.url(BACK)).await.body, format!("{to}\n"));
        assert_settled(&sandbox.query(&["status"]).await);
    }
    load.stop().await.is_clean();
    sandbox.end().await;
}

fn tell(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

/// Says whether a signal waits to be taken by a process.
fn is_pending(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
    pending.filter_map(|line| line.split_whitespace().nth(1)).any(|mask| mask.contains(|c| c != '0'))
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_follow_a_rollout() {
    let sandbox = deployed().await;
    let following = sandbox.start(&["logs", "back", "--follow"]);
    sandbox.mlctl(&["restart", "back"]).await.ends(0);
    tell(following.pid(), Signal::SIGINT);
    let told = following.finish().await.ends(130);
    let begins = told.stdout.matches("listens on port").count();
    assert_eq!(begins, 4, "two replicas and their successors: {}", told.told());
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn down_keeps_data_and_purge_removes_it() {
    let sandbox = knobs();
    sandbox.mlctl(&["down"]).await.ends(0).says("nothing runs");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.mlctl(&["down", "--dry-run"]).await.ends(0).says("delete");
    assert_eq!(get(&sandbox.url(FRONT)).await.body, "one\n");
    sandbox.mlctl(&["down", "--yes"]).await.ends(0);
    assert!(ask(&sandbox.url(FRONT)).await.is_err(), "nobody listens any more");
    eventually("every process to end", Duration::from_secs(5), async || {
        let left = of_folder(&sandbox.local());
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    // Releases are data: the next deploy counts on.
    let history = sandbox.query(&["history"]).await;
    assert_eq!(history[0]["release"], 1, "{history:#}");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_eq!(item(&sandbox.query(&["status"]).await, "front")["status"], "current");
    assert_eq!(get(&sandbox.url(FRONT)).await.body, "one\n");
    sandbox.mlctl(&["down", "--purge"]).await.ends(40).says("--yes");
    sandbox.mlctl(&["down", "--purge", "--yes"]).await.ends(0);
    assert!(!sandbox.local().join("knobs").exists());
    sandbox.end().await;
}
