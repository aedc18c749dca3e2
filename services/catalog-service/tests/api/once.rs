//! Idempotency keys of `POST /products`.

use std::time::Duration;

use serde_json::json;

use crate::running::{System, id};

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let system = System::new().await;
    let (one, two) = (system.start().await, system.start().await);
    let user = system.user(&one, "default");
    let draft = json!({"title": "Lamp", "price": 10});
    let (status, replayed, made) = user.post_once(&draft, "key").await;
    assert_eq!((status, replayed), (201, false), "{made}");
    user.put(id(&made), &json!({"version": 1, "title": "Lantern"})).await;

    let spelled_otherwise = json!({"price": 10.0, "title": "Lamp", "available_quantity": 0});
    for (replica, draft) in [(&one, &draft), (&two, &draft), (&two, &spelled_otherwise)] {
        assert_eq!(user.at(replica).post_once(draft, "key").await, (201, true, made.clone()));
    }
    let (status, _, body) = user.post_once(&json!({"title": "Desk", "price": 10}), "key").await;
    assert_eq!((status, &body["error"]), (422, &json!("idempotency_key_reused")), "{body}");
    assert_eq!(user.titles("").await, ["Lantern"]);
    system.events(2).await;

    let other = system.user(&one, "default");
    let (status, replayed, theirs) = other.post_once(&draft, "key").await;
    assert_eq!((status, replayed), (201, false), "a key is its user's own");
    assert_ne!(theirs["id"], made["id"]);
    let (status, _, body) = user.post_once(&draft, "two words").await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_idempotency_key")), "{body}");

    system.hand.advance(Duration::from_secs(24 * 3_600 - 1));
    let user = system.renewed(&user);
    assert_eq!(user.post_once(&draft, "key").await, (201, true, made.clone()), "for a day");
    system.hand.advance(Duration::from_secs(1));
    let (status, replayed, new) = user.post_once(&draft, "key").await;
    assert_eq!((status, replayed), (201, false), "then it is forgotten");
    assert_ne!(new["id"], made["id"]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_refused_draft_uses_no_key() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    assert_eq!(user.post_once(&json!({"title": " ", "price": 10}), "key").await.0, 422);
    assert_eq!(user.post_once(&json!({"title": "Lamp", "price": 10}), "key").await.0, 201);
    replica.stop().await;
}

#[tokio::test]
async fn of_requests_at_once_with_one_key_one_makes_the_product() {
    let system = System::new().await;
    let replica = system.start().await;
    let user = system.user(&replica, "default");
    let requests: Vec<_> = (0..12)
        .map(|_| {
            let user = user.clone();
            tokio::spawn(async move { user.post_once(&json!({"title": "Lamp", "price": 10}), "key").await })
        })
        .collect();
    let mut first = 0;
    for request in requests {
        match request.await.unwrap() {
            (201, replayed, _) => first += u32::from(!replayed),
            (409, _, body) => assert_eq!(body["error"], "idempotency_key_in_flight"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first, 1);
    assert_eq!(user.titles("").await, ["Lamp"]);
    replica.stop().await;
}
