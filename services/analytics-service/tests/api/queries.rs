//! Series over time, and what a client may not ask.

use serde_json::{Value, json};

use crate::running::{System, event_at};

#[tokio::test]
async fn a_series_shows_every_hour_or_day() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    for (event_type, at) in [
        ("item.updated", "2026-11-22T23:59:59.999Z"),
        ("item.updated", "2026-11-23T00:00:00Z"),
        ("product.created", "2026-11-24T02:59:59Z"),
        ("product.created", "2026-11-24T03:00:00Z"),
        ("product.updated", "2026-11-24T03:10:00Z"),
    ] {
        system.append(event_at(event_type, &user, at)).await;
    }
    user.counted(5).await;

    let (status, hours) =
        user.get("/analytics/events?from=2026-11-24T01:30:00Z&to=2026-11-24T04:00:00Z").await;
    assert_eq!(status, 200, "{hours}");
    let expected = json!({
        "bucket": "hour", "from": "2026-11-24T01:00:00Z", "to": "2026-11-24T04:00:00Z",
        "points": [
            {"start": "2026-11-24T01:00:00Z", "total": 0, "by_type": {}},
            {"start": "2026-11-24T02:00:00Z", "total": 1, "by_type": {"product.created": 1}},
            {"start": "2026-11-24T03:00:00Z", "total": 2, "by_type": {"product.created": 1, "product.updated": 1}},
        ],
    });
    assert_eq!(hours, expected);

    let (_, days) =
        user.get("/analytics/events?bucket=day&from=2026-11-22T00:00:00Z&to=2026-11-25T00:00:00Z").await;
    assert_eq!(totals(&days), [1, 1, 3]);
    let (_, day) = user.get("/analytics/events").await;
    assert_eq!((totals(&day).len(), totals(&day)[23]), (24, 2), "by default the last 24 hours");
    let stranger = system.user(&replica, "default");
    assert_eq!(totals(&stranger.get("/analytics/events").await.1), [0; 24]);
    replica.stop().await;
}

fn totals(series: &Value) -> Vec<u64> {
    series["points"].as_array().unwrap().iter().map(|point| point["total"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let system = System::new().await;
    let replica = system.start().await;
    replica.ready().await;
    let user = system.user(&replica, "default");
    for (query, code, word) in [
        ("from=2026-11-24T04:00:00Z&to=2026-11-24T03:00:00Z", "invalid_range", "before"),
        ("from=2020-01-01T00:00:00Z", "invalid_range", "bucket=day"),
        ("bucket=week", "invalid_query", "parameter"),
        ("from=yesterday", "invalid_query", "parameter"),
        ("until=2026-11-24T03:00:00Z", "invalid_query", "parameter"),
    ] {
        let (status, body) = user.get(&format!("/analytics/events?{query}")).await;
        assert_eq!((status, &body["error"]), (400, &json!(code)), "{query}");
        assert!(body["message"].as_str().unwrap().contains(word), "{query}: {body}");
    }
    for path in ["/analytics/summary", "/analytics/events"] {
        let (status, body) = replica.get(path).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthorized")));
    }
    assert_eq!(user.get("/analytics/nothing").await.0, 404);
    replica.stop().await;
}
