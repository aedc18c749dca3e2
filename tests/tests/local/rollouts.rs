//! Rollouts and a rollback under load: not one request of a user is lost, and the test could tell.

use mlctl_tests::{Load, Sandbox, Tally, at_full_length, note, send};
use serde_json::json;

use crate::{BACK, assert_settled, knobs};

/// Port of the gateway in the shipped system file.
const GATEWAY: u16 = 8080;

/// Registers a user and returns its token.
async fn user(gateway: &str) -> String {
    let body = json!({"email": "load@example.com", "password": "a password of some length"});
    let answer = send("POST", &format!("{gateway}/api/auth/register"), &[], Some(&body)).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_rollouts_and_a_rollback_lose_no_request() {
    let full = at_full_length();
    let sandbox = if full { Sandbox::whole_shipped() } else { Sandbox::of_shipped() };
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let gateway = sandbox.url(GATEWAY);
    let token = user(&gateway).await;
    // Answers of every service, with a token and without.
    let paths = [
        "/api/products?limit=1",
        "/api/ml/health",
        "/api/users/me",
        "/api/analytics/summary",
        "/api/catalog-service/health",
        "/api/user-service/health",
    ];
    let urls = paths.map(|path| format!("{gateway}{path}"));
    // 500 a second together, half of them as browsers send them.
    let kept = Load::start(&urls, 250, true, Some(&token));
    let single = Load::start(&urls, 250, false, Some(&token));
    let mut before = (Tally::default(), Tally::default());
    let mut tell = |what: &str| {
        let now = (kept.so_far(), single.so_far());
        let failed = (now.0.failed() - before.0.failed(), now.1.failed() - before.1.failed());
        let sent = now.0.sent + now.1.sent - before.0.sent - before.1.sent;
        note(&format!(
            "{what}: {sent} requests, failed {} with keep-alive and {} without",
            failed.0, failed.1
        ));
        before = now;
    };
    for service in ["catalog-service", "user-service", "gateway"] {
        sandbox.edit_service(service, "LOG_LEVEL: info", "LOG_LEVEL: warn");
        sandbox.mlctl(&["deploy"]).await.ends(0);
        tell(&format!("rollout of {service}"));
    }
    sandbox.mlctl(&["rollback", "--to-revision", "1"]).await.ends(0);
    tell("rollback of all three");
    assert_settled(&sandbox.query(&["status"]).await);
    let (kept, single) = (kept.stop().await, single.stop().await);
    note(&format!("with keep-alive: {kept}"));
    note(&format!("without: {single}"));
    kept.is_clean();
    single.is_clean();
    sandbox.end().await;
}

/// Rolls a service whose answers take a while, and counts.
async fn roll_slow_service(drain: &str) -> Tally {
    let sandbox = knobs();
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: one\n      KNOB_DELAY_MS: \"300\"");
    sandbox.edit_service("back", "drain: 3s", &format!("drain: {drain}"));
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let load = Load::start(&[sandbox.url(BACK)], 200, false, None);
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let tally = load.stop().await;
    assert!(
        tally.bodies.contains_key("one") && tally.bodies.contains_key("two"),
        "{tally}: {:?}",
        tally.bodies
    );
    sandbox.end().await;
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_drain_requests_are_lost_and_counted() {
    let drained = roll_slow_service("3s").await;
    note(&format!("with a drain of 3 s: {drained}"));
    drained.is_clean();
    let cut = roll_slow_service("0s").await;
    note(&format!("with the drain switched off: {cut}"));
    assert!(
        cut.failed() > 0,
        "a roll without a drain has to lose requests, else the test above proves nothing: {cut}"
    );
}
