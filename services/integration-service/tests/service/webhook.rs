//! Notifications: acknowledged, worked in, doubted.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, WEBHOOK_SECRET};

fn path() -> String {
    format!("/ml/notifications/{WEBHOOK_SECRET}")
}

fn notification(id: &str, seller: u64, resource: &str) -> Value {
    json!({
        "_id": id, "resource": resource, "user_id": seller, "topic": "items", "application_id": "app",
        "attempts": 1, "sent": "2027-01-15T08:00:00.000Z", "received": "2027-01-15T08:00:00.000Z",
    })
}

async fn post(bench: &Bench, path: &str, body: &Value) -> u16 {
    bench.client().send_json(Method::POST, path, &[], body).await.unwrap().status.as_u16()
}

async fn counted(bench: &Bench, outcome: &str) -> String {
    let metrics = bench.service.scrape().await.unwrap();
    let name = format!("ml_notifications_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
}

async fn until(bench: &Bench, outcome: &str, count: &str) {
    let asking = async { while counted(bench, outcome).await != count {} };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap();
}

#[tokio::test]
async fn a_change_at_mercadolibre_reaches_catalog_log_and_cache() {
    let mut bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let id = bench.ids(&user).await[0].clone();
    let item = format!("/ml/items/{id}");
    bench.get(&user, &item).await;
    let hook = json!({ "callback_url": format!("{}{}", bench.service.url(), path()), "duplicate": true });
    bench.sim.send_json(Method::POST, "/sim/notifications", &[], &hook).await.unwrap();
    bench.send(&user, Method::PUT, &item, &json!({ "available_quantity": 0 })).await;
    let own = bench.upsert().await;
    let noticed = bench.upsert().await;
    assert_eq!((&own["source"], &noticed["source"]), (&json!("sync"), &json!("webhook")));
    assert_eq!((&noticed["items"][0]["id"], &noticed["items"][0]["status"]), (&json!(id), &json!("paused")));
    let ids: Vec<Value> =
        bench.events("item.updated").await.into_iter().map(|event| event["id"].clone()).collect();
    assert!(ids.iter().all(|event| *event == ids[0]), "one version, one event id: {ids:?}");
    assert_eq!(counted(&bench, "stored").await, "1");
}

#[tokio::test]
async fn a_duplicate_is_acknowledged_and_worked_in_once() {
    let mut bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    let resource = format!("/items/{}", bench.ids(&user).await[0]);
    for _ in 0..3 {
        assert_eq!(post(&bench, &path(), &notification("n1", seller, &resource)).await, 200);
    }
    bench.upsert().await;
    assert_eq!(
        (counted(&bench, "stored").await, counted(&bench, "duplicate").await),
        ("1".into(), "2".into())
    );
    assert!(bench.upserts.try_recv().is_err());
}

#[tokio::test]
async fn what_is_not_ours_is_acknowledged_and_nothing_else() {
    let bench = Bench::new().await;
    let (_, seller) = bench.connected().await;
    let ok = notification("n1", seller, "/items/MLA1");
    assert_eq!(post(&bench, "/ml/notifications/guessed-secret-000000", &ok).await, 404);
    let mut foreign = ok.clone();
    foreign["application_id"] = json!("other");
    let mut topic = ok.clone();
    topic["topic"] = json!("gossip");
    let unknown = notification("n2", seller + 1, "/items/MLA1");
    for body in [foreign, topic, unknown, json!({ "hello": 1 }), json!([])] {
        assert_eq!(post(&bench, &path(), &body).await, 200, "{body}");
    }
    assert_eq!((counted(&bench, "refused").await, counted(&bench, "stored").await), ("5".into(), "0".into()));
}

#[tokio::test]
async fn a_resource_that_is_an_address_is_never_fetched() {
    let mut bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    let good = format!("/items/{}", bench.ids(&user).await[0]);
    let before = bench.summary().await["requests"].as_u64().unwrap();
    for (number, resource) in
        ["http://127.0.0.1:1/items/MLA1", "/users/me", "/items/MLA1/../../users/me"].iter().enumerate()
    {
        assert_eq!(
            post(&bench, &path(), &notification(&format!("bad{number}"), seller, resource)).await,
            200
        );
    }
    // The worker takes them in order: when this one is through, the bad ones are settled or in the same batch.
    assert_eq!(post(&bench, &path(), &notification("good", seller, &good)).await, 200);
    bench.upsert().await;
    until(&bench, "dead", "3").await;
    assert_eq!(bench.summary().await["requests"].as_u64().unwrap(), before + 1);
}

#[tokio::test]
async fn a_vanished_item_leaves_a_tombstone() {
    let mut bench = Bench::new().await;
    let (_, seller) = bench.connected().await;
    assert_eq!(post(&bench, &path(), &notification("n1", seller, "/items/MLA99")).await, 200);
    let upsert = bench.upsert().await;
    let item = &upsert["items"][0];
    assert_eq!(
        (&item["id"], &item["deleted"], &item["last_updated"]),
        (&json!("MLA99"), &json!(true), &json!("2027-01-15T08:00:00Z"))
    );
}

#[tokio::test]
async fn a_notification_is_retried_until_mercadolibre_answers() {
    let mut bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    let resource = format!("/items/{}", bench.ids(&user).await[0]);
    // Three tries of the first look, all in vain.
    bench.fault(json!({ "endpoint": "items.get", "times": 3, "kind": "server_error" })).await;
    assert_eq!(post(&bench, &path(), &notification("n1", seller, &resource)).await, 200);
    until(&bench, "retried", "1").await;
    assert_eq!(bench.health().await["notifications_waiting"], 1);
    bench.hand.advance(Duration::from_secs(2));
    assert_eq!(bench.upsert().await["source"], "webhook");
}

#[tokio::test]
async fn what_the_catalog_refuses_for_good_is_not_tried_again() {
    let mut bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    let resource = format!("/items/{}", bench.ids(&user).await[0]);
    let refusal = |error: &str| json!({ "error": error, "message": "No." });
    for (number, (status, error, outcome, count)) in [
        (503, "store_unavailable", "retried", "1"),
        (403, "forbidden", "retried", "2"),
        (403, "account_deleted", "done", "1"),
        (422, "too_many_items", "dead", "1"),
    ]
    .into_iter()
    .enumerate()
    {
        bench.catalog_answers(status, refusal(error));
        let id = format!("n{number}");
        assert_eq!(post(&bench, &path(), &notification(&id, seller, &resource)).await, 200);
        bench.upsert().await;
        until(&bench, outcome, count).await;
    }
    assert_eq!(bench.health().await["notifications_waiting"], 2, "only those that may succeed later");
    assert!(bench.events("item.updated").await.is_empty());
    let sync = async || bench.send(&user, Method::POST, "/ml/items/sync", &json!({})).await;
    bench.catalog_answers(403, refusal("account_deleted"));
    let answer = sync().await;
    assert_eq!(
        (answer.status.as_u16(), answer.json::<Value>().unwrap()["error"].clone()),
        (403, json!("account_deleted"))
    );
    bench.catalog_answers(503, refusal("store_unavailable"));
    assert_eq!(sync().await.status.as_u16(), 503);
}

#[tokio::test]
async fn a_mercadolibre_that_cannot_be_asked_for_long_costs_no_notification() {
    let mut bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    let resource = format!("/items/{}", bench.ids(&user).await[0]);
    let hold = async |word: &str| {
        let answer =
            bench.internal(Method::POST, "/internal/ml/breakers/items", &json!({ "hold": word })).await;
        assert_eq!(answer.status.as_u16(), 204);
    };
    hold("open").await;
    // More often than a notification is tried that MercadoLibre does answer; each new one wakes the worker.
    for turn in 1..=12 {
        let id = format!("n{turn}");
        assert_eq!(post(&bench, &path(), &notification(&id, seller, &resource)).await, 200);
        until(&bench, "retried", &(turn * (turn + 1) / 2).to_string()).await;
        bench.hand.advance(Duration::from_secs(3_600));
    }
    hold("auto").await;
    assert_eq!(bench.upsert().await["source"], "webhook");
    until(&bench, "done", "12").await;
    assert_eq!(counted(&bench, "dead").await, "0");
}
