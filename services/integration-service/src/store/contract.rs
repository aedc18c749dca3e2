//! What every adapter of the two store traits must do. The embedded adapters and those of real servers run it below.

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

/// Limits: all or none.
async fn limits_are_taken_together(state: &dyn StateStore) {
    let take =
        |key: &str, limit| Take { key: key.into(), rate: Rate::new(limit, limit, Mode::Normal), reserve: 0 };
    let both = vec![take("x:wide", 10), take("x:narrow", 3)];
    // A burst of one each.
    let Taken::Granted(states) = state.take(both.clone(), 0).await.unwrap() else { panic!("denied") };
    assert_eq!(states.len(), 2);
    let denied = state.take(both.clone(), 0).await.unwrap();
    assert!(matches!(denied, Taken::Denied { position: 0, .. }), "{denied:?}");
    let wide_only_has_room = 500_000_000;
    let denied = state.take(both, wide_only_has_room).await.unwrap();
    assert!(matches!(denied, Taken::Denied { position: 1, .. }), "{denied:?}");
    let alone = state.take(vec![take("x:wide", 10)], wide_only_has_room).await.unwrap();
    assert!(matches!(alone, Taken::Granted(_)), "the denial took nothing: {alone:?}");
    assert_eq!(state.buckets("x:", 0).await.unwrap().len(), 2);
    assert_eq!(state.buckets("x:", 1).await.unwrap().len(), 1);
    assert_eq!(state.buckets("y", 0).await.unwrap(), []);
}

/// Cache: soft and hard limits, one refresher, and no value older than an invalidation.
async fn the_cache_respects_invalidations(state: &dyn StateStore) {
    let value = |text: &str| Cached { value: text.into(), soft_until: 100, hard_until: 200 };
    let (none, epoch) = state.cached("k", "s", 0).await.unwrap();
    assert_eq!(none, None);
    assert!(state.keep("k", "s", epoch, value("one")).await.unwrap());
    assert_eq!(state.cached("k", "s", 199).await.unwrap().0, Some(value("one")));
    assert_eq!(state.cached("k", "s", 200).await.unwrap().0, None);
    assert!(state.claim_stale("k", 110, 120).await.unwrap());
    assert!(!state.claim_stale("k", 119, 129).await.unwrap());
    assert!(state.claim_stale("k", 120, 130).await.unwrap());
    let (_, before) = state.cached("k", "s", 120).await.unwrap();
    state.invalidate("s", 121).await.unwrap();
    assert_eq!(state.cached("k", "s", 122).await.unwrap().0, None);
    assert!(!state.keep("k", "s", before, value("old")).await.unwrap());
    let (_, after) = state.cached("k", "s", 122).await.unwrap();
    assert!(state.keep("k", "s", after, value("new")).await.unwrap());
    state.purge(200).await.unwrap();
    assert_eq!(state.cached("k", "s", 0).await.unwrap().0, None);
}

mod embedded {
    use std::path::Path;

    use service_kit::sqlite::Pool;
    use service_kit::testing::{migrate, migrate_down};

    use super::super::{SqliteState, SqliteStore, Store};

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

    macro_rules! state {
        ($($name:ident),*) => {$(
            #[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let state = SqliteState::open(SqliteState::pool(folder.path())).await.unwrap();
                super::$name(&state).await;
            }
        )*};
    }

    database!(
        accounts_are_linked_one_to_one,
        refreshes_are_claimed_by_one,
        the_inbox_loses_and_doubles_nothing,
        listings_have_one_answer_per_key
    );
    state!(limits_are_taken_together, the_cache_respects_invalidations);

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

    #[tokio::test]
    async fn a_notification_that_cannot_be_stored_is_told_in_time() {
        // It accepts and says nothing, as a server that is paused.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgresql://p@{}/d", silent.local_addr().unwrap()).into();
        let store = PostgresStore::new(Pool::new("postgresql", "test", &url, 1).unwrap());
        let began = std::time::Instant::now();
        let error = store.receive(notification("a", 1), true).await.unwrap_err();
        assert!(error.busy && began.elapsed().as_millis() < 450, "{error:?} after {:?}", began.elapsed());
    }
}
