//! The contract on a real server, several replicas at once, and connections that die in the middle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use service_kit::testing::servers;
use sqlx::Connection as _;
use uuid::Uuid;

use super::*;
use crate::event::{Event, USER_DELETED};
use crate::query::Bucket;
use crate::store::{Record, contract};

fn migrations() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"))
}

async fn database() -> SecretString {
    servers::postgresql(migrations()).await.unwrap()
}

fn replica(database: &SecretString, connections: u32) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::new(Pool::new("postgresql", "test", database, connections).unwrap()))
}

async fn number(database: &SecretString, sql: &'static str) -> i64 {
    let mut connection = PgConnection::connect(database.expose_secret()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn postgresql_keeps_the_contract() {
    contract::run(|| async { replica(&database().await, 8) as Arc<dyn AnalyticsStore> }).await;
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_missing_migration_is_told_as_such() {
    let nothing = tempfile::tempdir().unwrap();
    std::fs::write(nothing.path().join("0001_nothing.up.sql"), "SELECT 1;").unwrap();
    let store = replica(&servers::postgresql(nothing.path()).await.unwrap(), 1);
    assert!(matches!(store.check().await, Err(StoreError::NotMigrated { .. })));
    assert!(store.migrated().await.unwrap_err().contains("analytics_"));
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let store = replica(&format!("postgresql://nobody:secret@127.0.0.1:{port}/none").into(), 1);
    let error = store.check().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn migrations_go_up_and_down_again() {
    const OBJECTS: &str = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let database = database().await;
    assert!(number(&database, OBJECTS).await > 0);
    servers::postgresql_down(&database, migrations()).await.unwrap();
    assert_eq!(number(&database, OBJECTS).await, 0, "nothing is left");
}

/// A log of one partition: events of a few users under identities that the other partitions have too, so that all of
/// them write the same rows. `erased` goes in the middle of every partition's log.
fn log(partition: u32, erased: Option<u128>) -> Vec<Event> {
    (0..400_u64)
        .map(|index| {
            let user = u128::from((index * 7 + u64::from(partition)) % 5);
            let deletes = erased.is_some() && index == 201;
            let event_type = if deletes { USER_DELETED } else { ["a", "b", "c"][(index % 3) as usize] };
            let user = erased.filter(|_| deletes).unwrap_or(user);
            // Every second event is repeated in another partition.
            let of = if index % 2 == 0 { 0 } else { partition };
            Event {
                id: Uuid::from_u128(u128::from(index) << 32 | u128::from(of)),
                event_type: event_type.to_owned(),
                owner: Some(Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(user) }),
                at: Timestamp::from_second((index * 600) as i64).unwrap(),
            }
        })
        .collect()
}

fn partition(number: u32) -> Partition {
    Partition { topic: "ml-events".to_owned(), number, group: "analytics".to_owned() }
}

fn batch(number: u32, log: &[Event], after: u64) -> Batch {
    let records = log.iter().zip(1..).skip(after as usize).take(25);
    let records = records.map(|(event, position)| Record { position, content: Ok(event.clone()) }).collect();
    Batch { partition: partition(number), after, records, at: Timestamp::from_second(1_000_000).unwrap() }
}

/// Works a log off, beginning again where the store stands after each failure; how many there were.
async fn work_off(store: Arc<PostgresStore>, number: u32, log: Vec<Event>) -> usize {
    let mut failures = 0;
    loop {
        let step = async {
            let after = store.position(&partition(number)).await?;
            if after < log.len() as u64 {
                store.apply(batch(number, &log, after)).await?;
            }
            Ok::<_, StoreError>(after == log.len() as u64)
        };
        match step.await {
            Ok(true) => return failures,
            Ok(false) => {}
            Err(StoreError::Unavailable { .. }) => failures += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Counts by user and type, once by totals and once by hours.
async fn counted(store: &PostgresStore) -> [BTreeMap<(u128, String), u64>; 2] {
    let (mut totals, mut hours) = (BTreeMap::new(), BTreeMap::new());
    for user in 0..5 {
        let owner = Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(user) };
        for (event_type, total) in store.totals(&owner).await.unwrap() {
            totals.insert((user, event_type), total.events);
        }
        let all = Range { from: 0, to: 1_000_000, bucket: Bucket::Hour };
        for row in store.hours(&owner, all).await.unwrap() {
            *hours.entry((user, row.event_type)).or_default() += row.events;
        }
    }
    [totals, hours]
}

fn expected(logs: &[Vec<Event>]) -> BTreeMap<(u128, String), u64> {
    let mut by_id = BTreeMap::new();
    for event in logs.iter().flatten() {
        by_id.insert(event.id, (event.owner.as_ref().unwrap().user_id.as_u128(), event.event_type.clone()));
    }
    let mut sums = BTreeMap::new();
    for key in by_id.into_values() {
        *sums.entry(key).or_default() += 1;
    }
    sums
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn partitions_that_write_the_same_rows_never_wait_in_a_circle() {
    let database = database().await;
    // The user of an even identity is the same in every partition, so that a repetition is one.
    let logs: Vec<Vec<Event>> = (0..4).map(|number| repeated(log(number, None))).collect();
    let tasks: Vec<_> = (0..8)
        .map(|task| tokio::spawn(work_off(replica(&database, 2), task % 4, logs[task as usize % 4].clone())))
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 0, "nobody was chosen as a victim");
    }
    let want = expected(&logs);
    assert_eq!(counted(&replica(&database, 1)).await, [want.clone(), want]);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(number(&database, deadlocks).await, 0);
}

/// Events with the same identity are the same event.
fn repeated(mut log: Vec<Event>) -> Vec<Event> {
    for (index, event) in log.iter_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
        let user = Uuid::from_u128((index as u128 * 7) % 5);
        event.owner = Some(Owner { tenant: "default".to_owned(), user_id: user });
    }
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn a_user_erased_in_one_partition_is_counted_in_none() {
    for _ in 0..5 {
        let database = database().await;
        // One partition erases, three count for the same user meanwhile.
        let logs: Vec<_> = (0..4).map(|number| log(number, (number == 0).then_some(3))).collect();
        let tasks: Vec<_> = logs
            .into_iter()
            .zip(0..)
            .map(|(log, number)| tokio::spawn(work_off(replica(&database, 2), number, log)))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let [totals, hours] = counted(&replica(&database, 1)).await;
        assert!(totals.keys().chain(hours.keys()).all(|(user, _)| *user != 3), "{totals:?}");
        assert_eq!(totals, hours);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a real server: make e2e-services"]
async fn killed_connections_count_nothing_twice_and_lose_nothing() {
    let database = database().await;
    let stop = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (database, stop) = (database.clone(), Arc::clone(&stop));
        async move {
            let mut connection = PgConnection::connect(database.expose_secret()).await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .execute(&mut connection)
                .await
                .unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let logs: Vec<Vec<Event>> = (0..3).map(|number| repeated(log(number, None))).collect();
    let tasks: Vec<_> = (0..6)
        .map(|task| tokio::spawn(work_off(replica(&database, 2), task % 3, logs[task as usize % 3].clone())))
        .collect();
    let mut failures = 0;
    for task in tasks {
        failures += task.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    killer.await.unwrap();
    assert!(failures > 0, "the test hit nothing");
    let want = expected(&logs);
    assert_eq!(counted(&replica(&database, 1)).await, [want.clone(), want]);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn letters_with_what_text_cannot_hold_are_kept_and_pruning_takes_any_number() {
    let store = replica(&database().await, 2);
    let letter = DeadLetter { reason: "a\0b".to_owned(), payload: "\0".to_owned() };
    let at = Timestamp::from_second(100).unwrap();
    let many = PRUNED_AT_ONCE.unsigned_abs() * 2 + 1;
    let mut records = vec![Record { position: 1, content: Err(letter) }];
    records.extend((2..=many).map(|position| Record {
        position,
        content: Err(DeadLetter { reason: "r".to_owned(), payload: "p".to_owned() }),
    }));
    store.apply(Batch { partition: partition(0), after: 0, records, at }).await.unwrap();
    let kept = store.dead_letters(u32::try_from(many).unwrap()).await.unwrap();
    assert_eq!(
        kept.last().map(|(position, letter)| (*position, letter.reason.as_str())),
        Some((1, "a\u{fffd}b"))
    );
    let later = Timestamp::from_second(200).unwrap();
    let all = Retention { seen_before: later, dead_before: later, erased_before: later, hours_before: 0 };
    assert_eq!(store.prune(all).await.unwrap() as u64, many);
}
