//! The system that this repository ships: its deploy from nothing, phase by phase, and what a user then does.

use std::process::Stdio;
use std::time::Duration;

use mlctl_tests::{Sandbox, ask, get, note, of_folder, repository};
use serde_json::Value;

use crate::assert_settled;

/// Ports as mlctl.yaml names them.
const GATEWAY: u16 = 8080;
/// What the three phases may take besides the load itself.
const PHASES: Duration = Duration::from_secs(15);
/// What a deploy may take that has nothing to do.
const NOTHING: Duration = Duration::from_secs(1);

/// Returns how long a run took, without its load step.
fn without_load(events: &[Value]) -> (Duration, Duration) {
    let millis = |value: &Value| Duration::from_millis(value.as_u64().unwrap());
    let all = millis(&events.last().unwrap()["elapsed_ms"]);
    let load = events.iter().find(|event| event["kind"] == "step_finished" && event["step"] == "load");
    let load = millis(&load.unwrap()["took_ms"]);
    (all.saturating_sub(load), load)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_system_deploys_from_nothing_and_serves() {
    // The suite judges the real KPIs, once and with nothing else going on; who works on it has less time.
    let sandbox = if std::env::var_os("MLCTL_TEST_LENGTH").is_some() {
        Sandbox::whole_shipped()
    } else {
        Sandbox::of_shipped()
    };
    let gateway = sandbox.url(GATEWAY);

    // Nothing is there: a plan says what would be, phase 2 says what is missing, and neither starts anything.
    sandbox.mlctl(&["deploy", "--dry-run", "--exit-code"]).await.ends(10).says("workload/catalog-service");
    sandbox.mlctl(&["deploy", "--phase", "2"]).await.ends(40).says("infrastructure").says("namespace");
    assert!(ask(&gateway).await.is_err());

    let deployed = sandbox.mlctl(&["deploy"]).await.ends(0);
    for text in ["infrastructure", "applications", "verification"] {
        assert!(deployed.stderr.contains(text), "no phase {text} in {}", deployed.told());
    }
    for text in
        ["p99<", "errors<", "rate>", "pass", &format!("The system answers at {gateway}"), "mlctl status"]
    {
        assert!(deployed.stdout.contains(text), "no {text} in {}", deployed.told());
    }
    let (phases, load) = without_load(&sandbox.newest_events());
    note(&format!("three phases in {phases:.1?}, besides {load:.1?} of load"));
    assert!(
        phases <= PHASES,
        "three phases took {phases:?}, expected at most {PHASES:?}: {}",
        deployed.told()
    );
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(get(&format!("{gateway}/health")).await.status, 200);

    let again = sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    note(&format!("nothing to do takes {:.0?}", again.took));
    assert!(again.took <= NOTHING, "{}", again.told());
    sandbox.mlctl(&["deploy", "--dry-run", "--exit-code"]).await.ends(0);
    sandbox.mlctl(&["health"]).await.ends(0).says("catalog-service through the gateway");

    // Verification can always be asked for; as JSON its last word is the outcome.
    let events = sandbox.mlctl(&["deploy", "--phase", "3", "-o", "json"]).await.ends(0).events();
    assert_eq!(events[0]["kind"], "run_started");
    let last = events.last().unwrap();
    assert_eq!((&last["kind"], &last["exit"]), (&"run_finished".into(), &0.into()));

    journey(&gateway).await;
    maintenance(&sandbox, &gateway).await;
    migrations(&sandbox).await;
    // The probe users of three verifications are gone, the journey's is there.
    sandbox.end().await;
}

/// Runs the script that README tells people to run.
pub(crate) async fn journey(gateway: &str) {
    let mut script = tokio::process::Command::new("bash");
    script.arg(repository().join("tests/journey.sh")).arg(gateway).stdin(Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(60), script.output()).await.unwrap().unwrap();
    let (told, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{told}{talk}", output.status);
    for line in told.lines() {
        note(line);
    }
    assert!(told.contains("analytics"), "{told}");
}

/// Users read that they have to wait, health checks and operators do not, and a release changes nothing about it.
async fn maintenance(sandbox: &Sandbox, gateway: &str) {
    sandbox.mlctl(&["maintenance", "on", "--message", "Back at noon", "--retry-after", "30s"]).await.ends(0);
    let closed = mlctl_tests::eventually("maintenance to show", Duration::from_secs(5), async || {
        let answer = get(&format!("{gateway}/api/products")).await;
        if answer.status == 503 { Ok(answer) } else { Err(format!("{}: {}", answer.status, answer.body)) }
    })
    .await;
    assert_eq!(closed.headers["retry-after"], "30");
    assert!(closed.body.contains("Back at noon"), "{}", closed.body);
    assert_eq!(get(&format!("{gateway}/health")).await.status, 200);
    assert_eq!(get(&format!("{gateway}/api/catalog-service/health")).await.status, 200);
    sandbox.mlctl(&["status"]).await.ends(0).says("maintenance");

    sandbox.edit_service("catalog-service", "LOG_LEVEL: info", "LOG_LEVEL: warn");
    sandbox.mlctl(&["deploy", "--phase", "applications"]).await.ends(0);
    assert_eq!(get(&format!("{gateway}/api/products")).await.status, 503, "a deploy keeps maintenance");
    // What was mended is proven before users are let in again: the load has the operator's token.
    sandbox.mlctl(&["deploy", "--phase", "verification"]).await.ends(0).says("maintenance is on since");
    sandbox.mlctl(&["maintenance", "off"]).await.ends(0);
    mlctl_tests::eventually("maintenance to end", Duration::from_secs(5), async || {
        // Nobody is logged in here; what matters is who says so.
        let answer = get(&format!("{gateway}/api/products")).await;
        if answer.status == 401 { Ok(()) } else { Err(format!("{}: {}", answer.status, answer.body)) }
    })
    .await;
    sandbox.mlctl(&["maintenance", "status"]).await.ends(0).says("off");
}

async fn migrations(sandbox: &Sandbox) {
    sandbox.mlctl(&["db", "status"]).await.ends(0).says("user-service");
    sandbox
        .mlctl(&["db", "rollback", "analytics-service", "--dry-run"])
        .await
        .ends(0)
        .says("would take back");
    sandbox.mlctl(&["db", "status"]).await.ends(0);
    sandbox.mlctl(&["db", "rollback", "analytics-service"]).await.ends(40).says("--yes");
    sandbox.mlctl(&["db", "rollback", "analytics-service", "--yes"]).await.ends(0).says("took back");
    sandbox.mlctl(&["db", "status"]).await.ends(10).says("pending");
    sandbox.mlctl(&["db", "migrate"]).await.ends(0).says("applied");
    sandbox.mlctl(&["db", "status"]).await.ends(0);
    sandbox.mlctl(&["db", "status", "gateway"]).await.ends(6);
}

#[tokio::test(flavor = "multi_thread")]
async fn phases_go_one_by_one() {
    let sandbox = Sandbox::of_shipped();
    sandbox.mlctl(&["deploy", "--phase", "1"]).await.ends(0);
    let started = of_folder(&sandbox.local());
    let runs = |name: &str| started.iter().any(|process| process.args[0].ends_with(name));
    assert!(runs("/ml-api-sim") && !runs("/catalog-service"), "{started:#?}");
    sandbox.mlctl(&["deploy", "--phase", "3"]).await.ends(40).says("applications");
    sandbox.mlctl(&["deploy", "--phase", "2"]).await.ends(0);
    assert_eq!(sandbox.query(&["status"]).await["release_state"], "unverified");
    sandbox.mlctl(&["deploy", "--phase", "verification"]).await.ends(0);
    let status = sandbox.query(&["status"]).await;
    assert_eq!(status["release_state"], "verified");
    assert_settled(&status);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    sandbox.end().await;
}
