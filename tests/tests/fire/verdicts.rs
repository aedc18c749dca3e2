//! How long a verdict takes, and that there is none where none is due. Times are those of the run's own events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mlctl_tests::{BACK, FRONT, Load, Sandbox, assert_settled, at_full_length, free_ports, get, note};
use serde_json::Value;

use crate::{deployed, knobs};

/// Seconds of the run at which the first event like that was told.
fn at(events: &[Value], is: impl Fn(&Value) -> bool) -> f64 {
    let found = events.iter().find(|event| is(event)).unwrap_or_else(|| panic!("no such event: {events:#?}"));
    Duration::from_millis(found["elapsed_ms"].as_u64().unwrap()).as_secs_f64()
}

/// Deploys a release of `back` that is to be taken back. Its verdict has to be there so many seconds after the step
/// `from` began (the step that fails where none is named).
async fn verdict_within(sandbox: &Sandbox, name: &str, limit: f64, from: Option<&str>) {
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 50, false, None);
    let finished = sandbox.mlctl(&["deploy"]).await.ends(21);
    load.stop().await.is_clean();
    let events = sandbox.newest_events();
    let failed =
        events.iter().find(|event| event["kind"] == "step_finished" && event["outcome"] == "failed").unwrap();
    let step = failed["step"].as_str().unwrap();
    let from = from.unwrap_or(step);
    let begun = at(&events, |event| event["kind"] == "step_started" && event["step"] == from);
    let told = at(&events, |event| event["kind"] == "step_finished" && event["step"] == step);
    let over = at(&events, |event| event["kind"] == "run_finished");
    let verdict = told - begun;
    note(&format!(
        "{name}: verdict {verdict:.1} s after {from} began (at most {limit:.0} s), at {told:.1} s of a run of {over:.1} s: {}",
        failed["note"].as_str().unwrap_or_default().lines().next().unwrap_or_default()
    ));
    assert!(verdict <= limit, "{name}: {verdict} s, at most {limit}: {}", finished.told());
}

/// Writes a version and more variables into the environment of `back`, and how long it has to stay ready.
fn release(sandbox: &Sandbox, version: &str, env: &[(&str, &str)], min_ready: &str) {
    let more: String = env.iter().map(|(name, value)| format!("\n      {name}: \"{value}\"")).collect();
    sandbox.edit_service("back", "KNOB_VERSION: one", &format!("KNOB_VERSION: {version}{more}"));
    sandbox.edit_service("back", "minReady: 300ms", &format!("minReady: {min_ready}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_release_gets_its_verdict_in_time() {
    let sandbox = deployed().await;
    let whole = std::fs::read_to_string(sandbox.system_file()).unwrap();
    // Grace, one answer that does not come, and as many bad ones as change a verdict; see the fixture.
    let budget = 2.0 + 1.0 + 3.0 * 0.1;
    let startup = ("health: {live: /livez", "health: {startup: /nowhere, live: /livez");
    let mut cases = vec![
        ("exits at once", ("KNOB_EXIT", "7"), "300ms", None, 5.0),
        ("crashes after three seconds", ("KNOB_CRASH_AFTER_MS", "3000"), "4s", None, 30.0),
        ("is never ready", ("KNOB_NEVER_READY", "true"), "300ms", None, budget + 10.0),
        ("never starts", ("KNOB_DELAY_MS", "1"), "300ms", Some(startup), budget + 10.0),
    ];
    if at_full_length() {
        cases.push(("crashes after nine seconds", ("KNOB_CRASH_AFTER_MS", "9000"), "10s", None, 30.0));
    }
    for (name, env, min_ready, edit, limit) in cases {
        release(&sandbox, "two", &[env], min_ready);
        if name.starts_with("crashes") {
            // Its own rule is what is measured, not the deadline that ends everything.
            sandbox.edit_service("back", "progressDeadline: 6s", "progressDeadline: 60s");
        }
        if let Some((from, to)) = edit {
            sandbox.edit_service("back", from, to);
        }
        verdict_within(&sandbox, name, limit, None).await;
        assert_eq!(get(&sandbox.url(BACK)).await.body, "one\n");
        std::fs::write(sandbox.system_file(), &whole).unwrap();
    }
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kpi_gets_its_verdict_in_its_load_time_and_a_little() {
    let sandbox = knobs();
    sandbox.edit(
        "targets:\n",
        "kpis:\n  latency: {title: Quick enough, sli: p95(answer_seconds), target: \"<150ms\", load: p95}\n\
         load:\n  verify: {rate: 60/s, duration: 3s, mix: [{name: root, weight: 1, get: /}]}\n\
         targets:\n",
    );
    // The first one is let through on a machine that may be loaded: what is measured here is the second.
    sandbox.edit("<150ms", "<5s");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.edit("<5s", "<150ms");
    sandbox.edit_service("front", "KNOB_VERSION: one", "KNOB_VERSION: two\n      KNOB_DELAY_MS: \"400\"");
    verdict_within(&sandbox, "fails a KPI", 3.0 + 10.0, Some("load")).await;
    assert_eq!(get(&sandbox.url(FRONT)).await.body, "one\n");
    sandbox.end().await;
}

/// Deploys a release of `back` that is good, whatever it looks like meanwhile: nothing of it is given up.
async fn is_no_alarm(sandbox: &Sandbox, name: &str) {
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 50, false, None);
    let finished = sandbox.mlctl(&["deploy"]).await.ends(0);
    load.stop().await.is_clean();
    let events = sandbox.newest_events();
    let alarms: Vec<&Value> = events.iter().filter(|event| event["cause"]["terminal"] == true).collect();
    assert!(alarms.is_empty(), "{name}: {alarms:#?}");
    note(&format!("{name}: no alarm, done after {:.1?}", finished.took));
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    assert_settled(&sandbox.query(&["status"]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_within_its_budget_is_no_alarm() {
    // Longer than the deadline without progress, shorter than the grace: with a startup probe and without one.
    for health in ["health: {live: /livez", "health: {startup: /livez, live: /livez"] {
        let sandbox = deployed().await;
        release(&sandbox, "two", &[("KNOB_START_MS", "4000")], "1s");
        sandbox.edit_service("back", "grace: 2s}\n    replicas", "grace: 9s}\n    replicas");
        sandbox.edit_service("back", "progressDeadline: 6s", "progressDeadline: 3s");
        sandbox.edit_service("back", "health: {live: /livez", health);
        is_no_alarm(&sandbox, &format!("a slow start with `{health}`")).await;
        sandbox.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_crash_and_then_health_is_no_alarm() {
    let sandbox = deployed().await;
    release(&sandbox, "two", &[("KNOB_CRASH_ONCE_AFTER_MS", "700")], "1500ms");
    is_no_alarm(&sandbox, "one crash of each replica, then healthy").await;
    let events = sandbox.mlctl(&["events"]).await.ends(0);
    assert_eq!(events.stdout.matches("exit code 101").count(), 2, "each crashed once: {}", events.told());
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_neighbour_is_no_alarm() {
    let sandbox = knobs();
    let port = free_ports(1)[0];
    let neighbour = format!(
        "  neighbour:\n    build: {{artifact: knobs}}\n    port: {port}\n    \
         health: {{live: /livez, ready: /readyz, period: 100ms, timeout: 1s, failures: 2, grace: 2s}}\n    \
         replicas: {{min: 2, max: 4}}\n    \
         update: {{surge: 1, unavailable: 0, minReady: 300ms, drain: 1s, progressDeadline: 6s}}\n    \
         env:\n      PORT: \"{{port}}\"\n      KNOB_VERSION: steady\n      KNOB_FLAP_MS: \"1500\"\n"
    );
    sandbox.edit("targets:\n", &format!("{neighbour}targets:\n"));
    sandbox.mlctl(&["deploy"]).await.ends(0);
    release(&sandbox, "two", &[], "2s");
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 50, false, None);
    let finished = sandbox.mlctl(&["deploy"]).await.ends(0);
    load.stop().await.is_clean();
    let events = sandbox.newest_events();
    assert!(events.iter().all(|event| event["cause"]["terminal"] != true), "{events:#?}");
    let flaps = sandbox.mlctl(&["events"]).await.ends(0).stdout.matches("flapping as it was told").count();
    note(&format!("a neighbour that flapped {flaps} times: no alarm, done after {:.1?}", finished.took));
    assert!(flaps >= 2, "it has to flap for this to prove anything");
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    sandbox.end().await;
}

/// Threads that do nothing but use a processor, until dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn on_every_core() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut number = 1_u64;
                while !stop.load(Ordering::Relaxed) {
                    number =
                        std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_machine_is_no_alarm() {
    let sandbox = deployed().await;
    let busy = Busy::on_every_core();
    release(&sandbox, "two", &[], "1s");
    is_no_alarm(&sandbox, "every core busy").await;
    if at_full_length() {
        for version in ["three", "four", "five"] {
            let before = if version == "three" {
                "two"
            } else if version == "four" {
                "three"
            } else {
                "four"
            };
            sandbox.edit(&format!("KNOB_VERSION: {before}"), &format!("KNOB_VERSION: {version}"));
            sandbox.mlctl(&["deploy"]).await.ends(0);
        }
    }
    drop(busy);
    sandbox.end().await;
}
