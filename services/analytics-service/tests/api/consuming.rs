//! Events from the log, counted once.

use serde_json::json;
use service_kit::PROBE_TENANT;
use service_kit::testing::eventually;

use crate::running::{System, event};

#[tokio::test]
async fn events_count_for_their_user_alone() {
    let system = System::new().await;
    let replica = system.start().await;
    let (one, two) = (system.user(&replica, "default"), system.user(&replica, "other"));
    for event_type in
        ["product.created", "product.created", "product.updated", "item.updated", "account.connected"]
    {
        system.append(event(event_type, &one)).await;
    }
    system.append(event("product.deleted", &two)).await;
    let summary = one.counted(5).await;
    let expected = json!({
        "products": {"created": 2, "updated": 1, "deleted": 0},
        "items": {"synced": 1},
        "accounts": {"connected": 1, "disconnected": 0},
        "events_total": 5,
        "by_type": {"account.connected": 1, "item.updated": 1, "product.created": 2, "product.updated": 1},
        "last_event_at": "2026-11-24T03:15:00Z",
    });
    assert_eq!(summary, expected);
    assert_eq!(two.counted(1).await["products"], json!({"created": 0, "updated": 0, "deleted": 1}));
    let stranger = system.user(&replica, "default");
    assert_eq!(stranger.summary().await["events_total"], 0);
    assert_eq!(replica.outcome("counted").await, 6.0);
    replica.stop().await;
}

#[tokio::test]
async fn repeated_unreadable_and_probing_events_are_told_apart() {
    let system = System::new().await;
    let replica = system.start().await;
    let (user, probe) = (system.user(&replica, "default"), system.user(&replica, PROBE_TENANT));
    let repeated = event("product.created", &user);
    let mut no_type = event("product.created", &user);
    no_type["type"] = json!("Product Created");
    for payload in [
        repeated.clone(),
        json!({"id": "x"}),
        repeated,
        no_type,
        event("product.created", &probe),
        event("product.created", &user),
    ] {
        system.append(payload).await;
    }
    user.counted(2).await;
    let mut outcomes = Vec::new();
    for outcome in ["counted", "duplicate", "skipped", "dead"] {
        outcomes.push(replica.outcome(outcome).await);
    }
    assert_eq!(outcomes, [2.0, 1.0, 1.0, 2.0]);
    assert_eq!(probe.summary().await["events_total"], 0);
    let lag = "kafka_consumer_lag{topic=\"ml-events\",partition=\"0\",group=\"analytics-service\"}";
    assert_eq!(replica.metric(lag).await, 0.0);
    replica.stop().await;
}

#[tokio::test]
async fn a_deleted_user_is_forgotten() {
    let system = System::new().await;
    let replica = system.start().await;
    let (leaving, staying) = (system.user(&replica, "default"), system.user(&replica, "default"));
    for user in [&leaving, &staying] {
        system.append(event("product.created", user)).await;
    }
    leaving.counted(1).await;
    staying.counted(1).await;
    system.append(event("user.deleted", &leaving)).await;
    eventually("the erasure", || async { (leaving.summary().await["events_total"] == 0).then_some(()) })
        .await;
    system.append(event("product.deleted", &leaving)).await;
    system.append(event("product.updated", &staying)).await;
    staying.counted(2).await;
    assert_eq!(leaving.summary().await["events_total"], 0, "late events bring nothing back");
    replica.stop().await;
}

#[tokio::test]
async fn replicas_count_each_event_once_through_stops_and_starts() {
    let system = System::new().await;
    let (one, two) = (system.start().await, system.start().await);
    let user = system.user(&two, "default");
    for _ in 0..300 {
        system.append(event("item.updated", &user)).await;
    }
    user.counted(300).await;
    // The clock stands still: only a partition that was given back can be taken.
    one.stop().await;
    for _ in 0..300 {
        system.append(event("item.updated", &user)).await;
    }
    user.counted(600).await;
    let three = system.start().await;
    let user = user.at(&three);
    two.stop().await;
    for _ in 0..50 {
        system.append(event("item.updated", &user)).await;
    }
    let summary = user.counted(650).await;
    assert_eq!(summary["items"]["synced"], 650);
    three.stop().await;
}
