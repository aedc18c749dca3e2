//! The pool and the event log, also as several processes would use them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use service_kit::clock::Clock;
use service_kit::eventlog::{EventLog, ML_EVENTS, NewRecord};
use service_kit::sqlite::{Pool, SqliteError};
use service_kit::{ApiError, Metrics};

fn record(id: &str) -> NewRecord {
    NewRecord {
        id: id.to_owned(),
        payload: json!({"id": id}),
        headers: [("traceparent".to_owned(), "00-1".to_owned())].into(),
    }
}

#[tokio::test]
async fn events_come_back_in_order_from_any_offset() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, _) = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
    let log = EventLog::open(folder.path(), clock.clone()).await.unwrap();
    assert_eq!(log.head(ML_EVENTS).await.unwrap(), 0);
    assert_eq!(log.append(ML_EVENTS, "k1", vec![record("a"), record("b")]).await.unwrap(), 2);
    assert_eq!(log.append(ML_EVENTS, "k2", vec![record("c")]).await.unwrap(), 3);
    log.append("other", "k", vec![record("x")]).await.unwrap();

    let ids = |records: Vec<service_kit::eventlog::Record>| {
        records.into_iter().map(|record| (record.offset, record.id, record.key)).collect::<Vec<_>>()
    };
    let owned = |offset, id: &str, key: &str| (offset, id.to_owned(), key.to_owned());
    let all = log.read(ML_EVENTS, 0, 10).await.unwrap();
    assert_eq!(all[0].payload, json!({"id": "a"}));
    assert_eq!(all[0].headers["traceparent"], "00-1");
    assert_eq!(all[0].appended_at, clock.now());
    assert_eq!(ids(all), [owned(1, "a", "k1"), owned(2, "b", "k1"), owned(3, "c", "k2")]);
    assert_eq!(ids(log.read(ML_EVENTS, 1, 1).await.unwrap()), [owned(2, "b", "k1")]);
    assert!(log.read(ML_EVENTS, 3, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_group_keeps_its_place_and_never_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
    log.append(ML_EVENTS, "k", vec![record("a"), record("b"), record("c")]).await.unwrap();
    assert_eq!(log.lag("analytics", ML_EVENTS).await.unwrap(), 3);
    log.commit("analytics", ML_EVENTS, 2).await.unwrap();
    log.commit("analytics", ML_EVENTS, 1).await.unwrap();
    assert_eq!(log.committed("analytics", ML_EVENTS).await.unwrap(), 2);
    assert_eq!(log.committed("others", ML_EVENTS).await.unwrap(), 0);

    // Another process, or the same one later.
    let again = EventLog::open(folder.path(), Clock::system()).await.unwrap();
    assert_eq!(again.lag("analytics", ML_EVENTS).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_leave_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    // Each with its own connections, as replicas have.
    let logs = join_all((0..4).map(|_| EventLog::open(folder.path(), Clock::system()))).await;
    let writers = logs.into_iter().enumerate().map(|(writer, log)| {
        let log = log.unwrap();
        tokio::spawn(async move {
            for index in 0..25 {
                log.append(ML_EVENTS, "k", vec![record(&format!("{writer}-{index}"))]).await.unwrap();
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
    let offsets: Vec<u64> =
        log.read(ML_EVENTS, 0, 1000).await.unwrap().iter().map(|record| record.offset).collect();
    assert_eq!(offsets, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::new("test", &folder.path().join("deep/er/test.db"), 2);
    pool.call(|c| Ok::<_, SqliteError>(c.execute_batch("CREATE TABLE t (x INTEGER PRIMARY KEY)")?))
        .await
        .unwrap();
    let failed = pool
        .write(|tx| {
            tx.execute("INSERT INTO t VALUES (1)", [])?;
            tx.execute("INSERT INTO t VALUES (1)", [])?;
            Ok::<_, SqliteError>(())
        })
        .await;
    assert!(failed.unwrap_err().is_duplicate());
    let refused = pool
        .write(|tx| {
            tx.execute("INSERT INTO t VALUES (2)", []).map_err(SqliteError::from)?;
            Err::<(), _>(ApiError::conflict("changed_my_mind", "No."))
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), "changed_my_mind");
    let count: i64 = pool
        .call(|c| Ok::<_, SqliteError>(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_in_use_says_busy_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::new("postgresql", &folder.path().join("test.db"), 1);
    let metrics = Metrics::new();
    service_kit::pools::register(&metrics, &[&pool]);
    assert!(metrics.encode().contains("database_connections_active{store=\"postgresql\"} 0"));
    let (release, held) = std::sync::mpsc::channel::<()>();
    let entered = Arc::new(tokio::sync::Notify::new());
    let holder = tokio::spawn({
        let (pool, entered) = (pool.clone(), entered.clone());
        async move {
            pool.call(move |_| {
                entered.notify_one();
                held.recv().ok();
                Ok::<_, SqliteError>(())
            })
            .await
        }
    });
    entered.notified().await;
    assert!(metrics.encode().contains("database_connections_active{store=\"postgresql\"} 1"));
    assert!(metrics.encode().contains("database_connections_max{store=\"postgresql\"} 1"));
    let waited = tokio::time::timeout(Duration::from_secs(10), pool.is_reachable()).await.unwrap();
    assert!(waited.unwrap_err().starts_with("no connection to postgresql became free"));
    assert!(metrics.encode().contains("database_acquire_wait_seconds_count{store=\"postgresql\"} 1"));
    release.send(()).unwrap();
    holder.await.unwrap().unwrap();
    pool.is_reachable().await.unwrap();
    assert!(metrics.encode().contains("database_connections_active{store=\"postgresql\"} 0"));
}

#[tokio::test]
async fn missing_tables_are_named_and_panics_give_the_connection_up() {
    let folder = tempfile::tempdir().unwrap();
    let pool = Pool::new("test", &folder.path().join("test.db"), 1);
    let missing = pool.has_tables(&["users"]).await.unwrap_err();
    assert_eq!(missing, "waiting for the migrations: table users does not exist");

    let migrations = folder.path().join("migrations");
    std::fs::create_dir(&migrations).unwrap();
    std::fs::write(migrations.join("0001_users.up.sql"), "CREATE TABLE users (id TEXT);").unwrap();
    std::fs::write(migrations.join("0001_users.down.sql"), "DROP TABLE users;").unwrap();
    service_kit::testing::migrate(pool.path(), &migrations).unwrap();
    pool.has_tables(&["users"]).await.unwrap();

    let lost = pool.call(|_| -> Result<(), SqliteError> { panic!("a bug in a store") }).await;
    assert!(matches!(lost, Err(SqliteError::Lost { .. })));
    assert_eq!(pool.active(), 0);
    pool.has_tables(&["users"]).await.unwrap();
    service_kit::testing::migrate_down(pool.path(), &migrations).unwrap();
    pool.has_tables(&["users"]).await.unwrap_err();
}

#[tokio::test]
async fn a_new_file_that_another_process_holds_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    // The lock that a switch to WAL begins with: whoever wants it too is answered "busy" at once.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE things (id INTEGER); BEGIN IMMEDIATE").unwrap();
    let pool = Pool::new("postgresql", &path, 1);
    let mut asked = tokio::spawn(async move { pool.is_reachable().await });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut asked).await;
    assert!(early.is_err(), "it gave up: {early:?}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(asked.await.unwrap(), Ok(()));
}
