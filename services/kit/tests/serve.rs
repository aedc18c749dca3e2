//! The serve loop under clients that are slow, many or rude, and what stands around every route.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Extension, Router};
use futures::future::join_all;
use service_kit::app::RequestId;
use service_kit::extract::Json;
use service_kit::health::Kind;
use service_kit::serve::Limits;
use service_kit::testing::{Running, Wire};
use service_kit::{Base, Identity, Kit, ServeError};
use tokio::sync::Notify;

const IDENTITY: Identity = Identity::new("test-service", "1.2.3", 1);

fn kit(limits: Limits) -> Kit {
    let base = Base { revision: Some("r7".to_owned()), drain: Duration::ZERO, ..Base::new(IDENTITY) };
    Kit::new(IDENTITY, &base).limits(limits).body_limit(64)
}

fn routes() -> Router {
    let echo = |Json(value): Json<serde_json::Value>| async { Json(value) };
    let id = |Extension(id): Extension<RequestId>| async move { id.as_str().to_owned() };
    Router::new()
        .route("/things/{id}", get(|| async { "thing" }))
        .route("/echo", post(echo))
        .route("/id", get(id))
        .route("/fails", get(|| async { (axum::http::StatusCode::BAD_GATEWAY, "no") }))
}

async fn start(limits: Limits) -> Running<ServeError> {
    let kit = kit(limits);
    Running::start(move |listener, shutdown| async move { kit.serve(routes(), listener, shutdown).await })
        .await
        .unwrap()
}

fn quick_header() -> Limits {
    Limits { header_time: Duration::from_millis(100), ..Limits::default() }
}

#[tokio::test]
async fn a_header_that_never_ends_is_closed_and_an_idle_connection_is_not() {
    let service = start(quick_header()).await;
    let mut idle = Wire::connect(service.address).await.unwrap();
    idle.get("/things/1", &[]).await.unwrap();
    // Begun after the other became idle, so when this one is closed the other has idled for longer than a header may.
    let mut slow = Wire::connect(service.address).await.unwrap();
    slow.send("GET /things/1 HTTP/1.1\r\nhost: te").await.unwrap();
    assert!(slow.closed().await);
    assert_eq!(idle.get("/things/1", &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_slow_header_after_a_first_request_is_closed_too() {
    let service = start(quick_header()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.get("/things/1", &[]).await.unwrap();
    wire.send("GET /things").await.unwrap();
    assert!(wire.closed().await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let service = start(Limits { idle: Duration::from_millis(50), ..Limits::default() }).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.get("/things/1", &[]).await.unwrap();
    assert!(wire.closed().await);
}

#[tokio::test]
async fn half_open_connections_take_the_service_away_for_no_longer_than_a_header() {
    let limits = Limits { connections: 50, ..quick_header() };
    let service = start(limits).await;
    let half_open = join_all((0..200).map(|_| async {
        let mut wire = Wire::connect(service.address).await.unwrap();
        wire.send("GET / HT").await.unwrap();
        wire
    }))
    .await;
    let mut honest = Wire::connect(service.address).await.unwrap();
    assert_eq!(honest.get("/things/1", &[]).await.unwrap().status, 200);
    drop(half_open);
}

/// Tells when an answer's body is given up.
struct GivenUp(Arc<Notify>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed() {
    let given_up = Arc::new(Notify::new());
    let told = given_up.clone();
    let kit = kit(Limits { stall: Duration::from_millis(100), ..Limits::default() });
    let service = Running::start(move |listener, shutdown| async move {
        let endless = move || async move {
            let guard = GivenUp(told);
            let chunks = futures::stream::repeat_with(move || {
                let _still_sending = &guard;
                Ok::<_, std::io::Error>(vec![b'x'; 64 << 10])
            });
            axum::body::Body::from_stream(chunks)
        };
        kit.serve(Router::new().route("/endless", get(endless)), listener, shutdown).await
    })
    .await
    .unwrap();
    let mut wire = Wire::connect(service.address).await.unwrap();
    wire.send("GET /endless HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(10), given_up.notified()).await;
    assert!(waited.is_ok(), "still sending to a client that does not read");
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused() {
    let service = start(Limits { header_bytes: 8 << 10, ..Limits::default() }).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    let long = "x".repeat(9 << 10);
    assert_eq!(wire.get("/things/1", &[("x-long", &long)]).await.unwrap().status, 431);
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_order() {
    let service = start(quick_header()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    let one = |id: &str| format!("GET /id HTTP/1.1\r\nhost: t\r\nx-request-id: {id}\r\n\r\n");
    wire.send(&format!("{}{}{}", one("a"), one("b"), one("c"))).await.unwrap();
    let mut bodies = Vec::new();
    for _ in 0..3 {
        bodies.push(wire.reply().await.unwrap().body);
    }
    assert_eq!(bodies, ["a", "b", "c"]);
}

#[tokio::test]
async fn bodies_are_limited_and_read_strictly() {
    let service = start(Limits::default()).await;
    let long = format!("\"{}\"", "x".repeat(100));
    let json = ("content-type", "application/json");
    let table = [
        (json, r#"{"a":1}"#, 200, r#"{"a":1}"#),
        (("content-type", "application/json; charset=utf-8"), "1", 200, "1"),
        (json, "{\"a\":", 400, "invalid_json"),
        (("content-type", "text/plain"), "1", 415, "unsupported_media_type"),
        (("x-no-content-type", ""), "1", 415, "unsupported_media_type"),
        (json, &long, 413, "body_too_large"),
    ];
    for (header, body, status, part) in table {
        let mut wire = Wire::connect(service.address).await.unwrap();
        let reply = wire.request("POST", "/echo", &[header], body).await.unwrap();
        assert_eq!(reply.status, status, "{body}");
        assert!(reply.body.contains(part), "{body}: {}", reply.body);
    }
    // The same body without its length told first.
    let mut wire = Wire::connect(service.address).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    wire.send(&format!("{head}{:x}\r\n{long}\r\n0\r\n\r\n", long.len())).await.unwrap();
    assert_eq!(wire.reply().await.unwrap().status, 413);
}

#[tokio::test]
async fn answers_carry_a_request_id_a_revision_and_our_error_form() {
    let service = start(Limits::default()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    let kept = wire.get("/id", &[("x-request-id", "abc-1.2:3_4")]).await.unwrap();
    assert_eq!((kept.header("x-request-id"), kept.body.as_str()), (Some("abc-1.2:3_4"), "abc-1.2:3_4"));
    assert_eq!(kept.header("x-revision"), Some("r7"));
    for insane in ["two words", "<script>", &"x".repeat(129), "new\tline"] {
        let reply = wire.get("/id", &[("x-request-id", insane)]).await.unwrap();
        assert_eq!(reply.body.len(), 36, "replaced: {insane}");
        assert_eq!(reply.header("x-request-id"), Some(reply.body.as_str()));
    }
    let missing = wire.get("/nowhere", &[]).await.unwrap();
    assert_eq!(missing.status, 404);
    assert!(missing.body.starts_with(r#"{"error":"not_found","#), "{}", missing.body);
    let wrong = wire.request("DELETE", "/echo", &[], "").await.unwrap();
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert!(wrong.body.starts_with(r#"{"error":"method_not_allowed","#), "{}", wrong.body);
}

#[tokio::test]
async fn health_names_the_failing_check() {
    let kit = kit(Limits::default());
    let migrations = kit.health.check("migrations", Kind::Startup);
    migrations.failing("waiting for table users");
    let service =
        Running::start(
            move |listener, shutdown| async move { kit.serve(routes(), listener, shutdown).await },
        )
        .await
        .unwrap();
    let mut wire = Wire::connect(service.address).await.unwrap();
    let mut statuses = Vec::new();
    for path in ["/livez", "/startupz", "/readyz", "/health"] {
        statuses.push(wire.get(path, &[]).await.unwrap().status);
    }
    assert_eq!(statuses, [200, 503, 503, 503]);
    let health: serde_json::Value =
        serde_json::from_str(&wire.get("/health", &[]).await.unwrap().body).unwrap();
    let expected = serde_json::json!({
        "status": "failing", "service": "test-service", "version": "1.2.3", "revision": "r7",
        "checks": {"migrations": {"status": "failing", "detail": "waiting for table users"}},
    });
    assert_eq!(health, expected);
    migrations.good();
    assert_eq!(wire.get("/startupz", &[]).await.unwrap().status, 200);
    assert_eq!(wire.get("/health", &[]).await.unwrap().status, 200);
}

#[tokio::test]
async fn latency_is_measured_by_template_and_class() {
    let service = start(Limits::default()).await;
    let mut wire = Wire::connect(service.address).await.unwrap();
    for path in ["/things/1", "/things/2", "/nowhere/secret", "/fails"] {
        wire.get(path, &[]).await.unwrap();
    }
    let text = service.scrape().await.unwrap();
    let count = |method: &str, route: &str, class: &str| {
        let series = format!(
            "http_request_duration_seconds_count{{service=\"test-service\",method=\"{method}\",route=\"{route}\",status=\"{class}\"}} "
        );
        text.lines().find_map(|line| line.strip_prefix(series.as_str())).map(str::to_owned)
    };
    assert_eq!(count("GET", "/things/{id}", "2xx").as_deref(), Some("2"), "{text}");
    assert_eq!(count("GET", "unmatched", "4xx").as_deref(), Some("1"), "{text}");
    assert_eq!(count("GET", "/fails", "5xx").as_deref(), Some("1"), "{text}");
    assert_eq!(count("GET", "/health", "5xx").as_deref(), Some("0"), "{text}");
    assert!(!text.contains("secret"), "no label holds a path with its values");
    for name in ["container_cpu_usage_percent", "container_memory_usage_bytes"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
}
