//! What every adapter of the two store traits must do. The embedded adapters and those of real servers run it below.

use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::limiter::gcra::Mode;

fn account(user: u128, ml_user_id: u64) -> Account {
    Account {
        user_id: Uuid::from_u128(user),
        tenant: "default".into(),
        ml_user_id,
        tokens: pair(1),
        version: 1,
        reauth_reason: None,
    }
}

fn pair(number: i64) -> SealedTokens {
    SealedTokens {
        access: format!("a{number}"),
        refresh: format!("r{number}"),
        issued_at: number,
        expires_at: number + 100,
    }
}

fn notification(id: &str, at: Millis) -> Notification {
    Notification {
        id: id.into(),
        topic: "items".into(),
        resource: "/items/MLA1".into(),
        ml_user_id: 7,
        payload: "{}".into(),
        received_at: at,
    }
}

/// Accounts: one user, one MercadoLibre account, both ways.
async fn accounts_are_linked_one_to_one(store: &dyn Store) {
    assert_eq!(store.link(account(1, 7), 0).await.unwrap(), Linked::New);
    let owner = store.account_of_ml_user(7).await.unwrap().unwrap();
    assert_eq!(store.link(account(2, 7), 0).await.unwrap(), Linked::Elsewhere(Box::new(owner.clone())));
    assert_eq!(store.account(Uuid::from_u128(2)).await.unwrap(), None);
    assert_eq!(store.link(account(1, 8), 0).await.unwrap(), Linked::Replaced);
    let replaced = store.account(owner.user_id).await.unwrap().unwrap();
    assert_eq!((replaced.ml_user_id, replaced.version), (8, 2));
    assert_eq!(store.account_of_ml_user(7).await.unwrap(), None);
    assert_eq!(store.unlink(owner.user_id).await.unwrap(), Some(replaced));
    assert_eq!(store.unlink(owner.user_id).await.unwrap(), None);
}

/// Refresh: one at a time, over the version that was read, and an interrupted one is known as such.
async fn refreshes_are_claimed_by_one(store: &dyn Store) {
    let user = Uuid::from_u128(1);
    store.link(account(1, 7), 0).await.unwrap();
    assert!(matches!(store.claim_refresh(user, 1, 10, 20).await.unwrap(), RefreshClaim::Claimed(_)));
    assert_eq!(store.claim_refresh(user, 1, 19, 29).await.unwrap(), RefreshClaim::Busy);
    assert_eq!(store.claim_refresh(user, 1, 20, 30).await.unwrap(), RefreshClaim::Interrupted);
    store.release_refresh(user, 1).await.unwrap();
    assert!(matches!(store.claim_refresh(user, 1, 21, 31).await.unwrap(), RefreshClaim::Claimed(_)));
    assert!(store.commit_refresh(user, 1, pair(2)).await.unwrap());
    assert!(!store.commit_refresh(user, 1, pair(3)).await.unwrap());
    assert_eq!(store.account(user).await.unwrap().unwrap().tokens, pair(2));
    assert_eq!(store.claim_refresh(user, 1, 22, 32).await.unwrap(), RefreshClaim::Moved);
    assert!(matches!(store.claim_refresh(user, 2, 23, 33).await.unwrap(), RefreshClaim::Claimed(_)));
    store.require_reauth(user, 2, "invalid_grant").await.unwrap();
    assert_eq!(store.claim_refresh(user, 2, 24, 34).await.unwrap(), RefreshClaim::Moved);
    assert_eq!(store.account(user).await.unwrap().unwrap().reauth_reason.as_deref(), Some("invalid_grant"));
    store.link(account(1, 7), 0).await.unwrap();
    let again = store.account(user).await.unwrap().unwrap();
    assert_eq!((again.reauth_reason, again.version), (None, 3));
    assert_eq!(store.claim_refresh(Uuid::from_u128(9), 1, 0, 1).await.unwrap(), RefreshClaim::Gone);
    store.unlink(user).await.unwrap();
}

/// Inbox: stored once, claimed once, back after a lease or a retry's time.
async fn the_inbox_loses_and_doubles_nothing(store: &dyn Store) {
    assert!(store.receive(notification("a", 1), true).await.unwrap());
    assert!(!store.receive(notification("a", 2), true).await.unwrap());
    assert!(store.receive(notification("b", 2), true).await.unwrap());
    assert!(store.receive(notification("c", 3), false).await.unwrap());
    let ids = |claimed: Vec<Claimed>| {
        claimed.into_iter().map(|one| (one.notification.id, one.attempt)).collect::<Vec<_>>()
    };
    assert_eq!(ids(store.claim_due(10, 20, 1).await.unwrap()), [("a".to_owned(), 1)]);
    assert_eq!(ids(store.claim_due(10, 20, 9).await.unwrap()), [("b".to_owned(), 1)]);
    assert_eq!(store.claim_due(19, 29, 9).await.unwrap(), []);
    store.settle(vec!["b".into()], Settled::Later(50, "away".into())).await.unwrap();
    assert_eq!(ids(store.claim_due(20, 30, 9).await.unwrap()), [("a".to_owned(), 2)]);
    store.settle(vec!["a".into()], Settled::Done).await.unwrap();
    assert_eq!(store.waiting().await.unwrap(), 1);
    assert_eq!(ids(store.claim_due(50, 60, 9).await.unwrap()), [("b".to_owned(), 2)]);
    store.settle(vec!["b".into()], Settled::Dead("gone".into())).await.unwrap();
    assert_eq!(store.claim_due(1_000, 2_000, 9).await.unwrap(), []);
    store.purge(1_000).await.unwrap();
    // What is done may come again; what is dead stays known.
    assert!(store.receive(notification("a", 3), false).await.unwrap());
    assert!(!store.receive(notification("b", 3), true).await.unwrap());
}

/// Listings: one answer per key, and a doubt is never forgotten.
async fn listings_have_one_answer_per_key(store: &dyn Store) {
    let intent = |key: &str, hash: &str| Intent {
        user_id: Uuid::from_u128(1),
        key: key.into(),
        request_hash: hash.into(),
        seller_sku: Some("S".into()),
    };
    let user = Uuid::from_u128(1);
    assert_eq!(store.begin_listing(intent("k", "h"), 0, 10).await.unwrap(), Begun::Fresh);
    assert_eq!(store.begin_listing(intent("k", "h"), 9, 19).await.unwrap(), Begun::InFlight);
    assert_eq!(store.begin_listing(intent("k", "other"), 9, 19).await.unwrap(), Begun::OtherRequest);
    assert_eq!(store.begin_listing(intent("k", "h"), 10, 20).await.unwrap(), Begun::Doubtful);
    assert_eq!(store.begin_listing(intent("k", "h"), 11, 21).await.unwrap(), Begun::InFlight);
    store.doubt_listing(user, "k").await.unwrap();
    assert_eq!(store.begin_listing(intent("k", "h"), 12, 22).await.unwrap(), Begun::Doubtful);
    store.finish_listing(user, "k", 201, "{}").await.unwrap();
    let done = Begun::Done { status: 201, answer: "{}".into() };
    assert_eq!(store.begin_listing(intent("k", "h"), 13, 23).await.unwrap(), done);
    assert_eq!(store.begin_listing(intent("l", "h"), 13, 23).await.unwrap(), Begun::Fresh);
    store.forget_listing(user, "l").await.unwrap();
    assert_eq!(store.begin_listing(intent("l", "h"), 13, 23).await.unwrap(), Begun::Fresh);
}

/// Limits: all or none, and what was granted elsewhere is charged.
pub(super) async fn limits_are_taken_together(limits: &dyn LimitStore, advance: impl AsyncFn(Duration)) {
    // 20 in 2 s with a burst of 2, and 200 with one of 20.
    let take = |key: &str, limit| Take {
        key: key.into(),
        rate: Rate::new(limit, 10, Mode::Normal, 2_000_000),
        reserve: 0,
    };
    // A store that has just been opened may not count yet, and begins with what it cannot know: empty.
    while limits.rejoin(Duration::ZERO, vec![]).await.unwrap() != Rejoined::Open {
        advance(Duration::from_millis(50)).await;
    }
    advance(Duration::from_millis(300)).await;
    let both = || vec![take("x:wide", 200), take("x:narrow", 20)];
    for call in 0..2 {
        let taken = limits.take(both()).await.unwrap();
        let Taken::Granted { buckets, .. } = taken else { panic!("call {call}: {taken:?}") };
        assert_eq!(buckets.iter().map(|bucket| bucket.current + bucket.previous).max(), Some(call + 1));
    }
    let denied = limits.take(both()).await.unwrap();
    assert!(matches!(denied, Taken::Denied { position: 1, .. }), "{denied:?}");
    let keys = || vec![("x:wide".to_owned(), 2_000_000), ("y".to_owned(), 2_000_000)];
    let (_, states) = limits.buckets(keys()).await.unwrap();
    assert_eq!(states[0].current + states[0].previous, 2, "the denial took nothing");
    assert_eq!(states[1], Bucket { window: states[1].window, ..Bucket::default() });

    let owed = Owed { key: "x:wide".into(), rate: take("x:wide", 200).rate, calls: 30 };
    assert_eq!(limits.rejoin(Duration::ZERO, vec![owed]).await.unwrap(), Rejoined::Open);
    let denied = limits.take(vec![take("x:wide", 200)]).await.unwrap();
    assert!(matches!(denied, Taken::Denied { position: 0, .. }), "{denied:?}");
    let (_, states) = limits.buckets(keys()).await.unwrap();
    assert_eq!(states[0].current + states[0].previous, 32);
    advance(Duration::from_millis(400)).await;
    let alone = limits.take(vec![take("x:wide", 200)]).await.unwrap();
    assert!(matches!(alone, Taken::Granted { .. }), "{alone:?}");
}

/// Cache: soft and hard limits, one refresher, and no value older than an invalidation.
pub(super) async fn the_cache_respects_invalidations(cache: &dyn CacheStore) {
    let value = |text: &str| Cached { value: text.into(), soft_until: 100_000, hard_until: 200_000 };
    let (none, epoch) = cache.cached("k", "s", 0).await.unwrap();
    assert_eq!(none, None);
    assert!(cache.keep("k", "s", epoch, value("one"), 0).await.unwrap());
    assert_eq!(cache.cached("k", "s", 199_999).await.unwrap().0, Some(value("one")));
    assert_eq!(cache.cached("k", "s", 200_000).await.unwrap().0, None);
    assert!(cache.claim_stale("k", 110_000, 120_000).await.unwrap());
    assert!(!cache.claim_stale("k", 119_000, 129_000).await.unwrap());
    assert!(cache.claim_stale("k", 120_000, 130_000).await.unwrap());
    let (_, before) = cache.cached("k", "s", 120_000).await.unwrap();
    cache.invalidate("k", "s", 121_000).await.unwrap();
    assert_eq!(cache.cached("k", "s", 122_000).await.unwrap().0, None);
    assert!(!cache.keep("k", "s", before, value("old"), 122_000).await.unwrap());
    let (_, after) = cache.cached("k", "s", 122_000).await.unwrap();
    assert!(cache.keep("k", "s", after, value("new"), 122_000).await.unwrap());
    assert_eq!(cache.cached("k", "s", 123_000).await.unwrap().0, Some(value("new")));
}

mod embedded {
    use std::path::Path;

    use service_kit::sqlite::Pool;
    use service_kit::testing::{migrate, migrate_down};

    use super::super::tests::Bench;
    use super::super::{CacheStore, SqliteStore, Store};

    fn migrations() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"))
    }

    fn store(folder: &Path) -> SqliteStore {
        let database = folder.join("test.db");
        migrate(&database, migrations()).unwrap();
        SqliteStore::new(Pool::new("postgresql", &database, 2))
    }

    macro_rules! database {
        ($($name:ident),*) => {$(
            #[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(&store(folder.path())).await;
            }
        )*};
    }

    database!(
        accounts_are_linked_one_to_one,
        refreshes_are_claimed_by_one,
        the_inbox_loses_and_doubles_nothing,
        listings_have_one_answer_per_key
    );

    #[tokio::test]
    async fn limits_are_taken_together() {
        let bench = Bench::new().await;
        super::limits_are_taken_together(&*bench.state, async |time| bench.hand.advance(time)).await;
    }

    #[tokio::test]
    async fn the_cache_respects_invalidations() {
        let state = Bench::new().await.state;
        super::the_cache_respects_invalidations(&*state).await;
        CacheStore::purge(&*state, 200_000).await.unwrap();
        assert_eq!(state.cached("k", "s", 0).await.unwrap().0, None);
    }

    #[tokio::test]
    async fn a_database_without_migrations_is_told_and_down_undoes_up() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("test.db");
        let empty = SqliteStore::new(Pool::new("postgresql", &database, 1));
        assert!(empty.migrated().await.unwrap_err().contains("ml_accounts"));
        migrate(&database, migrations()).unwrap();
        assert_eq!(empty.migrated().await, Ok(()));
        migrate_down(&database, migrations()).unwrap();
        assert!(empty.migrated().await.is_err());
    }
}

/// The same on a real server, and what only several connections can show.
mod postgresql {
    use std::path::Path;
    use std::sync::Arc;

    use service_kit::postgres::Pool;
    use service_kit::testing::servers;

    use super::super::{PostgresStore, RefreshClaim, Store};
    use super::*;

    fn migrations() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"))
    }

    async fn store() -> PostgresStore {
        let url = servers::postgresql(migrations()).await.unwrap();
        PostgresStore::new(Pool::new("postgresql", "test", &url, 20).unwrap())
    }

    macro_rules! database {
        ($($name:ident),*) => {$(
            #[tokio::test]
            #[ignore = "needs a real server: make e2e-services"]
            async fn $name() {
                super::$name(&store().await).await;
            }
        )*};
    }

    database!(
        accounts_are_linked_one_to_one,
        refreshes_are_claimed_by_one,
        the_inbox_loses_and_doubles_nothing,
        listings_have_one_answer_per_key
    );

    /// Runs twenty at once; what each was told.
    async fn twenty<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        store: &Arc<PostgresStore>,
        each: impl Fn(Arc<PostgresStore>, u128) -> F,
    ) -> Vec<T> {
        let begun: Vec<_> = (0..20).map(|nth| tokio::spawn(each(Arc::clone(store), nth))).collect();
        let mut told = Vec::new();
        for one in begun {
            told.push(one.await.unwrap());
        }
        told
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a real server: make e2e-services"]
    async fn of_twenty_at_once_one_refreshes_one_lists_one_links_and_each_notification_is_claimed_once() {
        let store = Arc::new(store().await);
        let linked =
            twenty(&store, |store, nth| async move { store.link(account(nth + 1, 7), 0).await.unwrap() })
                .await;
        assert_eq!(linked.iter().filter(|linked| **linked == Linked::New).count(), 1, "{linked:?}");
        let owner = store.account_of_ml_user(7).await.unwrap().unwrap().user_id;
        let claims =
            twenty(
                &store,
                move |store, _| async move { store.claim_refresh(owner, 1, 10, 20).await.unwrap() },
            )
            .await;
        let claimed = claims.iter().filter(|claim| matches!(claim, RefreshClaim::Claimed(_))).count();
        assert_eq!((claimed, claims.iter().filter(|claim| **claim == RefreshClaim::Busy).count()), (1, 19));
        let begun = twenty(&store, move |store, _| async move {
            let intent =
                Intent { user_id: owner, key: "k".into(), request_hash: "h".into(), seller_sku: None };
            store.begin_listing(intent, 0, 10).await.unwrap()
        })
        .await;
        assert_eq!(begun.iter().filter(|begun| **begun == Begun::Fresh).count(), 1, "{begun:?}");
        for nth in 0..100 {
            assert!(store.receive(notification(&format!("n{nth}"), nth), true).await.unwrap());
        }
        let claimed = twenty(&store, |store, _| async move {
            let mut ids = Vec::new();
            loop {
                let some = store.claim_due(1_000, 2_000, 7).await.unwrap();
                if some.is_empty() {
                    return ids;
                }
                ids.extend(some.into_iter().map(|one| one.notification.id));
            }
        })
        .await;
        let mut ids: Vec<String> = claimed.into_iter().flatten().collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!((all, ids.len()), (100, 100));
    }
}
