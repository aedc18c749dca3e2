//! What every adapter of the two store traits must show; `embedded` runs it on SQLite, `postgresql` on a real server.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use user_service::account::{Email, Tenant, User};
use user_service::random::{SystemEntropy, TokenHash, uuid};
use user_service::store::{
    AccountStore, FollowUp, FollowUpTask, NewSession, NewUser, PendingConnection, Rotation, StoreError,
    ThrottleStore,
};
use user_service::throttle::{Policy, Tally, ThrottleKey};
use uuid::Uuid;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn new_id() -> Uuid {
    uuid(&SystemEntropy).unwrap()
}

fn new_user(email: &str) -> NewUser {
    let user = User {
        id: new_id(),
        email: Email::parse(email).unwrap(),
        tenant: Tenant::parse(Some("acme")).unwrap(),
        created_at: at(0),
        ml_user_id: None,
    };
    NewUser { user, password_hash: "hash".to_owned() }
}

fn session(user_id: Uuid, token: &str, expires_at: Timestamp) -> NewSession {
    NewSession { id: new_id(), user_id, token: TokenHash::of(token), expires_at }
}

/// A store with one user and one session whose token is `token`.
async fn with_user(store: &dyn AccountStore, token: &str) -> (User, NewSession) {
    let new = new_user(&format!("{token}@example.com"));
    let begun = session(new.user.id, token, at(1_000));
    store.create_user(new.clone(), begun).await.unwrap();
    (new.user, begun)
}

async fn users(store: &dyn AccountStore) {
    let new = new_user("ana@example.com");
    let ana = new.user.clone();
    store.create_user(new, session(ana.id, "users", at(1_000))).await.unwrap();
    assert_eq!(store.user(ana.id).await.unwrap(), Some(ana.clone()));
    let found = store.credentials(&ana.email).await.unwrap().unwrap();
    assert_eq!((found.user, found.password_hash.as_str()), (ana.clone(), "hash"));
    assert!(store.credentials(&Email::parse("bob@example.com").unwrap()).await.unwrap().is_none());

    let mut twin = new_user("ana@example.com");
    twin.user.tenant = Tenant::parse(None).unwrap();
    let id = twin.user.id;
    let refused = store.create_user(twin, session(id, "twin", at(1_000))).await;
    assert!(matches!(refused, Err(StoreError::EmailTaken)), "{refused:?}");
    assert_eq!(rotate(store, "twin", "next", 1).await, Rotation::Refused, "no session was left behind");

    store.replace_password_hash(ana.id, "other", "lost").await.unwrap();
    store.replace_password_hash(ana.id, "hash", "newer").await.unwrap();
    assert_eq!(store.credentials(&ana.email).await.unwrap().unwrap().password_hash, "newer");

    store.set_ml_user(ana.id, Some(i64::MAX)).await.unwrap();
    assert_eq!(store.user(ana.id).await.unwrap().unwrap().ml_user_id, Some(i64::MAX));
    store.set_ml_user(ana.id, None).await.unwrap();
    assert_eq!(store.user(ana.id).await.unwrap().unwrap().ml_user_id, None);
}

async fn rotate(store: &dyn AccountStore, presented: &str, next: &str, seconds: i64) -> Rotation {
    store
        .rotate(TokenHash::of(presented), TokenHash::of(next), at(seconds), at(seconds + 1_000))
        .await
        .unwrap()
}

async fn sessions(store: &dyn AccountStore) {
    let (user, begun) = with_user(store, "s1").await;
    let rotated = Rotation::Rotated { session_id: begun.id, user: user.clone() };
    assert_eq!(rotate(store, "s1", "s2", 1).await, rotated);
    assert_eq!(rotate(store, "s2", "s3", 2).await, rotated);
    assert_eq!(rotate(store, "s3", "late", 1_002).await, Rotation::Refused, "expired");
    assert!(store.session_is_live(begun.id).await.unwrap());
    assert_eq!(rotate(store, "s1", "x", 3).await, Rotation::Reused { session_id: begun.id });
    assert!(!store.session_is_live(begun.id).await.unwrap());
    assert_eq!(rotate(store, "s3", "y", 4).await, Rotation::Refused, "revoked");

    let second = session(user.id, "t1", at(1_000));
    assert!(store.begin_session(second, at(5)).await.unwrap());
    store.end_session(TokenHash::of("unknown"), at(6)).await.unwrap();
    assert!(store.session_is_live(second.id).await.unwrap());
    store.end_session(TokenHash::of("t1"), at(6)).await.unwrap();
    assert!(!store.session_is_live(second.id).await.unwrap());
    assert!(!store.begin_session(session(new_id(), "z", at(1_000)), at(7)).await.unwrap(), "no such user");
}

async fn concurrent_rotations(store: Arc<dyn AccountStore>) {
    let (_, begun) = with_user(&*store, "race").await;
    let outcomes = join_all((0..20).map(|next| {
        let store = Arc::clone(&store);
        async move { rotate(&*store, "race", &format!("race{next}"), 1).await }
    }))
    .await;
    let won = outcomes.iter().filter(|outcome| matches!(outcome, Rotation::Rotated { .. })).count();
    assert_eq!(won, 1, "{outcomes:?}");
    assert!(!store.session_is_live(begun.id).await.unwrap());
}

async fn connections(store: &dyn AccountStore) {
    let (user, begun) = with_user(store, "c1").await;
    let pending = |state: &str| PendingConnection {
        state: TokenHash::of(state),
        user_id: user.id,
        session_id: begun.id,
        browser: Some(TokenHash::of("browser")),
        sealed_verifier: vec![0, 1, 255],
        expires_at: at(600),
    };
    let mut of_an_older_version = pending("older");
    of_an_older_version.browser = None;
    store.save_connection(of_an_older_version.clone()).await.unwrap();
    let taken = store.take_connection(TokenHash::of("older"), at(1)).await.unwrap();
    assert_eq!(taken.map(|(pending, _)| pending), Some(of_an_older_version));
    for state in ["once", "late", "orphan"] {
        store.save_connection(pending(state)).await.unwrap();
    }
    let taken = store.take_connection(TokenHash::of("once"), at(599)).await.unwrap();
    assert_eq!(taken, Some((pending("once"), user.tenant.clone())));
    assert_eq!(store.take_connection(TokenHash::of("once"), at(599)).await.unwrap(), None, "twice");
    assert_eq!(store.take_connection(TokenHash::of("late"), at(600)).await.unwrap(), None);
    assert_eq!(
        store.take_connection(TokenHash::of("late"), at(1)).await.unwrap(),
        None,
        "used up all the same"
    );
    store.end_session(TokenHash::of("c1"), at(2)).await.unwrap();
    assert_eq!(store.take_connection(TokenHash::of("orphan"), at(3)).await.unwrap(), None);
}

async fn follow_ups(store: &dyn AccountStore) {
    let (user, begun) = with_user(store, "f1").await;
    let follow_up = |task| FollowUp { id: new_id(), user_id: user.id, task };
    let tasks = vec![
        follow_up(FollowUpTask::Disconnect),
        follow_up(FollowUpTask::Publish(json!({"type": "user.deleted"}))),
    ];
    assert!(store.delete_user(user.id, at(10), tasks.clone()).await.unwrap());
    assert!(store.user(user.id).await.unwrap().is_none());
    assert!(!store.session_is_live(begun.id).await.unwrap());
    assert_eq!(rotate(store, "f1", "f2", 11).await, Rotation::Refused);
    let again = vec![follow_up(FollowUpTask::Disconnect)];
    assert!(!store.delete_user(user.id, at(11), again).await.unwrap(), "a user is removed once");

    assert_eq!(store.claim_follow_ups(at(9), at(70), 10).await.unwrap(), [], "not due yet");
    let first = store.claim_follow_ups(at(10), at(70), 1).await.unwrap();
    let second = store.claim_follow_ups(at(10), at(70), 10).await.unwrap();
    assert_eq!((first.len(), second.len()), (1, 1), "each is handed out once");
    let mut claimed: Vec<_> = first.iter().chain(&second).map(|item| item.follow_up.clone()).collect();
    claimed.sort_by_key(|item| item.task != FollowUpTask::Disconnect);
    assert_eq!(claimed, tasks);
    assert!(first.iter().chain(&second).all(|item| item.attempts == 0));

    store.finish_follow_up(tasks[0].id).await.unwrap();
    store.postpone_follow_up(tasks[1].id, at(20)).await.unwrap();
    assert_eq!(store.claim_follow_ups(at(19), at(80), 10).await.unwrap(), []);
    let retried = store.claim_follow_ups(at(20), at(80), 10).await.unwrap();
    assert_eq!(
        retried.iter().map(|item| (item.follow_up.id, item.attempts)).collect::<Vec<_>>(),
        [(tasks[1].id, 1)]
    );
    let lost = store.claim_follow_ups(at(80), at(140), 10).await.unwrap();
    assert_eq!(lost.len(), 1, "a lease that ends gives the work back");
    store.finish_follow_up(tasks[1].id).await.unwrap();
    assert_eq!(store.claim_follow_ups(at(9_999), at(99_999), 10).await.unwrap(), []);
}

async fn sweeping(store: &dyn AccountStore) {
    let (user, begun) = with_user(store, "w1").await;
    rotate(store, "w1", "w2", 500).await;
    assert_eq!(store.sweep(at(999)).await.unwrap(), 0);
    assert_eq!(store.sweep(at(1_000)).await.unwrap(), 1, "the first token");
    assert!(store.session_is_live(begun.id).await.unwrap(), "its successor lives");
    assert_eq!(store.sweep(at(1_500)).await.unwrap(), 2, "the second token and its session");
    assert!(!store.session_is_live(begun.id).await.unwrap());
    assert!(store.user(user.id).await.unwrap().is_some());
}

async fn throttles(store: Arc<dyn ThrottleStore>) {
    let ana = ThrottleKey::account(&Email::parse("ana@example.com").unwrap());
    let address = ThrottleKey::address("192.0.2.1".parse().unwrap());
    let tally = async |key: &ThrottleKey| store.tallies(&[*key]).await.unwrap()[0];
    assert_eq!(tally(&ana).await, None);
    join_all((0..10).map(|_| async { store.count_failures(&[ana], at(0)).await.unwrap() })).await;
    let ten = Some(Tally { failures: 10, last_at: at(0) });
    assert_eq!(store.tallies(&[address, ana]).await.unwrap(), [None, ten]);
    let both = [Tally { failures: 11, last_at: at(5) }, Tally { failures: 1, last_at: at(5) }];
    assert_eq!(store.count_failures(&[ana, address], at(5)).await.unwrap(), both);
    store.forget(&address).await.unwrap();
    assert_eq!(tally(&address).await, None);
    assert_eq!(tally(&ana).await, Some(both[0]));

    let quiet = at(5).checked_add(SignedDuration::try_from(Policy::ACCOUNT.forget).unwrap()).unwrap();
    assert_eq!(store.count_failures(&[ana], quiet).await.unwrap()[0].failures, 1, "a quiet hour forgives");
    store.forget(&ana).await.unwrap();
    assert_eq!(tally(&ana).await, None);
}

mod redis {
    use secrecy::SecretString;
    use service_kit::redis::Redis;
    use service_kit::testing::servers;
    use user_service::metrics::{Metrics, RegistrationOutcome};
    use user_service::store::RedisThrottle;
    use user_service::throttle::Throttle;

    use super::*;

    const DEADLINE: Duration = Duration::from_millis(500);

    #[tokio::test]
    #[ignore = "needs a real server: make e2e-services"]
    async fn throttles() {
        let redis = Redis::new("redis", &servers::redis(), DEADLINE).unwrap();
        super::throttles(Arc::new(RedisThrottle::new(redis.clone()))).await;
        let ana = ThrottleKey::account(&Email::parse("ana@example.com").unwrap());
        RedisThrottle::new(redis.clone()).count_failures(&[ana], at(0)).await.unwrap();
        let mut all = ::redis::cmd("KEYS");
        let keys: Vec<String> = redis.ask(all.arg("*")).await.unwrap();
        assert!(keys.len() == 1 && !keys[0].contains("ana"), "{keys:?}");
        let mut life = ::redis::cmd("PTTL");
        let life: i64 = redis.ask(life.arg(&keys[0])).await.unwrap();
        assert!((1..=3_600_000).contains(&life), "{life}");
    }

    #[tokio::test]
    #[ignore = "needs a real server: make e2e-services"]
    async fn failures_of_an_outage_still_count_when_the_server_is_back() {
        let mut server = service_kit::testing::RedisServer::start(&[]).unwrap();
        let store = RedisThrottle::new(Redis::new("redis", &server.url(), DEADLINE).unwrap());
        let (clock, _hand) = service_kit::Clock::manual(at(0));
        let throttle =
            Throttle::new(Arc::new(store.clone()), clock, Metrics::new(&service_kit::Metrics::new()));
        let ana = ThrottleKey::account(&Email::parse("ana@example.com").unwrap());
        for _ in 0..3 {
            throttle.failed(&[ana]).await;
        }
        server.kill();
        for _ in 0..3 {
            throttle.failed(&[ana]).await;
        }
        let six = Some(Duration::from_secs(1));
        assert_eq!(throttle.wait(&[ana]).await, six, "three before and three in the outage");
        server.run().unwrap();
        let back = async || store.tallies(&[ana]).await.ok();
        let tallies = service_kit::testing::eventually("an answer", back).await;
        assert_eq!(tallies, [None], "it kept nothing");
        assert_eq!(throttle.wait(&[ana]).await, six);
        throttle.failed(&[ana]).await;
        assert_eq!(throttle.wait(&[ana]).await, Some(Duration::from_secs(2)), "and goes on from there");
        throttle.succeeded(&ana).await;
        assert_eq!(throttle.wait(&[ana]).await, None);
    }

    /// Nobody listens there.
    #[tokio::test]
    async fn without_its_server_each_process_counts_by_itself() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = SecretString::from(format!("redis://{}", socket.local_addr().unwrap()));
        drop(socket);
        let (clock, hand) = service_kit::Clock::manual(at(0));
        let page = service_kit::Metrics::new();
        let metrics = Metrics::new(&page);
        metrics.registration(RegistrationOutcome::Created);
        let store = RedisThrottle::new(Redis::new("redis", &url, DEADLINE).unwrap());
        let throttle = Throttle::new(Arc::new(store), clock, metrics.clone());
        let ana = ThrottleKey::account(&Email::parse("ana@example.com").unwrap());
        for _ in 0..6 {
            assert_eq!(throttle.wait(&[ana]).await, None);
            throttle.failed(&[ana]).await;
        }
        assert_eq!(throttle.wait(&[ana]).await, Some(Duration::from_secs(1)));
        assert_eq!((metrics.throttle_fallbacks("read"), metrics.throttle_fallbacks("count")), (7, 6));
        hand.advance(Duration::from_secs(1));
        assert_eq!(throttle.wait(&[ana]).await, None);
        throttle.succeeded(&ana).await;
        throttle.failed(&[ana]).await;
        assert_eq!(throttle.wait(&[ana]).await, None, "a success forgives");
    }
}

mod embedded {
    use service_kit::sqlite::Pool;
    use service_kit::testing::migrate;
    use tempfile::TempDir;
    use user_service::store::{EmbeddedThrottle, SqliteAccounts};

    use super::*;
    use crate::support::migrations;

    fn accounts() -> (TempDir, SqliteAccounts) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        migrate(&database, &migrations()).unwrap();
        (folder, SqliteAccounts::new(Pool::new("postgresql", &database, 4)))
    }

    macro_rules! account_contract {
        ($($name:ident),*) => {$(
            #[tokio::test]
            async fn $name() {
                let (_folder, store) = accounts();
                super::$name(&store).await;
            }
        )*};
    }

    account_contract!(users, sessions, connections, follow_ups, sweeping);

    #[tokio::test]
    async fn concurrent_rotations() {
        let (_folder, store) = accounts();
        super::concurrent_rotations(Arc::new(store)).await;
    }

    #[tokio::test]
    async fn throttles() {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::new("redis", &folder.path().join("state.db"), 4);
        super::throttles(Arc::new(EmbeddedThrottle::open(pool).await.unwrap())).await;
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteAccounts::new(Pool::new("postgresql", &folder.path().join("app.db"), 1));
        let missing = store.migrated().await.unwrap_err();
        assert!(missing.contains("users"), "{missing}");
        assert_eq!(store.reachable().await, Ok(()));
    }

    #[tokio::test]
    async fn a_database_that_is_no_file_is_unreachable_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteAccounts::new(Pool::new("postgresql", folder.path(), 1));
        assert!(store.reachable().await.is_err());
        let error = store.user(new_id()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot read a user");
        assert!(tokio::time::timeout(Duration::from_secs(5), store.user(new_id())).await.is_ok());
    }
}

/// The same on a real server.
mod postgresql {
    use std::path::Path;

    use service_kit::postgres::Pool;
    use service_kit::testing::servers;
    use user_service::store::PostgresAccounts;

    use super::*;

    async fn accounts() -> PostgresAccounts {
        let migrations = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"));
        let url = servers::postgresql(migrations).await.unwrap();
        PostgresAccounts::new(Pool::new("postgresql", "test", &url, 8).unwrap())
    }

    macro_rules! account_contract {
        ($($name:ident),*) => {$(
            #[tokio::test]
            #[ignore = "needs a real server: make e2e-services"]
            async fn $name() {
                super::$name(&accounts().await).await;
            }
        )*};
    }

    account_contract!(users, sessions, connections, follow_ups, sweeping);

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs a real server: make e2e-services"]
    async fn concurrent_rotations() {
        super::concurrent_rotations(Arc::new(accounts().await)).await;
    }

    #[tokio::test]
    #[ignore = "needs a real server: make e2e-services"]
    async fn readiness_names_what_is_missing() {
        let empty = tempfile::tempdir().unwrap();
        std::fs::write(empty.path().join("0001_nothing.up.sql"), "SELECT 1;").unwrap();
        let url = servers::postgresql(empty.path()).await.unwrap();
        let store = PostgresAccounts::new(Pool::new("postgresql", "test", &url, 1).unwrap());
        let missing = store.migrated().await.unwrap_err();
        assert!(missing.contains("users"), "{missing}");
        assert_eq!(store.reachable().await, Ok(()));
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told_within_seconds() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgresql://nobody:secret@127.0.0.1:{port}/none").into();
        let store = PostgresAccounts::new(Pool::new("postgresql", "test", &url, 1).unwrap());
        let asked = tokio::time::timeout(Duration::from_secs(5), store.reachable()).await.unwrap();
        assert!(!asked.unwrap_err().contains("secret"));
        assert_eq!(store.user(new_id()).await.unwrap_err().to_string(), "cannot read a user");
    }
}
