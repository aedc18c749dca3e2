//! The gateway in front of real services: what passes, what is changed on the way, what is refused.

use std::time::Duration;

use crate::support::{OPERATOR, RoutesFile, echo, gateway, table, upstream};
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use futures::StreamExt;
use serde_json::{Value, json};
use service_kit::testing::Wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn requests_are_mapped_and_the_rest_is_404() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    let reply = wire.request("PUT", "/api/svc/items/7?a=1&b=%20", &[], "hello").await.unwrap();
    assert_eq!((reply.status, reply.header("x-revision")), (200, Some("r1")));
    let told = parsed(&reply.body);
    assert_eq!(
        (&told["method"], &told["path"], &told["query"], &told["length"]),
        (&json!("PUT"), &json!("/svc/items/7"), &json!("a=1&b=%20"), &json!(5))
    );
    let rows = [
        ("/", 404, "not_found"),
        ("/api/other", 404, "not_found"),
        ("/api/svcs", 404, "not_found"),
        ("/svc/items/7", 404, "not_found"),
        ("/internal/anything", 404, "not_found"),
        ("/api/svc/../internal", 400, "invalid_path"),
        ("/api/svc/%2e%2e/internal", 400, "invalid_path"),
    ];
    for (path, status, code) in rows {
        let reply = wire.get(path, &[]).await.unwrap();
        assert_eq!((reply.status, &parsed(&reply.body)["error"]), (status, &json!(code)), "{path}");
        assert_eq!(reply.header("x-revision"), Some("front"));
    }
}

#[tokio::test]
async fn headers_are_cleaned_in_both_directions() {
    let answer = || async {
        let headers =
            [("connection", "close, x-hop"), ("x-hop", "1"), ("x-kept", "1"), ("keep-alive", "timeout=5")];
        (headers, "body").into_response()
    };
    let service = upstream("r1", Router::new().route("/svc/hop", get(answer)).fallback(support_tell)).await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    let sent = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-internal-token", "guess"),
        ("connection", "keep-alive, x-secret"),
        ("x-secret", "1"),
        ("x-request-id", "id-1"),
        ("authorization", "Bearer token"),
    ];
    let mut seen = parsed(&wire.get("/api/svc/x", &sent).await.unwrap().body);
    let traced = seen.as_object_mut().unwrap().shift_remove("traceparent").unwrap();
    assert!(traced.as_str().unwrap().ends_with("-00"), "nobody records it here: {traced}");
    let mut names: Vec<(&str, &str)> = seen
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    names.sort_unstable();
    let upstream = service.address.to_string();
    assert_eq!(
        names,
        [
            ("authorization", "Bearer token"),
            ("host", upstream.as_str()),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", "test"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "id-1"),
        ]
    );
    let reply = wire.get("/api/svc/hop", &[]).await.unwrap();
    assert_eq!(
        (reply.header("x-hop"), reply.header("keep-alive"), reply.header("x-kept")),
        (None, None, Some("1"))
    );
    // The upstream closes its connection with that answer; the client keeps its own.
    assert!(!reply.closes());
}

async fn support_tell(headers: axum::http::HeaderMap) -> axum::Json<Value> {
    let all = headers.iter().map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())));
    axum::Json(Value::Object(all.collect()))
}

#[tokio::test]
async fn bodies_stream_and_have_a_limit() {
    let download = || async { crate::support::body_of(80, 64 << 10) };
    let count = |body: Body| async move {
        let sizes = body.into_data_stream().map(|chunk| chunk.map_or(0, |chunk| chunk.len()));
        sizes.fold(0, |sum, size| async move { sum + size }).await.to_string()
    };
    let service =
        upstream("r1", Router::new().route("/svc/down", get(download)).route("/svc/up", post(count))).await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    assert_eq!(wire.get("/api/svc/down", &[]).await.unwrap().body.len(), 80 * (64 << 10));
    let five_mib = "x".repeat(5 << 20);
    assert_eq!(
        wire.request("POST", "/api/svc/up", &[], &five_mib).await.unwrap().body,
        (5 << 20).to_string()
    );

    let mut wire = Wire::connect(front.address).await.unwrap();
    let head = format!("POST /api/svc/up HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", (10 << 20) + 1);
    wire.send(&head).await.unwrap();
    assert_eq!(wire.reply().await.unwrap().status, 413, "declared too long: refused before a byte is read");

    let mut wire = Wire::connect(front.address).await.unwrap();
    wire.send("POST /api/svc/up HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    for _ in 0..11 {
        // The server may answer and close in the middle of it.
        if wire.send(&chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(wire.reply().await.unwrap().status, 413);
}

#[tokio::test]
async fn who_is_late_is_told_apart() {
    let stuck = || std::future::pending::<()>();
    let read_all = |_: axum::body::Bytes| async { "read" };
    let half = || async {
        let chunks = futures::stream::iter([Ok::<_, std::io::Error>("half")]);
        Body::from_stream(chunks.chain(futures::stream::pending()))
    };
    let routes = Router::new()
        .route("/svc/stuck", get(stuck))
        .route("/svc/read", post(read_all))
        .route("/svc/half", get(half));
    let service = upstream("r1", routes).await;
    let mut table = table(service.address);
    table["routes"][0]["timeout_ms"] = json!(150);
    let routes = RoutesFile::new(&table);
    let front = gateway(&routes.path()).await;

    let mut wire = Wire::connect(front.address).await.unwrap();
    let reply = wire.get("/api/svc/stuck", &[]).await.unwrap();
    assert_eq!((reply.status, &parsed(&reply.body)["error"]), (504, &json!("upstream_timeout")));

    let mut wire = Wire::connect(front.address).await.unwrap();
    wire.send("POST /api/svc/read HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    let reply = wire.reply().await.unwrap();
    assert_eq!((reply.status, &parsed(&reply.body)["error"]), (408, &json!("body_timeout")));

    // The head is out already: all that is left is to break off, so that nobody takes a half for a whole.
    let mut wire = Wire::connect(front.address).await.unwrap();
    let error = wire.get("/api/svc/half", &[]).await.unwrap_err();
    assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[tokio::test]
async fn an_upstream_that_is_away_is_a_502_after_retries() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let routes = RoutesFile::new(&table(nobody.local_addr().unwrap()));
    drop(nobody);
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    // A connect that failed has sent nothing, so it is tried again for every method.
    let reply = wire.request("POST", "/api/svc/x", &[], "body").await.unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (502, Some("1")));
    assert_eq!(parsed(&reply.body)["error"], json!("upstream_unreachable"));
    let text = front.scrape().await.unwrap();
    assert!(text.contains("gateway_upstream_retries_total{reason=\"connect\"} 4"), "{text}");
    assert!(text.contains("gateway_upstream_retries_total{reason=\"broken\"} 0"), "{text}");
}

/// An upstream that reads a whole request, breaks off `failures` times, then answers; tells how often it was asked.
async fn breaking(failures: usize) -> (std::net::SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, questions) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for turn in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let mut length = 0;
            while !bytes[..length].ends_with(b"\r\n\r\n") && !bytes[..length].ends_with(b"body") {
                length += stream.read(&mut bytes[length..]).await.unwrap();
            }
            asked.send(String::from_utf8_lossy(&bytes[..length]).into_owned()).unwrap();
            if turn >= failures {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    });
    (address, questions)
}

#[tokio::test]
async fn a_trace_is_passed_on_and_what_only_looks_like_one_is_not() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let good = format!("00-{trace}-{span}-01");
    let rows = [
        (good.clone(), true),
        (format!("cc-{trace}-{span}-01-later"), true),
        (good.to_uppercase(), false),
        (format!("ff-{trace}-{span}-01"), false),
        (format!("00-{}-{span}-01", "0".repeat(32)), false),
        (format!("{good}-more"), false),
        ("x".repeat(4_000), false),
    ];
    for (sent, believed) in rows {
        let headers = [("traceparent", sent.as_str()), ("tracestate", "a=1")];
        let seen = parsed(&wire.get("/api/svc/x", &headers).await.unwrap().body)["headers"].clone();
        let parent = seen["traceparent"].as_str().unwrap();
        assert_eq!(parent.len(), good.len(), "{sent}: {parent}");
        assert_eq!(parent.starts_with(&format!("00-{trace}-")), believed, "{sent}: {parent}");
        assert!(!parent.contains(span), "the service's parent is the gateway: {parent}");
        assert_eq!(seen["tracestate"].as_str(), believed.then_some("a=1"), "{sent}");
    }
}

#[tokio::test]
async fn only_what_may_be_done_twice_is_sent_twice() {
    // method, body, how often the service breaks off, what the client sees, how often the service is asked
    let rows = [
        ("GET", "", 1, 200, 2),
        ("DELETE", "", 1, 200, 2),
        ("GET", "", 2, 502, 2),
        ("POST", "", 1, 502, 1),
        ("POST", "body", 1, 502, 1),
        // Idempotent, but its body is gone.
        ("PUT", "body", 1, 502, 1),
    ];
    for (method, body, failures, status, times) in rows {
        let (address, mut questions) = breaking(failures).await;
        let routes = RoutesFile::new(&table(address));
        let front = gateway(&routes.path()).await;
        let mut wire = Wire::connect(front.address).await.unwrap();
        let reply = wire.request(method, "/api/svc/x", &[("x-request-id", "same")], body).await.unwrap();
        assert_eq!(reply.status, status, "{method} {body} {failures}");
        let mut asked = Vec::new();
        let mut spans = std::collections::BTreeSet::new();
        while let Ok(question) = questions.try_recv() {
            let (traced, rest): (Vec<&str>, _) =
                question.lines().partition(|line| line.starts_with("traceparent"));
            spans.extend(traced.iter().map(|line| (*line).to_owned()));
            asked.push(rest.join("\n"));
        }
        assert_eq!(spans.len(), times, "each attempt is a span of its own");
        assert_eq!(asked.len(), times, "{method} {body} {failures}");
        assert!(asked.iter().all(|question| *question == asked[0]), "the same request each time");
    }
}

#[tokio::test]
async fn websockets_and_odd_methods_are_refused() {
    let service = echo("r1").await;
    let mut limited = table(service.address);
    limited["routes"][0]["methods"] = json!(["GET", "POST"]);
    let routes = RoutesFile::new(&limited);
    let front = gateway(&routes.path()).await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let mut wire = Wire::connect(front.address).await.unwrap();
    let reply = wire.get("/api/svc/x", &upgrade).await.unwrap();
    assert_eq!((reply.status, &parsed(&reply.body)["error"]), (501, &json!("upgrade_not_supported")));
    // An offer of HTTP/2 may be ignored.
    let reply = wire.get("/api/svc/x", &[("connection", "upgrade"), ("upgrade", "h2c")]).await.unwrap();
    assert_eq!(reply.status, 200);
    let reply = wire.request("DELETE", "/api/svc/x", &[], "").await.unwrap();
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, POST")));
    assert_eq!(wire.request("TRACE", "/api/svc/x", &[], "").await.unwrap().status, 405);
}

#[tokio::test]
async fn metrics_are_for_operators() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    wire.get("/api/svc/a/b/c", &[]).await.unwrap();
    let right = format!("Bearer {OPERATOR}");
    let wrong = format!("Bearer {OPERATOR}x");
    let reply = wire.get("/metrics", &[]).await.unwrap();
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(wire.get("/metrics", &[("authorization", &wrong)]).await.unwrap().status, 401);
    let reply = wire.get("/metrics", &[("authorization", &right)]).await.unwrap();
    assert_eq!(reply.status, 200);
    let series = "http_request_duration_seconds_count{service=\"gateway\",method=\"GET\",route=\"/api/svc\",status=\"2xx\"} 1";
    assert!(reply.body.contains(series), "{}", reply.body);
    let series = "http_request_duration_seconds_count{service=\"gateway\",method=\"POST\",route=\"/api/svc\",status=\"5xx\"} 0";
    assert!(reply.body.contains(series), "created at 0 from the table");
}

#[tokio::test]
async fn health_speaks_for_everybody() {
    let (good, bad) = (echo("r1").await, upstream("r2", Router::new()).await);
    let mut two = table(good.address);
    two["services"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "other", "upstream": bad.address.to_string(), "health_path": "/health"}));
    let routes = RoutesFile::new(&two);
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    let reply = wire.get("/health", &[]).await.unwrap();
    let told = parsed(&reply.body);
    assert_eq!((reply.status, &told["status"], &told["service"]), (200, &json!("ok"), &json!("gateway")));
    assert_eq!(told["checks"]["other"], json!({"status": "ok", "detail": ""}));
    assert_eq!(told["checks"]["routes"]["detail"], json!("1 routes to 2 services"));

    let reply = wire.get("/api/other/health", &[("authorization", "Bearer x")]).await.unwrap();
    assert_eq!((reply.status, &parsed(&reply.body)["revision"]), (200, &json!("r2")));
    assert_eq!(wire.request("POST", "/api/other/health", &[], "").await.unwrap().status, 405);
    assert_eq!(wire.get("/api/nobody/health", &[]).await.unwrap().status, 404);

    tokio::time::timeout(Duration::from_secs(5), bad.stop()).await.unwrap().unwrap().unwrap();
    crate::support::until(front.address, "/health", |reply| {
        reply.status == 503
            && parsed(&reply.body)["checks"]["other"]
                == json!({"status": "failing", "detail": "does not answer"})
    })
    .await;
    assert_eq!(wire.get("/api/svc/health", &[]).await.unwrap().status, 200);
    // The gateway itself can still forward to the others.
    assert_eq!(wire.get("/readyz", &[]).await.unwrap().status, 200);
}
