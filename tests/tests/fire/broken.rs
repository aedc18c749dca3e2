//! More broken releases: each is explained by its evidence, the old release serves throughout, nothing is left over,
//! and the next good deploy works.

mod neighbours;
mod starved;
mod ways_back;

use std::time::Duration;

use mlctl_tests::{
    BACK, FRONT, Finished, Load, Process, Sandbox, assert_settled, eventually, get, note, of_folder,
};

/// Replicas of the fixture: two of each service.
const REPLICAS: usize = 4;

/// Returns the programs that run in a sandbox: replicas and whatever they started.
fn programs(sandbox: &Sandbox) -> Vec<Process> {
    let all = of_folder(&sandbox.local()).into_iter();
    all.filter(|process| process.args[0].contains("/artifacts/")).collect()
}

/// Waits until only so many programs run.
async fn only(sandbox: &Sandbox, count: usize) {
    eventually(&format!("{count} programs and no more"), Duration::from_secs(10), async || {
        let running = programs(sandbox);
        if running.len() == count { Ok(()) } else { Err(format!("{} run: {running:?}", running.len())) }
    })
    .await;
}

/// Writes a version and more variables into the environment of `back`.
fn release(sandbox: &Sandbox, version: &str, env: &[(&str, &str)]) {
    let more: String = env.iter().map(|(name, value)| format!("\n      {name}: \"{value}\"")).collect();
    sandbox.edit_service("back", "KNOB_VERSION: one", &format!("KNOB_VERSION: {version}{more}"));
}

/// Deploys what was edited, under load on both stable addresses. It has to end with that code and say all of that,
/// while the old release answers every request.
async fn fails(sandbox: &Sandbox, name: &str, code: i32, evidence: &[&str]) -> Finished {
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    let mut finished = sandbox.mlctl(&["deploy"]).await.ends(code);
    for text in evidence {
        finished = finished.says(text);
    }
    let tally = load.stop().await;
    note(&format!("{name}: ended with {code} after {:.1?}; meanwhile {tally}", finished.took));
    tally.is_clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["one"], "{name}");
    finished
}

/// As [`fails`], and everything is as before: the old release runs, and nothing else.
async fn is_taken_back(sandbox: &Sandbox, name: &str, evidence: &[&str]) -> Finished {
    let finished = fails(sandbox, name, 21, evidence).await;
    assert_settled(&sandbox.query(&["status"]).await);
    only(sandbox, REPLICAS).await;
    finished
}

/// The file as it was before, with another version in it, deploys.
async fn a_good_one_works(sandbox: &Sandbox, whole: &str) {
    std::fs::write(sandbox.system_file(), whole.replace("KNOB_VERSION: one", "KNOB_VERSION: good")).unwrap();
    sandbox.mlctl(&["deploy"]).await.ends(0);
    for port in [FRONT, BACK] {
        assert_eq!(get(&sandbox.url(port)).await.body, "good\n");
    }
    assert_settled(&sandbox.query(&["status"]).await);
    only(sandbox, REPLICAS).await;
}

/// Returns the system file as it is now.
fn whole(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.system_file()).unwrap()
}

/// Says whether the newest run told a cause under that code.
fn told_cause(sandbox: &Sandbox, code: &str) -> bool {
    sandbox.newest_events().iter().any(|event| event["kind"] == "workload" && event["cause"]["code"] == code)
}
