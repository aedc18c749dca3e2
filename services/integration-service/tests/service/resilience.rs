//! Breaker, limits, cool-downs, retries and metrics, judged by what reached MercadoLibre.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, User};

async fn error_of(bench: &Bench, user: &User, path: &str) -> (u16, Value, bool) {
    let answer = bench.get(user, path).await;
    let waits = answer.headers.contains_key("retry-after");
    (answer.status.as_u16(), answer.json::<Value>().unwrap()["error"].clone(), waits)
}

async fn breakdown(bench: &Bench) {
    bench.fault(json!({ "endpoint": "items.search", "kind": "server_error", "status": 503 })).await;
}

#[tokio::test]
async fn an_open_breaker_keeps_calls_from_mercadolibre_and_from_no_other_group() {
    let bench = Bench::with(&[("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "4")]).await;
    let (user, _) = bench.connected().await;
    breakdown(&bench).await;
    // The first request's three tries, then one of the second's.
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 502);
    assert_eq!(error_of(&bench, &user, "/ml/items").await, (503, json!("ml_unavailable"), true));
    assert_eq!(bench.calls("items.search").await, 4);
    assert_eq!(error_of(&bench, &user, "/ml/items").await, (503, json!("ml_unavailable"), true));
    assert_eq!(bench.calls("items.search").await, 4);
    let health = bench.health().await;
    assert_eq!(
        (&health["status"], &health["breaker"]["items"], &health["breaker"]["oauth"]),
        (&json!("degraded"), &json!("open"), &json!("closed"))
    );
    let metrics = bench.service.scrape().await.unwrap();
    assert!(metrics.contains("circuit_breaker_state{dependency=\"items\"} 2"), "{metrics}");
    assert!(
        metrics.contains(
            "ml_api_requests_total{endpoint_group=\"items\",method=\"GET\",outcome=\"server_error\"} 4"
        ),
        "{metrics}"
    );
    // Readiness is ours, not theirs.
    assert_eq!(bench.client().get("/readyz", &[]).await.unwrap().status.as_u16(), 200);
}

#[tokio::test]
async fn the_emergency_switch_bypasses_the_breaker() {
    let bench =
        Bench::with(&[("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1"), ("CIRCUIT_BREAKER_ENABLED", "false")])
            .await;
    let (user, _) = bench.connected().await;
    breakdown(&bench).await;
    for _ in 0..3 {
        assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 502);
    }
    assert!(bench.calls("items.search").await >= 3);
    assert_eq!(bench.health().await["breaker_enabled"], false);
}

#[tokio::test]
async fn an_operator_holds_a_breaker_open_and_lets_it_go() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let hold = |word: &str| json!({ "hold": word });
    let path = "/internal/ml/breakers/items";
    assert_eq!(bench.internal(Method::POST, path, &hold("open")).await.status.as_u16(), 204);
    assert_eq!(error_of(&bench, &user, "/ml/items").await.0, 503);
    assert_eq!(bench.internal(Method::POST, path, &hold("auto")).await.status.as_u16(), 204);
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 200);
    assert_eq!(
        bench.internal(Method::POST, "/internal/ml/breakers/none", &hold("open")).await.status.as_u16(),
        404
    );
}

#[tokio::test]
async fn a_users_limit_holds_and_its_room_comes_back_with_time() {
    // A limit of 20: bursts of 2, and one call each 200 s.
    let bench = Bench::with(&[("USER_RATE_LIMIT_PER_HOUR", "20")]).await;
    let (user, _) = bench.connected().await;
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 200);
    assert_eq!(error_of(&bench, &user, "/ml/items").await, (429, json!("rate_limited"), true));
    assert_eq!(bench.calls("items.search").await, 1);
    let other = bench.connected().await.0;
    assert_eq!(bench.get(&other, "/ml/items").await.status.as_u16(), 200);
    bench.hand.advance(Duration::from_secs(200));
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 200);
    let health = bench.health().await;
    assert_eq!((&health["mode"], &health["limits"]["user"]["remaining"]), (&json!("normal"), &json!(17)));
}

#[tokio::test]
async fn after_a_429_the_same_seller_is_silent_for_as_long_as_asked() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    for body in ["json", "text", "empty"] {
        let other = bench.connected().await.0;
        bench.fault(json!({ "endpoint": "items.search", "times": 1, "kind": "rate_limited", "body": body, "retry_after": 30 })).await;
        let before = bench.calls("items.search").await;
        for _ in 0..3 {
            assert_eq!(
                error_of(&bench, &other, "/ml/items").await,
                (429, json!("ml_rate_limited"), true),
                "{body}"
            );
        }
        assert_eq!(bench.calls("items.search").await, before + 1);
    }
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 200);
    assert_eq!(bench.health().await["breaker"]["items"], "closed");
}

#[tokio::test]
async fn a_passing_failure_of_a_read_is_retried_and_a_write_is_not() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let path = format!("/ml/items/{}", bench.ids(&user).await[0]);
    bench.fault(json!({ "endpoint": "items.get", "times": 2, "kind": "server_error" })).await;
    assert_eq!(bench.get(&user, &path).await.status.as_u16(), 200);
    assert_eq!(bench.calls("items.get").await, 3);
    bench.fault(json!({ "endpoint": "items.put", "times": 1, "kind": "server_error" })).await;
    assert_eq!(bench.send(&user, Method::PUT, &path, &json!({ "price": 2 })).await.status.as_u16(), 502);
    assert_eq!(bench.calls("items.put").await, 1);
}

#[tokio::test]
async fn a_hanging_call_ends_in_time() {
    let bench = Bench::with(&[("ML_API_TIMEOUT", "100")]).await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "items.search", "times": 1, "kind": "hang" })).await;
    assert_eq!(error_of(&bench, &user, "/ml/items").await, (504, json!("ml_timeout"), false));
}

#[tokio::test]
async fn a_conflict_is_passed_on_with_a_wait() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let path = format!("/ml/items/{}", bench.ids(&user).await[0]);
    bench.fault(json!({ "endpoint": "items.put", "times": 1, "kind": "conflict" })).await;
    let answer = bench.send(&user, Method::PUT, &path, &json!({ "price": 2 })).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("retry-after")), (409, true));
}

#[tokio::test]
async fn every_series_is_there_before_the_first_request() {
    let bench = Bench::new().await;
    let metrics = bench.service.scrape().await.unwrap();
    for series in [
        "ml_api_requests_total{endpoint_group=\"oauth\",method=\"POST\",outcome=\"breaker_open\"} 0",
        "ml_api_requests_total{endpoint_group=\"items\",method=\"GET\",outcome=\"quota_denied\"} 0",
        "circuit_breaker_state{dependency=\"users\"} 0",
        "circuit_breaker_transitions_total{dependency=\"items\",to=\"open\"} 0",
        "rate_limit_utilization{scope=\"global\"} 0",
        "rate_limit_utilization{scope=\"ml_api\"} 0",
        "rate_limit_denied_total{scope=\"user\"} 0",
        "rate_limit_fallbacks_total{store=\"redis\"} 0",
        "cache_hit_ratio{tier=\"l1\"} 0",
        "cache_lookups_total{tier=\"l2\",outcome=\"hit\"} 0",
        "database_connections_active{store=\"postgresql\"}",
        "database_connections_active{store=\"redis\"}",
        "ml_notifications_total{outcome=\"stored\"} 0",
        "http_request_duration_seconds_count{service=\"integration-service\",method=\"GET\",route=\"/ml/items/{id}\",status=\"2xx\"} 0",
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
}
