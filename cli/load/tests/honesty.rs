//! What a load tool must not hide: stalls, errors, dead servers, requests that were never sent.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; clippy knows only test functions as tests"
)]

mod support;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mlctl_core::gate::Verdict;
use mlctl_core::ports::LoadReport;
use serde_json::json;
use support::{Server, answer, request, run, silence};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Every kind of threshold, none of which a useless server may pass.
const ALL_KINDS: [&str; 10] = [
    "p99<10s",
    "p50<10s",
    "max<10s",
    "avg<10s",
    "min<10s",
    "errors<50%",
    "errors<=0%",
    "success>1%",
    "rate>1/min",
    "it:p95<10s",
];

fn verdicts(report: &LoadReport) -> Vec<(String, Verdict)> {
    report.verdicts.iter().map(|v| (v.want.clone(), v.verdict)).collect()
}

#[tokio::test]
async fn a_server_that_freezes_was_late_for_everybody_who_came_meanwhile() {
    let first = OnceLock::new();
    let server = Server::http(move |_| {
        let start: Instant = *first.get_or_init(Instant::now);
        let freeze = Duration::from_millis(500)..Duration::from_millis(1000);
        let wait = if freeze.contains(&start.elapsed()) {
            freeze.end - start.elapsed().min(freeze.end)
        } else {
            Duration::ZERO
        };
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            answer(200, "ok").await
        })
    })
    .await;
    // Four connections: a closed loop would have sent four slow requests and called it 99 % good.
    let profile = json!({"duration": "1500ms", "connections": 4, "thresholds": ["p99<100ms", "p50<100ms"]});
    let report = run(&request(&server.base, &profile)).await;
    assert_eq!((report.due, report.sent, report.succeeded), (300, 300, 300));
    let (p99, p90) = (report.total.response_us["p99"], report.total.response_us["p90"]);
    assert!(p99 >= 430_000, "p99 {p99} us");
    assert!(p90 >= 300_000, "p90 {p90} us: a third of the requests fell into the freeze");
    let service = report.total.service_us["p90"];
    assert!(
        service < p90 / 2,
        "service p90 {service} us: those that waited for a connection were answered at once"
    );
    assert_ne!(report.verdicts[0].verdict, Verdict::Pass);
}

#[tokio::test]
async fn a_server_that_only_errs_never_passes() {
    let server = Server::http(|_| answer(500, "boom")).await;
    let report = run(&request(&server.base, &json!({"thresholds": ALL_KINDS}))).await;
    assert_eq!(report.failures["status_500"], 100);
    assert_eq!((report.succeeded, report.achieved_per_second), (0, 0.0));
    for (want, verdict) in verdicts(&report) {
        assert_ne!(verdict, Verdict::Pass, "{want}");
    }
    assert_eq!(report.verdicts[5].verdict, Verdict::Fail, "errors<50%");
}

#[tokio::test]
async fn a_dead_port_never_passes() {
    let base = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let report = run(&request(&base, &json!({"thresholds": ALL_KINDS}))).await;
    assert_eq!(report.failures["refused"], 100);
    for (want, verdict) in verdicts(&report) {
        assert_ne!(verdict, Verdict::Pass, "{want}");
    }
}

#[tokio::test]
async fn a_run_without_a_request_tells_nothing() {
    let server = Server::http(|_| answer(200, "ok")).await;
    for profile in [json!({"duration": "0"}), json!({"rate": "0/s", "duration": "100ms"})] {
        let mut profile = profile;
        profile["thresholds"] = json!(ALL_KINDS);
        let report = run(&request(&server.base, &profile)).await;
        assert_eq!(report.due, 0);
        for (want, verdict) in verdicts(&report) {
            assert_eq!(verdict, Verdict::Inconclusive, "{want}");
        }
    }
}

#[tokio::test]
async fn what_no_connection_could_take_is_counted_as_not_sent() {
    let server = Server::http(|_| silence()).await;
    let profile = json!({
        "connections": 1, "timeout": "200ms", "rate": "100/s", "thresholds": ["errors<99%", "p50<10s"]
    });
    let load = mlctl_load::HttpLoadRunner::new().with_backlog(3);
    let request = request(&server.base, &profile);
    let never = mlctl_core::run::CancelToken::never();
    let report = mlctl_core::ports::LoadRunner::run(&load, &request, &|_| (), &never).await.unwrap();
    let (timeouts, not_sent) = (report.failures["timeout"], report.failures["not_sent"]);
    assert_eq!((report.due, report.sent), (50, timeouts));
    assert_eq!(timeouts + not_sent, 50, "every due request is accounted for");
    assert!(not_sent > 30, "{not_sent}");
    assert!(report.verdicts.iter().all(|v| v.verdict != Verdict::Pass));
}

#[tokio::test]
async fn a_timeout_counts_at_its_age() {
    let server = Server::http(|_| silence()).await;
    let profile = json!({"timeout": "150ms", "duration": "200ms", "connections": 100});
    let report = run(&request(&server.base, &profile)).await;
    assert_eq!(report.failures["timeout"], 40);
    assert!(report.total.response_us["p50"] >= 149_000, "{:?}", report.total.response_us);
}

/// Reads requests until `answers` were given, then reads one more and does `last`.
async fn answers_then(answers: usize, last: &'static str) -> Server {
    Server::raw(move |mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 4096];
            for _ in 0..answers {
                if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                let _ = stream.write_all(last.as_bytes()).await;
            }
        })
    })
    .await
}

#[tokio::test]
async fn broken_answers_are_told_apart() {
    for (answers, last, class) in [
        (0, "", "reset"),
        (1, "", "reset_on_reuse"),
        (0, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "short_body"),
        (0, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "short_body"),
        (0, "SSH-2.0-nothing\r\n\r\n", "bad_response"),
        (0, "HTTP/1.1 204 No Content\r\n\r\n", "unexpected_status"),
        (0, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "status_404"),
    ] {
        let server = answers_then(answers, last).await;
        let profile = json!({
            "rate": "50/s", "duration": "200ms", "connections": 1,
            "mix": [{"name": "it", "weight": 1, "get": "/", "headers": {}, "expect": "200"}],
        });
        let report = run(&request(&server.base, &profile)).await;
        let classes: Vec<_> = report.failures.keys().map(String::as_str).collect();
        assert_eq!(classes, [class], "{last:?}: {:?}", report.failures);
        let expected = if answers == 0 { 10 } else { 5 };
        assert_eq!(report.failures[class], expected, "{last:?}");
    }
}

#[tokio::test]
async fn a_server_that_closes_politely_loses_nothing() {
    let polite = Server::raw(|mut stream| {
        Box::pin(async move {
            let mut buffer = [0; 4096];
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
                let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
                let _ = stream.write_all(answer).await;
            }
        })
    })
    .await;
    let report = run(&request(&polite.base, &json!({}))).await;
    assert_eq!((report.succeeded, report.failures.len()), (100, 0), "{:?}", report.failures);
    assert_eq!(polite.connections(), 100);
}
