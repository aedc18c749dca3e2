//! Products over the public routes.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use crate::running::{System, id};

#[tokio::test]
async fn a_product_lives_from_creation_to_deletion() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");

    let draft = json!({"title": "Lámpara", "price": 19.99, "currency_id": "ARS", "available_quantity": 3,
                       "sku": "L-1", "attributes": {"BRAND": "Luz"}});
    let (status, made) = user.post(&draft).await;
    assert_eq!(status, 201, "{made}");
    for (field, value) in draft.as_object().unwrap() {
        assert_eq!(&made[field], value, "{field}");
    }
    assert_eq!(
        (&made["version"], &made["source"], &made["status"]),
        (&json!(1), &json!("api"), &json!("active"))
    );
    let path = format!("/products/{}", id(&made));
    assert_eq!(user.get(&path).await, (200, made.clone()));

    system.hand.advance(Duration::from_secs(1));
    let (status, changed) =
        user.put(id(&made), &json!({"version": 1, "available_quantity": 2, "sku": null})).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!((&changed["version"], &changed["sku"]), (&json!(2), &Value::Null));
    assert_eq!((&changed["title"], &changed["created_at"]), (&made["title"], &made["created_at"]));
    assert_ne!(changed["updated_at"], made["updated_at"]);

    let (status, stock) = user.get(&format!("{path}/stock")).await;
    assert_eq!(status, 200);
    let expected = json!({"product_id": made["id"], "ml_item_id": null, "available_quantity": 2, "status": "active",
                          "version": 2, "updated_at": changed["updated_at"]});
    assert_eq!(stock, expected);

    assert_eq!(user.delete(&path).await, (204, Value::Null));
    for (status, body) in
        [user.get(&path).await, user.get(&format!("{path}/stock")).await, user.delete(&path).await]
    {
        assert_eq!((status, &body["error"]), (404, &json!("product_not_found")));
    }
    assert!(user.titles("").await.is_empty());
    replica.stop().await;
}

#[tokio::test]
async fn a_change_needs_the_version_that_is_stored() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let made = user.product("Lamp").await;

    let (status, _) = user.put(id(&made), &json!({"version": 1, "title": "Lantern"})).await;
    assert_eq!(status, 200);
    let (status, body) = user.put(id(&made), &json!({"version": 1, "title": "Late"})).await;
    assert_eq!((status, &body["error"]), (409, &json!("version_conflict")), "{body}");
    let (status, body) = user.put(id(&made), &json!({"title": "No version"})).await;
    assert_eq!(status, 422);
    assert!(body["message"].as_str().unwrap().contains("version"), "{body}");
    let (status, same) = user.put(id(&made), &json!({"version": 2, "title": "Lantern"})).await;
    assert_eq!((status, &same["version"]), (200, &json!(2)), "a change of nothing is no new version");

    let path = format!("/products/{}", id(&made));
    assert_eq!(user.delete(&format!("{path}?version=1")).await.0, 409);
    assert_eq!(user.delete(&format!("{path}?version=2")).await.0, 204);
    replica.stop().await;
}

#[tokio::test]
async fn of_changes_at_the_same_version_one_wins() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let made = user.product("Lamp").await;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (user, id) = (user.clone(), id(&made).to_owned());
            tokio::spawn(async move {
                user.put(&id, &json!({"version": 1, "title": format!("By {writer}")})).await.0
            })
        })
        .collect();
    let mut answers = Vec::new();
    for writer in writers {
        answers.push(writer.await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [200, 409, 409, 409, 409, 409, 409, 409]);
    assert_eq!(user.get(&format!("/products/{}", id(&made))).await.1["version"], 2);
    assert_eq!(system.events(2).await.len(), 2, "a losing change leaves no event");
    replica.stop().await;
}

#[tokio::test]
async fn nobody_sees_or_changes_the_products_of_another() {
    let system = System::new().await;
    let replica = system.start().await;
    let owner = system.user(&replica, "default");
    let made = owner.product("Secret lamp").await;
    let path = format!("/products/{}", id(&made));
    for stranger in [system.user(&replica, "default"), system.user(&replica, "other")] {
        assert!(stranger.titles("?query=secret").await.is_empty());
        assert_eq!(stranger.get(&path).await.0, 404);
        assert_eq!(stranger.get(&format!("{path}/stock")).await.0, 404);
        assert_eq!(stranger.put(id(&made), &json!({"version": 1, "title": "Mine"})).await.0, 404);
        assert_eq!(stranger.delete(&path).await.0, 404);
    }
    assert_eq!(owner.get(&path).await, (200, made));
    for path in ["/products", &path] {
        let (status, body) = replica.get_anonymously(path).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthorized")));
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_search_goes_through_every_page_once() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    for number in 0..7 {
        user.product(&format!("Lamp {number}")).await;
        // Pairs share their time; the last stands alone.
        system.hand.advance(Duration::from_millis(number % 2));
    }
    user.product("Chair").await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = user.get(&format!("/products?query=LAMP&limit=3{cursor}")).await;
        assert_eq!(status, 200, "{page}");
        let products = page["products"].as_array().unwrap();
        seen.extend(products.iter().map(|product| product["title"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(products.len(), 3, "only the last page is short");
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 7, "each product once: {seen:?}");
    assert_eq!(seen[0], "Lamp 6", "newest first");
    assert_eq!(user.titles("?limit=100").await.len(), 8);
    assert_eq!(
        user.get("/products?limit=8").await.1["next_cursor"],
        Value::Null,
        "a full last page is the last"
    );
    replica.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    for (body, status, word) in [
        (json!({"price": 1}), 422, "title"),
        (json!({"title": "Lamp"}), 422, "price"),
        (json!({"title": "Lamp", "price": -1}), 422, "not negative"),
        (json!({"title": "Lamp", "price": "1"}), 422, "price as a number"),
        (json!({"title": "Lamp", "price": 1, "ml_item_id": "MLA1"}), 422, "ml_item_id"),
        (json!({"title": "", "price": 1, "currency_id": "peso"}), 422, "title must be"),
        (json!({"title": "", "price": 1, "currency_id": "peso"}), 422, "currency_id must be"),
        (json!({"title": "Lamp", "price": 1, "status": "inactive"}), 422, "status must be"),
        (json!({"title": "Lamp", "price": 1, "available_quantity": -1}), 422, "u32"),
    ] {
        let (answered, answer) = user.post(&body).await;
        assert_eq!((answered, &answer["error"]), (status, &json!("invalid_product")), "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{body}: {answer}");
    }
    for query in ["limit=0", "limit=101", "limit=x", "cursor=x", "query=a+b+c+d+e+f+g+h+i", "sort=price"] {
        let (status, answer) = user.get(&format!("/products?{query}")).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_query")), "{query}");
    }
    assert_eq!(user.get("/products/1").await.0, 404, "no identity, no product");
    assert_eq!(user.call(Method::PATCH, "/products", &json!({})).await.0, 405);
    assert_eq!(user.titles("").await, [""; 0], "nothing was stored");
    let invalid = "product_updates_total{outcome=\"invalid\",source=\"api\"}";
    assert_eq!(replica.metric(invalid).await, 3.0, "refused by the catalog, not by the form");
    replica.stop().await;
}

#[tokio::test]
async fn replicas_share_their_products() {
    let system = System::new().await;
    let (one, two) = (system.start().await, system.start().await);
    let user = system.user(&one, "default");
    let made = user.product("Lamp").await;
    let path = format!("/products/{}", id(&made));
    let at_two = user.at(&two);
    assert_eq!(at_two.get(&path).await, (200, made.clone()));
    assert_eq!(at_two.put(id(&made), &json!({"version": 1, "title": "Lantern"})).await.0, 200);
    assert_eq!(user.put(id(&made), &json!({"version": 1, "title": "Late"})).await.0, 409);
    one.stop().await;
    let three = system.start().await;
    assert_eq!(user.at(&three).titles("").await, ["Lantern"], "a new replica finds what is stored");
    two.stop().await;
    three.stop().await;
}
