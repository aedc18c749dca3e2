//! Connect, read, change, synchronise, disconnect.

use axum::http::Method;
use serde_json::{Value, json};

use crate::bench::Bench;

#[tokio::test]
async fn a_connected_user_reads_changes_and_synchronises_its_items() {
    let mut bench = Bench::new().await;
    let (user, ml_user_id) = bench.connected().await;
    let ids = bench.ids(&user).await;
    assert_eq!(ids.len(), 25);

    let path = format!("/ml/items/{}", ids[0]);
    let first = bench.get(&user, &path).await;
    assert_eq!((first.status.as_u16(), first.headers["x-cache"].to_str().unwrap()), (200, "miss"));
    let item: Value = first.json().unwrap();
    assert_eq!((&item["seller_id"], item["available_quantity"].is_u64()), (&json!(ml_user_id), true));
    assert_eq!(bench.get(&user, &path).await.headers["x-cache"], "hit");
    assert_eq!(bench.calls("items.get").await, 1);

    let changed = bench.send(&user, Method::PUT, &path, &json!({ "price": 12.5 })).await;
    assert_eq!(changed.json::<Value>().unwrap()["price"], 12.5);
    let told = bench.upsert().await;
    assert_eq!((&told["items"][0]["id"], &told["items"][0]["price"]), (&json!(ids[0]), &json!(12.5)));
    let again = bench.get(&user, &path).await;
    assert_eq!(
        (again.headers["x-cache"].to_str().unwrap(), again.json::<Value>().unwrap()["price"].as_f64()),
        ("miss", Some(12.5))
    );

    let synced: Value = bench.send(&user, Method::POST, "/ml/items/sync", &json!({})).await.json().unwrap();
    assert_eq!(synced, json!({ "synced": 25, "skipped": 0 }));
    let mut handed = Vec::new();
    while handed.len() < 25 {
        let upsert = bench.upsert().await;
        assert_eq!(
            (&upsert["source"], &upsert["user_id"], &upsert["tenant"]),
            (&json!("sync"), &json!(user.id), &json!("default"))
        );
        handed.extend(
            upsert["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(handed, ids);
    assert_eq!(bench.events("account.connected").await.len(), 1);
    let updates = bench.events("item.updated").await;
    assert_eq!(updates.len(), 26);
    assert_eq!((&updates[0]["tenant"], &updates[0]["user_id"]), (&json!("default"), &json!(user.id)));
    bench.stop().await;
}

#[tokio::test]
async fn a_repeated_sync_tells_of_every_item_anew() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    for expected in [25, 50] {
        bench.send(&user, Method::POST, "/ml/items/sync", &json!({})).await;
        assert_eq!(bench.events("item.updated").await.len(), expected);
    }
}

#[tokio::test]
async fn a_dead_scroll_begins_the_scan_again() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "items.search", "times": 1, "kind": "dead_scroll" })).await;
    let synced: Value = bench.send(&user, Method::POST, "/ml/items/sync", &json!({})).await.json().unwrap();
    assert_eq!(synced["synced"], 25);
}

#[tokio::test]
async fn disconnecting_ends_the_grant_and_is_repeatable() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let path = format!("/internal/ml/accounts/{}", user.id);
    for _ in 0..2 {
        assert_eq!(bench.internal(Method::DELETE, &path, &json!({})).await.status.as_u16(), 204);
    }
    assert_eq!(bench.calls("applications.disconnect").await, 1);
    assert_eq!(bench.events("account.disconnected").await.len(), 1);
    let answer = bench.get(&user, "/ml/items").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json::<Value>().unwrap()["error"].clone()),
        (409, json!("ml_not_connected"))
    );
}

#[tokio::test]
async fn an_account_of_another_user_is_refused_and_stays_with_its_owner() {
    let bench = Bench::new().await;
    let (owner, seller) = bench.connected().await;
    let intruder = bench.user_of("elsewhere");
    let answer = bench.connect(&intruder, Some(seller)).await;
    assert_eq!(answer.status.as_u16(), 409);
    assert_eq!(answer.json::<Value>().unwrap()["error"], "ml_account_linked_elsewhere");
    assert_eq!(bench.get(&intruder, "/ml/items").await.status.as_u16(), 409);
    // The intruder's exchange ended the owner's refresh token; the owner got the new pair and can refresh.
    bench.hand.advance(std::time::Duration::from_secs(6 * 3600 - 60));
    let owner = bench.signed_in_again(&owner);
    assert_eq!(bench.ids(&owner).await.len(), 25);
    assert_eq!(bench.summary().await["refresh_tokens_presented_twice"], json!([]));
}

#[tokio::test]
async fn a_bad_code_and_a_foreign_redirect_are_refused() {
    let bench = Bench::new().await;
    let user = bench.user();
    let body = |redirect: &str| json!({ "user_id": user.id, "tenant": "default", "code": "TG-x", "redirect_uri": redirect });
    let wrong = bench
        .internal(Method::POST, "/internal/ml/accounts", &body("http://127.0.0.1:8080/api/auth/ml/callback"))
        .await;
    // No application is registered there yet, so the client itself is what MercadoLibre does not know.
    assert_eq!(
        (wrong.status.as_u16(), wrong.json::<Value>().unwrap()["error"].clone()),
        (401, json!("ml_refused"))
    );
    let foreign =
        bench.internal(Method::POST, "/internal/ml/accounts", &body("http://127.0.0.1/other")).await;
    assert_eq!(foreign.json::<Value>().unwrap()["error"], "invalid_redirect_uri");
    assert_eq!(bench.calls("oauth.token").await, 1);
}

#[tokio::test]
async fn internal_routes_and_items_need_their_tokens() {
    let bench = Bench::new().await;
    let bare =
        bench.client().send_json(Method::POST, "/internal/ml/accounts", &[], &json!({})).await.unwrap();
    assert_eq!(bare.status.as_u16(), 401);
    assert_eq!(bench.client().get("/ml/items", &[]).await.unwrap().status.as_u16(), 401);
    let user = bench.user();
    for bad in
        ["/ml/items/MLA1%2F..%2Fusers", "/ml/items/nothing", "/ml/items?limit=101", "/ml/items?offset=1001"]
    {
        assert_eq!(bench.get(&user, bad).await.status.as_u16(), 400, "{bad}");
    }
}

#[tokio::test]
async fn verification_traffic_sees_the_fixture_and_never_reaches_mercadolibre() {
    let bench = Bench::new().await;
    let probe = bench.user_of(service_kit::PROBE_TENANT);
    let item = bench.get(&probe, "/ml/items/MLA1").await;
    assert_eq!((item.status.as_u16(), item.json::<Value>().unwrap()["id"].clone()), (200, json!("MLA1")));
    assert_eq!(bench.get(&probe, "/ml/items/MLA2").await.status.as_u16(), 404);
    assert_eq!(bench.ids(&probe).await, ["MLA1"]);
    let synced: Value = bench.send(&probe, Method::POST, "/ml/items/sync", &json!({})).await.json().unwrap();
    assert_eq!(synced["synced"], 0);
    assert_eq!(
        bench.send(&probe, Method::PUT, "/ml/items/MLA1", &json!({ "price": 1 })).await.status.as_u16(),
        403
    );
    assert_eq!(bench.summary().await["requests"], 0);
}
