//! Listing an item exactly once.

use axum::http::Method;
use serde_json::{Value, json};
use service_kit::client::Answer;

use crate::bench::{Bench, User};

fn draft(title: &str) -> Value {
    json!({
        "title": title, "category_id": "MLA1161", "price": 10, "currency_id": "ARS", "available_quantity": 1,
        "buying_mode": "buy_it_now", "listing_type_id": "gold_special", "pictures": [{ "source": "x" }],
        "attributes": [
            { "id": "BRAND", "value_name": "A" },
            { "id": "ITEM_CONDITION", "value_name": "Nuevo" },
            { "id": "SELLER_SKU", "value_name": "NEW-1" },
        ],
    })
}

async fn list(bench: &Bench, user: &User, key: &str, draft: &Value) -> Answer {
    bench.send_with(user, Method::POST, "/ml/items", &[("idempotency-key", key)], draft).await
}

#[tokio::test]
async fn the_same_key_lists_once_and_another_body_is_refused() {
    let mut bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let first = list(&bench, &user, "k", &draft("Mochila")).await;
    assert_eq!(
        (first.status.as_u16(), first.headers["idempotency-replayed"].to_str().unwrap()),
        (201, "false")
    );
    let again = list(&bench, &user, "k", &draft("Mochila")).await;
    assert_eq!(
        (again.status.as_u16(), again.headers["idempotency-replayed"].to_str().unwrap()),
        (201, "true")
    );
    assert_eq!(first.json::<Value>().unwrap()["id"], again.json::<Value>().unwrap()["id"]);
    assert_eq!(list(&bench, &user, "k", &draft("Otra")).await.status.as_u16(), 422);
    assert_eq!(bench.calls("items.create").await, 1);
    assert_eq!(bench.upsert().await["items"][0]["title"], "Mochila");
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_sku_and_not_listed_twice() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "items.create", "times": 1, "kind": "reset" })).await;
    let lost = list(&bench, &user, "k", &draft("Mochila")).await;
    assert_eq!(
        (lost.status.as_u16(), lost.json::<Value>().unwrap()["error"].clone()),
        (502, json!("listing_in_doubt"))
    );
    let found = list(&bench, &user, "k", &draft("Mochila")).await;
    assert_eq!(
        (found.status.as_u16(), found.headers["idempotency-replayed"].to_str().unwrap()),
        (201, "true")
    );
    assert_eq!(found.json::<Value>().unwrap()["title"], "Mochila");
    assert_eq!(bench.calls("items.create").await, 1);
}

#[tokio::test]
async fn a_call_that_was_never_carried_out_is_sent_again_after_the_doubt() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "items.create", "times": 1, "kind": "server_error" })).await;
    assert_eq!(list(&bench, &user, "k", &draft("Mochila")).await.status.as_u16(), 502);
    assert_eq!(list(&bench, &user, "k", &draft("Mochila")).await.status.as_u16(), 201);
    assert_eq!(bench.ids(&user).await.len(), 26);
}

#[tokio::test]
async fn a_doubt_without_a_sku_is_for_a_person_to_settle() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let mut draft = draft("Mochila");
    draft["attributes"].as_array_mut().unwrap().pop();
    bench.fault(json!({ "endpoint": "items.create", "times": 1, "kind": "reset" })).await;
    for _ in 0..2 {
        assert_eq!(
            list(&bench, &user, "k", &draft).await.json::<Value>().unwrap()["error"],
            "listing_in_doubt"
        );
    }
    assert_eq!(bench.calls("items.create").await, 1);
}

#[tokio::test]
async fn a_refused_draft_may_be_corrected_under_the_same_key() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let mut bad = draft("Mochila");
    bad["price"] = json!(-1);
    let refused = list(&bench, &user, "k", &bad).await;
    assert_eq!(refused.status.as_u16(), 400);
    let message = refused.json::<Value>().unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("price must be positive"), "{message}");
    assert_eq!(list(&bench, &user, "k", &draft("Mochila")).await.status.as_u16(), 201);
}

#[tokio::test]
async fn a_partial_answer_is_completed() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "items.create", "times": 1, "kind": "content_missing" })).await;
    let listed = list(&bench, &user, "k", &draft("Mochila")).await;
    assert_eq!(
        (listed.status.as_u16(), listed.json::<Value>().unwrap()["title"].clone()),
        (206, json!("Mochila"))
    );
}
