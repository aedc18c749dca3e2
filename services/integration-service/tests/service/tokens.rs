//! Tokens at rest and their refresh, judged by MercadoLibre's ledger.

use std::time::Duration;

use axum::http::Method;
use integration_service::store::{RefreshClaim, SqliteStore, Store};
use serde_json::{Value, json};
use service_kit::sqlite::Pool;

use crate::bench::Bench;

const ALMOST_SIX_HOURS: Duration = Duration::from_secs(6 * 3600 - 300);

#[tokio::test]
async fn no_token_is_readable_in_any_file() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.ids(&user).await;
    let mut read = 0;
    for folder in [".", "redis", "kafka"] {
        for entry in std::fs::read_dir(bench.folder.path().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                for canary in [&b"APP_USR-"[..], b"TG-"] {
                    assert!(
                        !bytes.windows(canary.len()).any(|window| window == canary),
                        "{}",
                        path.display()
                    );
                }
                read += 1;
            }
        }
    }
    assert!(read >= 3);
}

#[tokio::test]
async fn twenty_requests_at_the_end_of_a_token_make_one_refresh() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    let ids = bench.ids(&user).await;
    bench.hand.advance(ALMOST_SIX_HOURS);
    let user = bench.signed_in_again(&user);
    let reads = (0..20).map(|position| {
        let path = format!("/ml/items/{}", ids[position]);
        let (bench, user) = (&bench, &user);
        async move { bench.get(user, &path).await.status.as_u16() }
    });
    let statuses = futures_join(reads).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(bench.calls("oauth.token").await, 2, "one exchange, one refresh");
    assert_eq!(bench.summary().await["refresh_tokens_presented_twice"], json!([]));
}

#[tokio::test]
async fn a_token_that_dies_early_is_refreshed_once_and_the_call_repeated() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench
        .sim
        .send_json(Method::POST, "/sim/clock", &[], &json!({ "advance_seconds": 21_700 }))
        .await
        .unwrap();
    assert_eq!(bench.ids(&user).await.len(), 25);
    assert_eq!(bench.calls("oauth.token").await, 2);
}

#[tokio::test]
async fn a_revoked_grant_is_reported_once_and_never_tried_again() {
    let bench = Bench::new().await;
    let (user, seller) = bench.connected().await;
    bench
        .sim
        .send_json(Method::POST, &format!("/sim/sellers/{seller}/revoke"), &[], &json!({}))
        .await
        .unwrap();
    for _ in 0..3 {
        let answer = bench.get(&user, "/ml/items").await;
        assert_eq!(
            (answer.status.as_u16(), answer.json::<Value>().unwrap()["error"].clone()),
            (409, json!("ml_reauth_required"))
        );
    }
    assert_eq!(bench.calls("oauth.token").await, 2);
    // Connecting again makes it good.
    assert_eq!(bench.connect(&user, Some(seller)).await.status.as_u16(), 201);
    assert_eq!(bench.ids(&user).await.len(), 25);
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_is_never_presented_again() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench.fault(json!({ "endpoint": "oauth.token", "times": 1, "kind": "reset" })).await;
    bench.hand.advance(Duration::from_secs(6 * 3600 + 60));
    let user = bench.signed_in_again(&user);
    for _ in 0..2 {
        let answer = bench.get(&user, "/ml/items").await;
        assert_eq!(answer.json::<Value>().unwrap()["error"], "ml_reauth_required");
    }
    assert_eq!(bench.calls("oauth.token").await, 2);
    assert_eq!(bench.summary().await["refresh_tokens_presented_twice"], json!([]));
}

#[tokio::test]
async fn a_refused_refresh_leaves_the_token_for_a_later_try() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    bench
        .fault(json!({ "endpoint": "oauth.token", "times": 1, "kind": "server_error", "status": 503 }))
        .await;
    bench.hand.advance(Duration::from_secs(6 * 3600 + 60));
    let user = bench.signed_in_again(&user);
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 502);
    assert_eq!(bench.get(&user, "/ml/items").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_refresh_that_a_dead_process_left_behind_is_not_repeated() {
    let bench = Bench::new().await;
    let (user, _) = bench.connected().await;
    // What a process leaves that dies between claim and commit.
    let database = bench.folder.path().join("ml.db");
    let dead = SqliteStore::new(Pool::new("postgresql", &database, 1));
    let claim = dead.claim_refresh(user.id, 1, 0, 1).await.unwrap();
    assert!(matches!(claim, RefreshClaim::Claimed(_)));
    bench.hand.advance(Duration::from_secs(6 * 3600 + 60));
    let user = bench.signed_in_again(&user);
    let answer = bench.get(&user, "/ml/items").await;
    assert_eq!(answer.json::<Value>().unwrap()["error"], "ml_reauth_required");
    assert_eq!(bench.calls("oauth.token").await, 1, "only the exchange");
}

/// All at once, in order of their beginning.
async fn futures_join<F: Future<Output = u16>>(all: impl Iterator<Item = F>) -> Vec<u16> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<u16>> = vec![None; all.len()];
    std::future::poll_fn(|context| {
        for (future, slot) in all.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
