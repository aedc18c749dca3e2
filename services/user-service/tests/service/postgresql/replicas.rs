//! Several pools on one database, as replicas have them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use service_kit::postgres::{Pool, PostgresError};
use service_kit::testing::servers;
use sqlx::{Connection as _, PgConnection};
use user_service::account::{Email, Tenant, User};
use user_service::random::{SystemEntropy, TokenHash, uuid};
use user_service::store::{
    AccountStore as _, FollowUp, FollowUpTask, NewSession, NewUser, PendingConnection, PostgresAccounts,
    Rotation, StoreError,
};
use uuid::Uuid;

use super::{database, migrations, number};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id() -> Uuid {
    uuid(&SystemEntropy).unwrap()
}

fn replicas(database: &SecretString, count: usize, size: u32) -> Vec<PostgresAccounts> {
    let pool = || Pool::new("postgresql", "test", database, size).unwrap();
    (0..count).map(|_| PostgresAccounts::new(pool())).collect()
}

fn user(email: &str) -> User {
    let (email, tenant) = (Email::parse(email).unwrap(), Tenant::parse(None).unwrap());
    User { id: id(), email, tenant, created_at: at(0), ml_user_id: None }
}

fn session(user_id: Uuid, token: &str) -> NewSession {
    NewSession { id: id(), user_id, token: TokenHash::of(token), expires_at: at(1_000) }
}

async fn register(store: &PostgresAccounts, user: &User, token: &str) -> NewSession {
    let begun = session(user.id, token);
    let new = NewUser { user: user.clone(), password_hash: "hash".to_owned() };
    store.create_user(new, begun).await.unwrap();
    begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn of_twenty_callers_of_four_replicas_one_rotates_and_the_family_ends() {
    let database = database().await;
    let replicas = replicas(&database, 4, 5);
    for round in 0..20 {
        let ana = user(&format!("ana{round}@example.com"));
        let begun = register(&replicas[0], &ana, &format!("first{round}")).await;
        let callers = (0..20).map(|caller| {
            let store = replicas[caller % 4].clone();
            tokio::spawn(async move {
                let (presented, next) = (format!("first{round}"), format!("next{round}-{caller}"));
                let hashes = (TokenHash::of(&presented), TokenHash::of(&next));
                (next, store.rotate(hashes.0, hashes.1, at(1), at(1_000)).await.unwrap())
            })
        });
        let outcomes: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<_> =
            outcomes.iter().filter(|(_, outcome)| matches!(outcome, Rotation::Rotated { .. })).collect();
        assert_eq!(won.len(), 1, "round {round}: {outcomes:?}");
        let reused = Rotation::Reused { session_id: begun.id };
        let told = outcomes.iter().filter(|(_, outcome)| *outcome == reused).count();
        assert_eq!(told, 1, "the second one ends the family, the others find it ended: {outcomes:?}");
        assert!(!replicas[1].session_is_live(begun.id).await.unwrap());
        let successor = TokenHash::of(&won[0].0);
        let after = replicas[2].rotate(successor, TokenHash::of("late"), at(2), at(1_000)).await.unwrap();
        assert_eq!(after, Rotation::Refused, "what the winner got is worth nothing any more");
    }
}

/// Everything that locks rows of a user, from four replicas on three users: whoever waited in a circle would be chosen
/// as a victim by the server and fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn callers_queue_and_none_is_chosen_as_a_victim() {
    const ROUNDS: usize = 60;
    let database = database().await;
    let stores = replicas(&database, 4, 4);
    let done = Arc::new(AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let users: Vec<User> = (0..3).map(|who| user(&format!("user{who}-{round}@example.com"))).collect();
        let mut begun = Vec::new();
        for who in &users {
            begun.push(register(&stores[0], who, &format!("{}-first", who.id)).await);
            let second = session(who.id, &format!("{}-second", who.id));
            assert!(stores[1].begin_session(second, at(0)).await.unwrap());
            begun.push(second);
        }
        let tasks = (0..48).map(|task| {
            let (store, done) = (stores[task % 4].clone(), Arc::clone(&done));
            let who = users[task % 3].clone();
            let sessions: Vec<_> = begun.iter().filter(|begun| begun.user_id == who.id).copied().collect();
            tokio::spawn(async move {
                let of = sessions[task % 2];
                let token = TokenHash::of(&format!("{}-{}", who.id, ["first", "second"][task % 2]));
                let fresh = TokenHash::of(&format!("{round}-{task}"));
                let failed = match task % 8 {
                    0 => store.rotate(token, fresh, at(1), at(1_000)).await.map(drop).err(),
                    1 => store.end_session(token, at(1)).await.err(),
                    2 => {
                        let pending = PendingConnection {
                            state: fresh,
                            user_id: who.id,
                            session_id: of.id,
                            browser: None,
                            sealed_verifier: vec![1],
                            expires_at: at(5),
                        };
                        // A user who is just being removed starts nothing.
                        store.save_connection(pending).await.err().filter(|error| !of_a_gone_user(error))
                    }
                    3 => store.sweep(at(2_000)).await.map(drop).err(),
                    4 => store
                        .begin_session(session(who.id, &format!("{round}-{task}")), at(1))
                        .await
                        .map(drop)
                        .err(),
                    5 => store.set_ml_user(who.id, Some(1)).await.err(),
                    6 if task > 40 => store.delete_user(who.id, at(1), Vec::new()).await.map(drop).err(),
                    6 => store.take_connection(fresh, at(1)).await.map(drop).err(),
                    _ => store.rotate(token, fresh, at(1), at(1_000)).await.map(drop).err(),
                };
                assert!(failed.is_none(), "task {task}: {failed:?}");
                done.fetch_add(1, Ordering::Relaxed);
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
    }
    assert_eq!(done.load(Ordering::Relaxed), 48 * ROUNDS);
    // Statistics arrive a moment later; a failed task above would have told first.
    assert_eq!(
        number(&database, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").await,
        0
    );
    let orphans = "SELECT count(*) FROM refresh_tokens t LEFT JOIN user_sessions s ON s.id = t.session_id
                   LEFT JOIN users u ON u.id = s.user_id WHERE u.id IS NULL";
    assert_eq!(number(&database, orphans).await, 0);
}

fn of_a_gone_user(error: &StoreError) -> bool {
    let StoreError::Database { source, .. } = error else { return false };
    matches!(source.downcast_ref::<PostgresError>(), Some(PostgresError::Statement(sqlx::Error::Database(refused)))
        if refused.is_foreign_key_violation())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn each_follow_up_is_handed_to_one_of_many_workers() {
    let database = database().await;
    let stores = replicas(&database, 4, 2);
    let ana = user("ana@example.com");
    register(&stores[0], &ana, "token").await;
    let tasks: Vec<_> = (0..300)
        .map(|number| FollowUp {
            id: id(),
            user_id: ana.id,
            task: FollowUpTask::Publish(json!({"number": number})),
        })
        .collect();
    assert!(stores[0].delete_user(ana.id, at(0), tasks.clone()).await.unwrap());
    let workers = (0..8).map(|worker| {
        let store = stores[worker % 4].clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim_follow_ups(at(1), at(60), 7).await.unwrap();
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.into_iter().map(|item| item.follow_up.id));
            }
        })
    });
    let mut claimed = Vec::new();
    for worker in join_all(workers).await {
        claimed.extend(worker.unwrap());
    }
    assert_eq!(claimed.len(), tasks.len(), "none twice");
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), tasks.iter().map(|task| task.id).collect());
}

/// Connections die in the middle of registrations; whoever failed asks again, as a client does.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn killed_connections_lose_nothing_and_leave_no_half() {
    let database = database().await;
    let stop = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (database, stop) = (database.clone(), Arc::clone(&stop));
        async move {
            let mut connection = PgConnection::connect(database.expose_secret()).await.unwrap();
            let mut killed = 0;
            while !stop.load(Ordering::Relaxed) {
                let victims: Vec<bool> = sqlx::query_scalar(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .fetch_all(&mut connection)
                .await
                .unwrap();
                killed += victims.len();
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            killed
        }
    });
    let stores = replicas(&database, 2, 4);
    let clients = (0..8).map(|client| {
        let store = stores[client % 2].clone();
        tokio::spawn(async move {
            let mut failures = 0;
            for number in 0..40 {
                let ana = user(&format!("user{client}-{number}@example.com"));
                loop {
                    let new = NewUser { user: ana.clone(), password_hash: "hash".to_owned() };
                    match store.create_user(new, session(ana.id, &ana.id.to_string())).await {
                        // Taken: the commit had arrived although its answer was lost.
                        Ok(()) | Err(StoreError::EmailTaken) => break,
                        Err(StoreError::Database { source, .. }) => {
                            let error = source.downcast_ref::<PostgresError>().unwrap();
                            assert!(error.is_busy(), "a client is told to come back: {error:?}");
                            failures += 1;
                        }
                    }
                }
            }
            failures
        })
    });
    let failures: usize = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    stop.store(true, Ordering::Relaxed);
    let killed = killer.await.unwrap();
    assert!(killed > 20 && failures > 0, "{killed} killed, {failures} failures: the test hit nothing");
    for sql in [
        "SELECT count(*) FROM users",
        "SELECT count(*) FROM users u JOIN user_sessions s ON s.user_id = u.id",
        "SELECT count(*) FROM user_sessions s JOIN refresh_tokens t ON t.session_id = s.id",
    ] {
        assert_eq!(number(&database, sql).await, 320, "{sql}");
    }
    // A connection that idled a second is asked before it is used, so the dead ones are found before anybody meets them.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let asked = join_all((0..8).map(|_| stores[0].reachable())).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn migrations_go_up_and_down_again() {
    const OBJECTS: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let database = database().await;
    assert!(number(&database, OBJECTS).await > 0);
    let indexes = "SELECT count(*) FROM pg_class WHERE relname IN
                   ('idx_users_email', 'idx_users_ml_user_id', 'idx_users_created_at')";
    assert_eq!(number(&database, indexes).await, 3, "the plan asks for them");
    servers::postgresql_down(&database, migrations()).await.unwrap();
    assert_eq!(number(&database, OBJECTS).await, 0, "nothing is left");
}
