//! Users who deleted their account.

use std::time::Duration;

use serde_json::json;
use service_kit::PROBE_TENANT;
use service_kit::testing::eventually;

use crate::running::System;

#[tokio::test]
async fn a_deleted_user_leaves_no_product_and_makes_no_new_one() {
    let system = System::new().await;
    let replica = system.start().await;
    let (leaving, staying) = (system.user(&replica, "default"), system.user(&replica, "default"));
    leaving.product("Mine").await;
    staying.product("Theirs").await;
    let items = [json!({"id": "MLA1", "title": "Item", "price": 1, "last_updated": "2026-11-24T03:00:00Z"})];
    replica.hand_over("internal-secret", &leaving.hand_over("sync", &items)).await;
    assert_eq!(leaving.titles("").await.len(), 2);

    system.publish("user.updated", &staying).await;
    system.publish("user.deleted", &leaving).await;
    eventually("the erasure", || async { leaving.titles("").await.is_empty().then_some(()) }).await;
    assert_eq!(staying.titles("").await, ["Theirs"]);

    let (status, body) = leaving.post(&json!({"title": "Late", "price": 1})).await;
    assert_eq!((status, &body["error"]), (403, &json!("account_deleted")));
    let (status, _) = replica.hand_over("internal-secret", &leaving.hand_over("sync", &items)).await;
    assert_eq!(status, 403, "a late synchronisation brings nothing back");
    let (_, report) = replica.hand_over("internal-secret", &staying.hand_over("sync", &items)).await;
    assert_eq!(report["created"], json!(1), "the item is free for another user");

    // A later start reads on where the last one stopped: the user of the second event is another one.
    replica.stop().await;
    let replica = system.start().await;
    system.hand.advance(Duration::from_secs(60));
    system.publish("user.deleted", &staying).await;
    let staying = staying.at(&replica);
    eventually("the second erasure", || async { staying.titles("").await.is_empty().then_some(()) }).await;
    replica.stop().await;
}

#[tokio::test]
async fn a_deleted_probe_user_is_erased_without_an_event() {
    let system = System::new().await;
    let replica = system.start().await;
    let (leaving, staying) = (system.user(&replica, PROBE_TENANT), system.user(&replica, PROBE_TENANT));
    leaving.product("Mine").await;
    staying.product("Theirs").await;
    assert_eq!(replica.erase("guessed", &leaving).await, 401);
    assert_eq!(leaving.titles("").await, ["Mine"]);
    for _ in 0..2 {
        assert_eq!(replica.erase("internal-secret", &leaving).await, 204, "also the second time");
    }
    assert!(leaving.titles("").await.is_empty());
    assert_eq!(staying.titles("").await, ["Theirs"]);
    let (status, body) = leaving.post(&json!({"title": "Late", "price": 1})).await;
    assert_eq!((status, &body["error"]), (403, &json!("account_deleted")));
    replica.stop().await;
    system.events(0).await;
}
