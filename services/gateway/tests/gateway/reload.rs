//! New tables while requests are under way: taken over without losing one, refused without changing anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{RoutesFile, echo, gateway, table, until, upstream};
use axum::Router;
use axum::routing::get;
use serde_json::{Value, json};
use service_kit::testing::Wire;
use tokio::sync::Notify;

/// Requests back to back until told to stop; answers how often each revision answered, and every failure.
async fn load(
    address: std::net::SocketAddr,
    keep_alive: bool,
    stop: Arc<AtomicBool>,
) -> (BTreeMap<String, usize>, Vec<String>) {
    let (mut seen, mut failures) = (BTreeMap::new(), Vec::new());
    let mut wire = None;
    while !stop.load(Ordering::Relaxed) {
        let mut used = match wire.take() {
            Some(wire) => wire,
            None => Wire::connect(address).await.unwrap(),
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        match used.get("/api/svc/x", &[("connection", connection)]).await {
            Ok(reply) if reply.status == 200 => {
                *seen.entry(reply.header("x-revision").unwrap().to_owned()).or_default() += 1;
                wire = Some(used).filter(|_| !reply.closes());
            }
            Ok(reply) => failures.push(format!("{} {}", reply.status, reply.body)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (seen, failures)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_tables_change() {
    let (a, b) = (echo("a").await, echo("b").await);
    let routes = RoutesFile::new(&table(a.address));
    let front = gateway(&routes.path()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..4).map(|index| tokio::spawn(load(front.address, index % 2 == 0, stop.clone()))).collect();
    for turn in 0..6 {
        let (next, name) = if turn % 2 == 0 { (&b, "b") } else { (&a, "a") };
        routes.replace(&table(next.address).to_string());
        until(front.address, "/api/svc/x", |reply| reply.header("x-revision") == Some(name)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (seen, failures) = client.await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        assert!(seen.contains_key("a") && seen.contains_key("b"), "{seen:?}");
    }
}

#[tokio::test]
async fn a_request_under_way_keeps_the_table_it_began_with() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let handler = {
        let (entered, leave) = (entered.clone(), leave.clone());
        move || async move {
            entered.notify_one();
            leave.notified().await;
            "slow"
        }
    };
    let old = upstream("old", Router::new().route("/svc/slow", get(handler))).await;
    let new = echo("new").await;
    let routes = RoutesFile::new(&table(old.address));
    let front = gateway(&routes.path()).await;
    let mut wire = Wire::connect(front.address).await.unwrap();
    wire.send("GET /api/svc/slow HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    entered.notified().await;
    routes.replace(&table(new.address).to_string());
    until(front.address, "/api/svc/x", |reply| reply.header("x-revision") == Some("new")).await;
    leave.notify_one();
    let reply = wire.reply().await.unwrap();
    assert_eq!((reply.status, reply.body.as_str(), reply.header("x-revision")), (200, "slow", Some("old")));
}

#[tokio::test]
async fn an_invalid_table_changes_nothing_and_is_told() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    for broken in ["{\"version\": 1, ", r#"{"version": 9, "services": [], "routes": []}"#, ""] {
        routes.replace(broken);
        until(front.address, "/health", |reply| reply.body.contains("was refused")).await;
        let mut wire = Wire::connect(front.address).await.unwrap();
        assert_eq!(wire.get("/api/svc/x", &[]).await.unwrap().status, 200, "{broken}");
        // Serving goes on, so this is no reason to be taken out of the routes.
        assert_eq!(wire.get("/readyz", &[]).await.unwrap().status, 200);
        routes.replace(&table(service.address).to_string());
        until(front.address, "/health", |reply| !reply.body.contains("was refused")).await;
    }
    std::fs::remove_file(routes.path()).unwrap();
    until(front.address, "/api/svc/x", |reply| reply.status == 200).await;
    let text = front.scrape().await.unwrap();
    assert!(text.contains("gateway_route_reloads_total{outcome=\"refused\"} 3"), "{text}");
    assert!(text.contains("gateway_route_reloads_total{outcome=\"taken\"} 3"), "{text}");
}

#[tokio::test]
async fn a_file_written_in_place_is_seen_too() {
    let (a, b) = (echo("a").await, echo("b").await);
    let routes = RoutesFile::new(&table(a.address));
    let front = gateway(&routes.path()).await;
    std::fs::write(routes.path(), table(b.address).to_string()).unwrap();
    until(front.address, "/api/svc/x", |reply| reply.header("x-revision") == Some("b")).await;
}

#[tokio::test]
async fn maintenance_closes_the_public_routes_only() {
    let service = echo("r1").await;
    let routes = RoutesFile::new(&table(service.address));
    let front = gateway(&routes.path()).await;
    let mut on = table(service.address);
    on["maintenance"] = json!({
        "since": "2026-11-24T03:00:00Z", "message": "We move <the> database.", "retry_after_seconds": 120,
    });
    routes.replace(&on.to_string());
    until(front.address, "/api/svc/x", |reply| reply.status == 503).await;

    let mut wire = Wire::connect(front.address).await.unwrap();
    let reply = wire.request("POST", "/api/svc/x", &[], "body").await.unwrap();
    let told: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("120")));
    assert_eq!(
        told,
        json!({"error": "maintenance", "message": "We move <the> database.", "since": "2026-11-24T03:00:00Z"})
    );
    let page = wire.get("/api/anything", &[("accept", "text/html,*/*;q=0.8")]).await.unwrap();
    assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("<p>We move &lt;the&gt; database.</p>"), "{}", page.body);

    // The operator sees whether it works before users are let in again; nobody else does.
    for (token, status) in [(crate::support::OPERATOR, 200), ("guessed", 503), ("", 503)] {
        let reply = wire.get("/api/svc/x", &[("x-operator-token", token)]).await.unwrap();
        assert_eq!(reply.status, status, "{token}");
    }

    for path in ["/health", "/api/svc/health", "/readyz", "/livez"] {
        assert_eq!(wire.get(path, &[]).await.unwrap().status, 200, "{path}");
    }
    let operator = format!("Bearer {}", crate::support::OPERATOR);
    let metrics = wire.get("/metrics", &[("authorization", &operator)]).await.unwrap();
    assert!(metrics.body.contains("gateway_maintenance{scope=\"public\"} 1"), "{}", metrics.body);

    routes.replace(&table(service.address).to_string());
    until(front.address, "/api/svc/x", |reply| reply.status == 200).await;
}

#[tokio::test]
async fn there_is_no_start_without_a_table() {
    let routes = RoutesFile::new(&json!({"version": 1}));
    let config = gateway::Config {
        base: service_kit::Base::new(gateway::IDENTITY),
        routes_file: routes.path(),
        operator_token: None,
    };
    let front = service_kit::testing::Running::start(move |listener, shutdown| {
        gateway::run(config, listener, shutdown)
    });
    let error = front.await.unwrap().ended().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot start without a table of routes");
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.to_string().ends_with("routes.json is invalid"), "{source}");
}
