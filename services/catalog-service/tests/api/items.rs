//! Items that integration-service hands over.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::running::{System, id};

const TOKEN: &str = "internal-secret";

fn item(id: &str, title: &str, last_updated: &str) -> Value {
    json!({
        "id": id, "site_id": "MLA", "title": title, "category_id": "MLA1055", "price": 250.5, "currency_id": "ARS",
        "available_quantity": 4, "status": "active", "sub_status": [], "pictures": [{"id": "p"}],
        "attributes": [{"id": "BRAND", "name": "Marca", "value_name": "Luz"}, {"id": "SELLER_SKU", "value_name": "S1"}],
        "last_updated": last_updated,
    })
}

fn outcomes(report: &Value) -> Vec<&str> {
    let results = report["results"].as_array().unwrap();
    results.iter().map(|result| result["outcome"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_hand_over_makes_changes_and_deletes_products() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let items =
        [item("MLA1", "Lamp", "2026-11-24T03:00:00.000Z"), item("MLA2", "Chair", "2026-11-24T03:00:00.000Z")];
    let (status, report) = replica.hand_over(TOKEN, &user.hand_over("sync", &items)).await;
    assert_eq!((status, &report["created"]), (200, &json!(2)), "{report}");
    let lamp = report["results"][0]["product_id"].as_str().unwrap().to_owned();
    let (_, product) = user.get(&format!("/products/{lamp}")).await;
    let expected = json!({"ml_item_id": "MLA1", "title": "Lamp", "category_id": "MLA1055", "price": 250.5,
        "currency_id": "ARS", "available_quantity": 4, "status": "active", "sku": "S1",
        "attributes": {"BRAND": "Luz"}, "source": "sync", "version": 1});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&product[field], value, "{field}");
    }
    assert_eq!(user.titles("?category=MLA1055&query=mla2").await, ["Chair"]);

    let (_, again) = replica.hand_over(TOKEN, &user.hand_over("sync", &items)).await;
    assert_eq!(outcomes(&again), ["unchanged", "unchanged"], "a repeated hand-over changes nothing");
    let mut gone = item("MLA2", "Chair", "2026-11-24T04:00:00Z");
    gone["deleted"] = json!(true);
    let news =
        [item("MLA1", "Lantern", "2026-11-24T04:00:00Z"), item("MLA1", "Late", "2026-11-24T03:30:00Z"), gone];
    let (_, report) = replica.hand_over(TOKEN, &user.hand_over("webhook", &news)).await;
    assert_eq!(outcomes(&report), ["updated", "stale", "deleted"]);
    assert_eq!(user.titles("").await, ["Lantern"]);
    assert_eq!(user.get(&format!("/products/{lamp}")).await.1["version"], 2);

    // Only events of one product have an order.
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in system.events(4).await {
        let event_type = record.payload["type"].as_str().unwrap().to_owned();
        types
            .entry(record.payload["data"]["ml_item_id"].as_str().unwrap().to_owned())
            .or_default()
            .push(event_type);
    }
    assert_eq!(types["MLA1"], ["product.created", "product.updated"]);
    assert_eq!(types["MLA2"], ["product.created", "product.deleted"]);
    for (outcome, source, count) in [
        ("created", "sync", 2.0),
        ("unchanged", "sync", 2.0),
        ("updated", "webhook", 1.0),
        ("stale", "webhook", 1.0),
        ("deleted", "webhook", 1.0),
        ("created", "api", 0.0),
    ] {
        let series = format!("product_updates_total{{outcome=\"{outcome}\",source=\"{source}\"}}");
        assert_eq!(replica.metric(&series).await, count, "{series}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn what_a_client_deleted_comes_back_only_when_the_item_changes() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let old = [item("MLA1", "Lamp", "2020-01-01T00:00:00Z")];
    let (_, report) = replica.hand_over(TOKEN, &user.hand_over("sync", &old)).await;
    let path = format!("/products/{}", report["results"][0]["product_id"].as_str().unwrap());
    assert_eq!(user.delete(&path).await.0, 204);
    for last_updated in ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"] {
        let late = [item("MLA1", "Lamp", last_updated)];
        let (_, report) = replica.hand_over(TOKEN, &user.hand_over("webhook", &late)).await;
        assert_eq!(outcomes(&report), ["stale"], "{last_updated} is before the deletion");
    }
    let new = [item("MLA1", "Lamp again", "2999-01-01T00:00:00Z")];
    let (_, report) = replica.hand_over(TOKEN, &user.hand_over("sync", &new)).await;
    assert_eq!(outcomes(&report), ["created"]);
    assert_eq!(user.titles("").await, ["Lamp again"]);
    replica.stop().await;
}

#[tokio::test]
async fn an_item_belongs_to_one_user() {
    let system = System::new().await;
    let replica = system.start().await;
    let (owner, other) = (system.user(&replica, "default"), system.user(&replica, "default"));
    let items = [item("MLA1", "Lamp", "2026-11-24T03:00:00Z")];
    replica.hand_over(TOKEN, &owner.hand_over("sync", &items)).await;
    let newer = [item("MLA1", "Mine now", "2026-11-24T04:00:00Z")];
    let (status, report) = replica.hand_over(TOKEN, &other.hand_over("sync", &newer)).await;
    assert_eq!((status, outcomes(&report)), (200, vec!["conflict"]));
    assert_eq!(report["results"][0]["product_id"], Value::Null, "nothing of the owner is told");
    assert!(other.titles("").await.is_empty());
    assert_eq!(owner.titles("").await, ["Lamp"]);
    replica.stop().await;
}

#[tokio::test]
async fn one_bad_item_does_not_stop_the_others() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let mut nameless = item("MLA2", "x", "2026-11-24T03:00:00Z");
    nameless["title"] = json!("");
    let mut timeless = item("MLA3", "x", "2026-11-24T03:00:00Z");
    timeless["last_updated"] = Value::Null;
    let items = [
        json!(7),
        nameless,
        timeless,
        item("../1", "x", "2026-11-24T03:00:00Z"),
        item("MLA5", "Good", "2026-11-24T03:00:00Z"),
    ];
    let (status, report) = replica.hand_over(TOKEN, &user.hand_over("sync", &items)).await;
    assert_eq!((status, &report["invalid"], &report["created"]), (200, &json!(4), &json!(1)), "{report}");
    assert!(report["results"][1]["message"].as_str().unwrap().contains("title must be"), "{report}");
    assert_eq!(user.titles("").await, ["Good"]);
    replica.stop().await;
}

#[tokio::test]
async fn only_services_hand_items_over_and_only_so_many() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let items = [item("MLA1", "Lamp", "2026-11-24T03:00:00Z")];
    for token in ["", "wrong", "internal-secre"] {
        assert_eq!(replica.hand_over(token, &user.hand_over("sync", &items)).await.0, 401, "{token:?}");
    }
    let (status, _) = user.call(axum::http::Method::POST, "/internal/products/upsert", &json!({})).await;
    assert_eq!(status, 401, "a client's token opens nothing here");
    let (status, body) = replica.hand_over(TOKEN, &user.hand_over("api", &items)).await;
    assert_eq!((status, &body["error"]), (422, &json!("invalid_source")));
    let many = vec![json!({}); 1_001];
    let (status, body) = replica.hand_over(TOKEN, &user.hand_over("sync", &many)).await;
    assert_eq!((status, &body["error"]), (422, &json!("too_many_items")));
    assert!(user.titles("").await.is_empty());
    replica.stop().await;
}

#[tokio::test]
async fn a_clients_change_stays_until_the_item_changes() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let items = [item("MLA1", "Lamp", "2026-11-24T03:00:00Z")];
    replica.hand_over(TOKEN, &user.hand_over("sync", &items)).await;
    let product = user.get("/products").await.1["products"][0].clone();
    let (status, changed) = user.put(id(&product), &json!({"version": 1, "title": "My lamp"})).await;
    assert_eq!((status, &changed["source"]), (200, &json!("api")));
    replica.hand_over(TOKEN, &user.hand_over("sync", &items)).await;
    assert_eq!(user.titles("").await, ["My lamp"]);
    let newer = [item("MLA1", "Lamp", "2026-11-24T04:00:00Z")];
    replica.hand_over(TOKEN, &user.hand_over("sync", &newer)).await;
    assert_eq!(user.titles("").await, ["Lamp"]);
    replica.stop().await;
}
