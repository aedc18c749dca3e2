//! Load tests and KPIs: what they judge, and what a deploy makes of it.

use mlctl_tests::{Load, Sandbox, get};

use crate::{FRONT, knobs};

/// Adds a load test with a KPI to the fixture: half of a second is enough to tell a slow release from a quick one.
fn with_load(sandbox: &Sandbox) {
    sandbox.edit(
        "targets:\n",
        "kpis:\n  latency: {title: Quick enough, sli: p95(answer_seconds), target: \"<150ms\", load: p95}\n\
         load:\n  verify: {rate: 60/s, duration: 3s, mix: [{name: root, weight: 1, get: /}]}\n\
         targets:\n",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_a_kpi_is_taken_back() {
    let sandbox = knobs();
    with_load(&sandbox);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("latency");
    sandbox.edit_service("front", "KNOB_VERSION: one", "KNOB_VERSION: two\n      KNOB_DELAY_MS: \"400\"");
    let load = Load::start(&[sandbox.url(FRONT)], 50, false, None);
    sandbox.mlctl(&["deploy"]).await.ends(21).says("p95<150ms").says("fail");
    load.stop().await.is_clean();
    assert_eq!(get(&sandbox.url(FRONT)).await.body, "one\n");
    // The same release, told to stay: it failed all the same, and it is there to look at.
    sandbox.mlctl(&["deploy", "--on-failure", "stop"]).await.ends(30);
    assert_eq!(get(&sandbox.url(FRONT)).await.body, "two\n");
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_test_judges() {
    let sandbox = knobs();
    sandbox.edit_service("front", "KNOB_VERSION: one", "KNOB_VERSION: one\n      KNOB_DELAY_MS: \"20\"");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let url = sandbox.url(FRONT);
    let test = ["loadtest", &url, "--rate", "100/s", "--duration", "2s", "--threshold"];
    let run = async |threshold: &str| sandbox.mlctl(&[&test[..], &[threshold]].concat()).await;
    run("p95<2s").await.ends(0).says("pass");
    run("p50<10ms").await.ends(30).says("fail");
    // A failure a thousand cannot be told from none with so few requests.
    run("errors<0.1%").await.ends(31).says("inconclusive");
    let json = sandbox.mlctl(&[&test[..6], &["-o", "json"]].concat()).await.ends(0).json();
    assert_eq!((&json["sent"], &json["succeeded"]), (&200.into(), &200.into()), "{json:#}");
    sandbox.end().await;
}
