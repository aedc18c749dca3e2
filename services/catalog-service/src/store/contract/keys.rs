//! Idempotency keys.

use std::sync::Arc;

use uuid::Uuid;

use super::{at, owner, product};
use crate::store::{Claim, Claimed, ProductStore};

pub(super) fn claim(key: &str, request: &str, id: u128, now: i64) -> Claim {
    Claim {
        key: key.to_owned(),
        request: request.to_owned(),
        product: Uuid::from_u128(id),
        now: at(now),
        until: at(now + 30),
        forget_at: at(now + 1_000),
    }
}

fn granted(id: u128) -> Claimed {
    Claimed::Granted(Uuid::from_u128(id))
}

pub(super) async fn a_key_is_answered_once(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    let lamp = product(1, "Lamp", 0);
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 1, 0)).await.unwrap(), granted(1));
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 2, 1)).await.unwrap(), Claimed::InFlight);
    assert_eq!(store.claim(&mine, &claim("k", "desk", 3, 1)).await.unwrap(), Claimed::OtherRequest);
    for (other, key) in [(owner("a", 2), "k"), (owner("b", 1), "k"), (mine.clone(), "K")] {
        let claimed = store.claim(&other, &claim(key, "lamp", 4, 1)).await.unwrap();
        assert_eq!(claimed, granted(4), "keys of other owners, and other keys, are apart");
    }
    store.answer(&mine, "k", &lamp).await.unwrap();
    store.answer(&mine, "k", &product(9, "Late", 0)).await.unwrap();
    store.give_back(&mine, "k", at(2)).await.unwrap();
    let again = store.claim(&mine, &claim("k", "lamp", 5, 2)).await.unwrap();
    assert_eq!(again, Claimed::Answered(Box::new(lamp.clone())), "the first answer stays");
    assert_eq!(store.claim(&mine, &claim("k", "desk", 5, 2)).await.unwrap(), Claimed::OtherRequest);

    let last = claim("k", "lamp", 6, 999);
    assert_eq!(store.claim(&mine, &last).await.unwrap(), Claimed::Answered(Box::new(lamp)));
    let forgotten = claim("k", "desk", 6, 1_000);
    assert_eq!(store.claim(&mine, &forgotten).await.unwrap(), granted(6), "a key ends, swept or not");
}

pub(super) async fn a_dead_request_is_taken_over_with_its_product(store: &dyn ProductStore) {
    let mine = owner("a", 1);
    store.claim(&mine, &claim("k", "lamp", 1, 0)).await.unwrap();
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 2, 29)).await.unwrap(), Claimed::InFlight);
    assert_eq!(store.claim(&mine, &claim("k", "desk", 2, 30)).await.unwrap(), Claimed::OtherRequest);
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 2, 30)).await.unwrap(), granted(1));
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 2, 31)).await.unwrap(), Claimed::InFlight);
    store.give_back(&mine, "k", at(32)).await.unwrap();
    assert_eq!(store.claim(&mine, &claim("k", "lamp", 3, 32)).await.unwrap(), granted(1));
}

pub(super) async fn sweeping_and_erasing_forget_keys(store: &dyn ProductStore) {
    let (mine, other) = (owner("a", 1), owner("a", 2));
    for owner in [&mine, &other] {
        store.claim(owner, &claim("k", "lamp", 1, 0)).await.unwrap();
        store.answer(owner, "k", &product(1, "Lamp", 0)).await.unwrap();
    }
    store.erase(&mine, at(100)).await.unwrap();
    assert_eq!(store.claim(&mine, &claim("k", "desk", 2, 1)).await.unwrap(), granted(2), "it went");
    store.sweep(at(100)).await.unwrap();
    assert_eq!(store.claim(&mine, &claim("k", "x", 3, 2)).await.unwrap(), granted(3), "what came later too");
    let kept = store.claim(&other, &claim("k", "lamp", 4, 101)).await.unwrap();
    assert!(matches!(kept, Claimed::Answered(_)), "{kept:?}");
    store.sweep(at(1_000)).await.unwrap();
    assert_eq!(store.claim(&other, &claim("k", "desk", 5, 0)).await.unwrap(), granted(5));
}

pub(super) async fn of_concurrent_claims_one_is_granted(store: Arc<dyn ProductStore>) {
    let round = async |now: i64, first: u128| -> Vec<Claimed> {
        let claims: Vec<_> = (0..8)
            .map(|claimer| {
                let store = Arc::clone(&store);
                let claim = claim("k", "lamp", first + claimer, now);
                tokio::spawn(async move { store.claim(&owner("a", 1), &claim).await.unwrap() })
            })
            .collect();
        let mut claimed = Vec::new();
        for claim in claims {
            claimed.push(claim.await.unwrap());
        }
        claimed
    };
    let new = round(0, 1).await;
    let granted: Vec<_> = new.iter().filter(|claimed| **claimed != Claimed::InFlight).collect();
    let [first @ Claimed::Granted(_)] = granted[..] else { panic!("{new:?}") };
    let taken_over = round(30, 100).await;
    let granted: Vec<_> = taken_over.iter().filter(|claimed| **claimed != Claimed::InFlight).collect();
    assert_eq!(granted, [first], "one takes over, with the product of the first");
}
