//! Whole runs against a server that behaves: pace, connections, setup and teardown, cancelling.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; clippy knows only test functions as tests"
)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use mlctl_core::gate::Verdict;
use mlctl_core::ports::LoadRunner as _;
use mlctl_core::run::{CancelLevel, CancelToken, Canceller};
use mlctl_core::secret::Secret;
use mlctl_load::HttpLoadRunner;
use serde_json::json;
use support::{Server, answer, request, run, silence, try_run};

#[tokio::test]
async fn every_due_request_is_sent_at_the_rate_asked_for() {
    let server = Server::http(|_| answer(200, "ok")).await;
    let ticks = Mutex::new(Vec::new());
    let request = request(&server.base, &json!({"rate": "300/s", "duration": "1200ms"}));
    let started = Instant::now();
    let tick = |tick| ticks.lock().unwrap().push(tick);
    let report = HttpLoadRunner::new().run(&request, &tick, &CancelToken::never()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(1200));
    assert_eq!((report.due, report.sent, report.succeeded), (360, 360, 360));
    assert_eq!((report.seconds, report.offered_per_second), (1.2, 300.0));
    assert!((report.achieved_per_second - 300.0).abs() < 1e-9);
    assert!(!report.interrupted && report.failures.is_empty());
    let ticks = ticks.into_inner().unwrap();
    assert_eq!(ticks[0].total_ms, 1200);
    assert!(ticks[0].elapsed_ms >= 1000 && ticks[0].sent >= 200, "{ticks:?}");
}

#[tokio::test]
async fn the_warm_up_is_sent_and_not_measured() {
    let seen = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&seen);
    let server = Server::http(move |_| {
        *counter.lock().unwrap() += 1;
        answer(200, "ok")
    })
    .await;
    let report = run(&request(&server.base, &json!({"warmup": "400ms", "duration": "300ms"}))).await;
    assert_eq!((report.due, *seen.lock().unwrap()), (60, 40 + 60));
    assert!((report.seconds - 0.3).abs() < 1e-6);
}

#[tokio::test]
async fn connections_are_kept_or_not_as_asked() {
    let server = Server::http(|_| answer(200, "ok")).await;
    let request = request(&server.base, &json!({"connections": 4}));
    let report = HttpLoadRunner::new().run(&request, &|_| (), &CancelToken::never()).await.unwrap();
    assert_eq!(report.succeeded, 100);
    assert!((1..=4).contains(&server.connections()), "{}", server.connections());

    let server = Server::http(|request| {
        let close = request.headers().get("connection").is_some_and(|value| value == "close");
        answer(if close { 200 } else { 400 }, "ok")
    })
    .await;
    let request = mlctl_core::ports::LoadRequest { base: server.base.clone(), ..request };
    let once = HttpLoadRunner::new().with_keep_alive(false);
    let report = once.run(&request, &|_| (), &CancelToken::never()).await.unwrap();
    assert_eq!((report.succeeded, server.connections()), (100, 100), "{:?}", report.failures);
}

#[tokio::test]
async fn the_mix_is_drawn_by_weight_and_the_same_for_a_seed() {
    let server = Server::http(|_| answer(200, "ok")).await;
    let entry = |name: &str, weight: u32| json!({"name": name, "weight": weight, "get": "/", "headers": {}, "expect": "2xx"});
    let request =
        request(&server.base, &json!({"rate": "1000/s", "mix": [entry("rare", 1), entry("often", 9)]}));
    let (one, other) = (run(&request).await, run(&request).await);
    let counts = |report: &mlctl_core::ports::LoadReport| {
        (report.endpoints["rare"].count, report.endpoints["often"].count)
    };
    assert_eq!(counts(&one), counts(&other));
    let (rare, often) = counts(&one);
    assert_eq!(rare + often, 500);
    assert!((25..=85).contains(&rare), "{rare} of 500 at a tenth of the weight");
}

/// A server of one resource: creates it, asks for its token, removes it. Keeps method, path and status of each call.
async fn resource(log: &Arc<Mutex<Vec<String>>>, mix_status: u16) -> Server {
    let log = Arc::clone(log);
    Server::http(move |request| {
        let log = Arc::clone(&log);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let call = format!("{} {}", head.method, head.uri);
            let authorized = head.headers.get("authorization").is_some_and(|value| value == "Bearer t/1");
            let (status, text) = match call.as_str() {
                "POST /base/things" if head.headers.get("x-operator").is_some_and(|value| value == "op") => {
                    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                    let named = body["name"]
                        .as_str()
                        .is_some_and(|name| name.starts_with("probe-") && name.len() == 42);
                    (if named { 201 } else { 422 }, r#"{"id":7,"token":"t/1"}"#)
                }
                "GET /base/things/7?t=t%2F1" if authorized => (mix_status, "{}"),
                "DELETE /base/things/7" if authorized => (204, ""),
                _ => (400, "\n\u{1b}[31mnot like that\nmore"),
            };
            log.lock().unwrap().push(format!("{call} {status}"));
            answer(status, text).await
        })
    })
    .await
}

fn resource_profile() -> serde_json::Value {
    let bearer = json!({"Authorization": "Bearer {{token}}"});
    json!({
        "setup": [{
            "name": "create", "post": "/things", "headers": {"x-operator": "{{secret:operator}}"},
            "body": {"name": "probe-{{uuid}}"}, "expect": "201", "save": {"id": "/id", "token": "/token"},
        }],
        "mix": [{"name": "it", "weight": 1, "get": "/things/{{id}}?t={{token}}", "headers": bearer, "expect": "200"}],
        "teardown": [{
            "name": "remove", "delete": "/things/{{id}}", "headers": bearer, "expect": "204", "save": {},
        }],
        "thresholds": ["errors<50%"],
    })
}

fn resource_request(
    base: &str,
    profile: &serde_json::Value,
    operator: &str,
) -> mlctl_core::ports::LoadRequest {
    let mut request = request(&format!("{base}/base/"), profile);
    request.secrets.insert("operator".to_owned(), Secret::new(operator));
    request
}

#[tokio::test]
async fn setup_feeds_the_load_and_teardown_cleans_up() {
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let report = run(&resource_request(&server.base, &resource_profile(), "op")).await;
    assert_eq!((report.succeeded, report.due), (100, 100), "{:?}", report.failures);
    let log = log.lock().unwrap();
    assert_eq!(log.first().unwrap(), "POST /base/things 201");
    assert_eq!(log.last().unwrap(), "DELETE /base/things/7 204");
    assert_eq!(report.verdicts.len(), 1);
    assert_eq!(report.verdicts[0].verdict, Verdict::Pass, "{:?}", report.verdicts);
}

#[tokio::test]
async fn teardown_runs_after_a_load_that_failed() {
    let log = Arc::default();
    let server = resource(&log, 503).await;
    let report = run(&resource_request(&server.base, &resource_profile(), "op")).await;
    assert_eq!(report.failures["status_503"], 100);
    assert_eq!(log.lock().unwrap().last().unwrap(), "DELETE /base/things/7 204");
}

#[tokio::test]
async fn a_setup_that_fails_is_an_error_that_says_where() {
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let error = try_run(&resource_request(&server.base, &resource_profile(), "wrong")).await.unwrap_err();
    assert_eq!(
        error.reason,
        "setup request `create` (POST /base/things) got 400, expected 201: [31mnot like that"
    );
    assert_eq!(log.lock().unwrap().len(), 1, "nothing was made, so nothing is removed");

    // A later step fails: what the first one made is removed all the same.
    log.lock().unwrap().clear();
    let mut profile = resource_profile();
    let second =
        json!({"name": "look", "get": "/nowhere/{{id}}", "headers": {}, "expect": "2xx", "save": {}});
    profile["setup"].as_array_mut().unwrap().push(second);
    let error = try_run(&resource_request(&server.base, &profile, "op")).await.unwrap_err();
    assert!(error.reason.starts_with("setup request `look` (GET /base/nowhere/{{id}}) got 400"), "{error}");
    let calls = ["POST /base/things 201", "GET /base/nowhere/7 400", "DELETE /base/things/7 204"];
    assert_eq!(*log.lock().unwrap(), calls);
}

#[tokio::test]
async fn an_answer_without_what_is_to_be_saved_is_an_error() {
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let mut profile = resource_profile();
    profile["setup"][0]["save"]["token"] = json!("/nothing");
    let error = try_run(&resource_request(&server.base, &profile, "op")).await.unwrap_err();
    assert!(
        error.reason.contains("is to save `token`, but its answer has no text or number at `/nothing`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_teardown_that_fails_is_told_and_does_not_pass() {
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let mut profile = resource_profile();
    profile["teardown"][0]["expect"] = json!("200");
    let report = run(&resource_request(&server.base, &profile, "op")).await;
    let last = report.verdicts.last().unwrap();
    assert_eq!((last.subject.as_str(), last.want.as_str()), ("teardown:remove", "200"));
    assert_eq!(last.verdict, Verdict::Inconclusive);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is() {
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let mut missing = resource_request(&server.base, &resource_profile(), "op");
    missing.secrets.clear();
    let error = try_run(&missing).await.unwrap_err();
    assert_eq!(error.reason, "it uses the secret `operator`, and the target has none of that name");
    let error = try_run(&request(&server.base, &json!({"mix": []}))).await.unwrap_err();
    assert_eq!(error.reason, "its mix is empty");
    let error = try_run(&request("http://192.0.2.1:9", &json!({}))).await.unwrap_err();
    assert!(error.reason.contains("not on this machine"), "{error}");
    assert!(log.lock().unwrap().is_empty());
}

/// Cancels at the first request of the mix, and answers it or not.
async fn cancelled_by(level: CancelLevel, answers: bool) -> (mlctl_core::ports::LoadReport, Vec<String>) {
    let (canceller, token) = Canceller::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&log);
    let server = Server::http(move |request| {
        calls.lock().unwrap().push(request.method().to_string());
        match request.method().as_str() {
            "POST" => answer(201, r#"{"id":7,"token":"t"}"#),
            "DELETE" => answer(204, ""),
            _ => {
                canceller.raise(level);
                if answers { answer(200, "ok") } else { silence() }
            }
        }
    })
    .await;
    let mut profile = resource_profile();
    // Far longer than the test may last: only cancelling ends it.
    profile["duration"] = json!("10m");
    profile["timeout"] = json!("10m");
    let request = resource_request(&server.base, &profile, "op");
    let run = HttpLoadRunner::new();
    let report = tokio::time::timeout(Duration::from_secs(10), run.run(&request, &|_| (), &token)).await;
    let report = report.unwrap().unwrap();
    let calls = log.lock().unwrap().clone();
    (report, calls)
}

#[tokio::test]
async fn the_first_step_of_cancelling_waits_for_what_is_under_way() {
    let (report, calls) = cancelled_by(CancelLevel::AfterStep, true).await;
    assert!(report.interrupted && report.succeeded >= 1 && report.failures.is_empty());
    assert_eq!(report.verdicts[0].verdict, Verdict::Inconclusive);
    assert_eq!(calls.iter().filter(|call| *call == "GET").count() as u64, report.due);
    assert_eq!(calls.last().unwrap(), "DELETE", "the teardown ran");
}

#[tokio::test]
async fn the_second_step_of_cancelling_waits_for_nothing_but_the_teardown() {
    let (report, calls) = cancelled_by(CancelLevel::Now, false).await;
    assert!(report.interrupted);
    assert_eq!(report.due, 0, "what was dropped counts for nothing");
    assert_eq!(report.verdicts[0].verdict, Verdict::Inconclusive);
    assert_eq!(calls.last().unwrap(), "DELETE", "the teardown ran");
}

#[tokio::test]
async fn a_run_cancelled_before_it_begins_makes_nothing() {
    let (canceller, token) = Canceller::new();
    canceller.escalate();
    let log = Arc::default();
    let server = resource(&log, 200).await;
    let request = resource_request(&server.base, &resource_profile(), "op");
    let report = HttpLoadRunner::new().run(&request, &|_| (), &token).await.unwrap();
    assert!(report.interrupted && report.due == 0);
    assert!(log.lock().unwrap().is_empty());
}
