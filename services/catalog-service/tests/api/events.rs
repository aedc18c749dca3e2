//! Events that changes leave in the log.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use service_kit::PROBE_TENANT;
use service_kit::testing::eventually;

use crate::running::{System, id};

#[tokio::test]
async fn every_change_is_published_once_and_in_order() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let made = user.product("Lamp").await;
    user.put(id(&made), &json!({"version": 1, "price": 12.5})).await;
    user.put(id(&made), &json!({"version": 2, "price": 12.5})).await;
    user.put(id(&made), &json!({"version": 1, "price": 1})).await;
    user.delete(&format!("/products/{}", id(&made))).await;

    let events = system.events(3).await;
    let seen: Vec<_> = events
        .iter()
        .map(|record| {
            (record.payload["type"].as_str().unwrap(), record.payload["data"]["version"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(seen, [("product.created", 1), ("product.updated", 2), ("product.deleted", 3)]);
    for record in &events {
        assert_eq!(record.key, id(&made), "events of a product keep together");
        assert_eq!(record.payload["id"], json!(record.id));
        assert_eq!(record.payload["tenant"], "default");
        assert_eq!(record.payload["user_id"], json!(user.id));
        assert_eq!(record.payload["data"]["product_id"], made["id"]);
    }
    assert_eq!(events[1].payload["data"]["price"], json!(12.5));
    assert_eq!(events.iter().map(|record| &record.id).collect::<BTreeSet<_>>().len(), 3);
    replica.stop().await;
}

#[tokio::test]
async fn the_last_request_before_a_stop_is_published() {
    let system = System::new().await;
    let replica = system.start().await;
    system.user(&replica, "default").product("Last").await;
    replica.stop().await;
    assert_eq!(system.log.head(service_kit::eventlog::ML_EVENTS).await.unwrap(), 1);
}

#[tokio::test]
async fn replicas_do_not_publish_twice_and_take_over_at_once() {
    let system = System::new().await;
    let (one, two) = (system.start().await, system.start().await);
    let (first, second) = (system.user(&one, "default"), system.user(&two, "default"));
    for number in 0..10 {
        first.product(&format!("One {number}")).await;
        second.product(&format!("Two {number}")).await;
    }
    system.events(20).await;
    // The clock stands still: only a lease that was given back can be taken.
    one.stop().await;
    second.product("After").await;
    system.events(21).await;
    let three = system.start().await;
    two.stop().await;
    system.user(&three, "default").product("Last").await;
    system.events(22).await;
    three.stop().await;
}

#[tokio::test]
async fn probes_leave_neither_events_nor_metrics_nor_products() {
    let system = System::new().await;
    let replica = system.start().await;
    let probe = system.user(&replica, PROBE_TENANT);
    let made = probe.product("Probe").await;
    assert_eq!(probe.put(id(&made), &json!({"version": 1, "title": "Probe 2"})).await.0, 200);
    let items = [json!({"id": "MLA1", "title": "Item", "price": 1, "last_updated": "2026-11-24T03:00:00Z"})];
    let (_, report) = replica.hand_over("internal-secret", &probe.hand_over("sync", &items)).await;
    assert_eq!(report["created"], json!(1));
    system.user(&replica, "default").product("Real").await;
    let events = system.events(1).await;
    assert_eq!(events[0].payload["tenant"], "default");
    let created = |source| format!("product_updates_total{{outcome=\"created\",source=\"{source}\"}}");
    assert_eq!(replica.metric(&created("api")).await, 1.0);
    assert_eq!(replica.metric(&created("sync")).await, 0.0);
    assert_eq!(probe.titles("").await.len(), 2);

    system.hand.advance(Duration::from_secs(3_600));
    let later = system.user(&replica, "default");
    later.product("Still here").await;
    // The probe's token ended with the hour, so the store is asked for the item instead.
    let other = system.user(&replica, PROBE_TENANT);
    eventually("the end of the probe's products", || async {
        let (_, report) = replica.hand_over("internal-secret", &other.hand_over("sync", &items)).await;
        (report["created"] == json!(1)).then_some(())
    })
    .await;
    assert_eq!(later.titles("").await, ["Still here"]);
    replica.stop().await;
}

#[tokio::test]
async fn the_metrics_of_the_plan_are_there_from_the_start() {
    let system = System::new().await;
    let replica = system.start().await;
    for source in ["api", "webhook", "sync"] {
        let series = format!("product_updates_total{{outcome=\"created\",source=\"{source}\"}}");
        assert_eq!(replica.metric(&series).await, 0.0);
    }
    assert_eq!(replica.metric("database_connections_max{store=\"mongodb\"}").await, 8.0);
    assert!(replica.metric("container_memory_usage_bytes").await > 0.0);
    replica.stop().await;
}
