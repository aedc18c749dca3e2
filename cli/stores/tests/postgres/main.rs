//! Migrations on a real PostgreSQL: `MLCTL_TEST_POSTGRESQL_URL`, whose user may make databases.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; clippy knows only test functions as tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::clock::Clock;
use mlctl_core::item::{Digest, Item, ItemId, ItemKind, Tier};
use mlctl_core::ports::{
    ErrorKind, Fence, Lease, MigrationFile, MigrationState, OrchestratorError, StoreAdmin,
};
use mlctl_stores::{MigrationSet, PostgresStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-11-24T12:00:00.25Z".parse().unwrap()
    }
}

/// A lease that can be renewed so often, and is another's then.
struct LostAfter(AtomicU32);

#[async_trait::async_trait]
impl Lease for LostAfter {
    fn fence(&self) -> Fence {
        Fence(1)
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        if self.0.load(Ordering::Relaxed) == 0 {
            let reason = "somebody holds it since noon";
            return Err(OrchestratorError::new(ErrorKind::LeaseLost, "renew", "the lock", reason));
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    async fn belongs_to(&self, _: &str) -> Result<(), OrchestratorError> {
        self.renew().await
    }

    async fn release(&self) -> Result<(), OrchestratorError> {
        Ok(())
    }
}

fn ours() -> LostAfter {
    LostAfter(1_000.into())
}

fn store() -> PostgresStore {
    PostgresStore::new(Arc::new(Noon)).with_lock_wait(Duration::from_millis(200))
}

fn file(version: u32, up: &str, down: Option<&str>) -> MigrationFile {
    MigrationFile { version, name: format!("step{version}"), up: up.into(), down: down.map(Into::into) }
}

fn three() -> Vec<MigrationFile> {
    vec![
        file(1, "CREATE TABLE a (id bigint PRIMARY KEY);", Some("DROP TABLE a;")),
        file(2, "CREATE TABLE b (a bigint REFERENCES a (id)); CREATE INDEX ON b (a);", Some("DROP TABLE b;")),
        file(3, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1);", None),
    ]
}

/// A database of its own on the server.
struct Database {
    url: String,
}

impl Database {
    async fn new(name: &str) -> Self {
        let server = std::env::var("MLCTL_TEST_POSTGRESQL_URL").unwrap_or_else(|_| {
            panic!("MLCTL_TEST_POSTGRESQL_URL is not set: make e2e-services starts a server")
        });
        let (begin, _) = server.rsplit_once('/').unwrap();
        let name = format!("migrations_{name}_{}", std::process::id());
        let mut maintenance = PgConnection::connect(&server).await.unwrap();
        for sql in [format!("DROP DATABASE IF EXISTS {name}"), format!("CREATE DATABASE {name}")] {
            maintenance.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        Self { url: format!("{begin}/{name}") }
    }

    fn item(&self, files: Vec<MigrationFile>) -> Item {
        self.of("api", files)
    }

    fn of(&self, service: &str, files: Vec<MigrationFile>) -> Item {
        let set = MigrationSet { service: service.into(), url: self.url.clone(), files };
        let payload = serde_json::to_value(&set).unwrap();
        Item {
            id: ItemId::new(ItemKind::Migration, service),
            tier: Tier::Applications,
            needs: Vec::new(),
            digest: Digest::of_json(&payload),
            replicas: None,
            progress_deadline_ms: None,
            payload,
        }
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connect().await).await.unwrap()
    }
}

fn applied(states: &[MigrationState]) -> Vec<u32> {
    states.iter().filter(|state| state.applied_at.is_some()).map(|state| state.version).collect()
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn what_is_pending_is_applied_in_order_and_taken_back_in_reverse() {
    let database = Database::new("order").await;
    let item = database.item(three());
    assert!(applied(&store().migrations(&item).await.unwrap()).is_empty());
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.count(tables).await, 0, "reading makes nothing");
    assert_eq!(store().migrate(&item, &ours()).await.unwrap(), [1, 2, 3]);
    assert!(store().migrate(&item, &ours()).await.unwrap().is_empty());
    let states = store().migrations(&item).await.unwrap();
    assert_eq!(states[0].applied_at, Some(Noon.now()));
    // Another service in the same database has a history of its own.
    let other = database.of("web", vec![file(1, "CREATE TABLE w ();", Some("DROP TABLE w;"))]);
    assert_eq!(store().migrate(&other, &ours()).await.unwrap(), [1]);

    let error = store().roll_back(&item, 1, &ours()).await.unwrap_err();
    assert!(error.reason.contains("0003_step3 has no way back"), "{error}");
    let mut with_way_back = three();
    with_way_back[2].down = Some("DELETE FROM b; DELETE FROM a;".to_owned());
    assert_eq!(store().roll_back(&database.item(with_way_back), 3, &ours()).await.unwrap(), [3, 2, 1]);
    assert_eq!(database.count(tables).await, 2, "w and the history");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_migration_that_fails_leaves_nothing_and_names_its_statement() {
    let database = Database::new("fails").await;
    let broken = "CREATE TABLE c ();\n\nINSERT INTO nowhere VALUES (1);";
    let mut files = three();
    files[2] = file(3, broken, None);
    let error = store().migrate(&database.item(files), &ours()).await.unwrap_err();
    let text = error.to_string();
    for part in [
        "api 0003_step3.up.sql",
        "statement 2, `INSERT INTO nowhere VALUES (1);`: ",
        "\"nowhere\" does not exist",
        "0001 to 0002 are done",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert!(!error.unreachable);
    assert_eq!(database.count("SELECT count(*) FROM pg_tables WHERE tablename = 'c'").await, 0);
    // One that ends the transaction itself is told before any of it runs.
    let files = vec![file(1, "CREATE TABLE d (); COMMIT;", None)];
    let error = store().migrate(&database.of("web", files), &ours()).await.unwrap_err();
    assert!(error.reason.starts_with("`COMMIT;`: it begins or ends a transaction"), "{error}");
    assert_eq!(database.count("SELECT count(*) FROM pg_tables WHERE tablename = 'd'").await, 0);
    // One that was edited after it was applied is refused.
    let mut edited = three();
    edited[0].up.push_str(" -- edited");
    let error = store().migrate(&database.item(edited), &ours()).await.unwrap_err();
    assert!(error.reason.contains("was changed after it was applied"), "{error}");
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn nothing_is_committed_without_the_lease() {
    let database = Database::new("lease").await;
    let item = database.item(three());
    let error = store().migrate(&item, &LostAfter(2.into())).await.unwrap_err();
    assert_eq!(
        error.reason,
        "nothing was committed: renew the lock: somebody holds it since noon (numbers 0001 to 0002 are done and \
         stay so)"
    );
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2]);
    store().roll_back(&item, 1, &LostAfter(0.into())).await.unwrap_err();
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2]);
    assert_eq!(store().migrate(&item, &ours()).await.unwrap(), [3], "and the database is free for the next");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn many_at_once_apply_each_migration_once() {
    let database = Arc::new(Database::new("race").await);
    let files: Vec<_> =
        (1..=6).map(|n| file(n, &format!("CREATE TABLE t{n} (); SELECT pg_sleep(0.02);"), None)).collect();
    let patient = PostgresStore::new(Arc::new(Noon));
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (store, item) = (patient.clone(), database.item(files.clone()));
            tokio::spawn(async move { store.migrate(&item, &ours()).await })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap().unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn an_index_is_made_outside_a_transaction_and_a_held_table_is_not_waited_for_long() {
    let database = Database::new("alone").await;
    let alone = |sql: &str| format!("-- mlctl: no-transaction\n{sql}");
    let files = vec![
        file(1, "CREATE TABLE a (id bigint);", None),
        file(
            2,
            &alone("CREATE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);"),
            Some(&alone("DROP INDEX CONCURRENTLY IF EXISTS a_id;")),
        ),
        file(3, "ALTER TABLE a ADD b text;", Some("ALTER TABLE a DROP b;")),
    ];
    let item = database.item(files.clone());
    assert_eq!(store().migrate(&database.item(files[..2].to_vec()), &ours()).await.unwrap(), [1, 2]);
    let mut reader = database.connect().await;
    let mut held = reader.begin().await.unwrap();
    held.execute("SELECT * FROM a").await.unwrap();
    let error = store().migrate(&item, &ours()).await.unwrap_err();
    assert!(error.reason.contains("another session holds a lock on what it changes"), "{error}");
    held.rollback().await.unwrap();
    assert_eq!(store().migrate(&item, &ours()).await.unwrap(), [3]);
    assert_eq!(store().roll_back(&item, 2, &ours()).await.unwrap(), [3, 2]);
    assert_eq!(database.count("SELECT count(*) FROM pg_indexes WHERE indexname = 'a_id'").await, 0);
}

/// A runner that waits in the server would hold a snapshot that the other's index waits for, and each would wait for the
/// other until the server ends one of them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_runner_that_waits_does_not_hold_up_an_index_that_is_made_meanwhile() {
    let database = Database::new("snapshot").await;
    let slow = "-- mlctl: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (slowly(id));";
    let table = "CREATE TABLE a AS SELECT generate_series(1, 3) AS id;
        CREATE FUNCTION slowly(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM pg_sleep(0.3); RETURN n; END $$;";
    let item = database.item(vec![file(1, table, None), file(2, slow, None)]);
    let patient = PostgresStore::new(Arc::new(Noon));
    let (one, other) = {
        let (first, second) = (ours(), ours());
        let (one, other) = tokio::join!(patient.migrate(&item, &first), patient.migrate(&item, &second));
        (one.unwrap(), other.unwrap())
    };
    let mut all = [one, other].concat();
    all.sort_unstable();
    assert_eq!(all, [1, 2]);
    assert_eq!(database.count("SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn an_index_that_was_half_made_is_made_again_and_what_cannot_be_repeated_is_refused() {
    let database = Database::new("half").await;
    let table = file(1, "CREATE TABLE a AS SELECT 1 AS id FROM generate_series(1, 2);", None);
    let index = |words: &str| {
        file(
            2,
            &format!("-- mlctl: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY {words} a_id ON a (id);"),
            None,
        )
    };
    let item = database.item(vec![table.clone(), index("")]);
    let error = store().migrate(&item, &ours()).await.unwrap_err();
    assert!(error.reason.contains("could not be repeated after a crash"), "{error}");
    let item = database.item(vec![table, index("IF NOT EXISTS")]);
    // As a runner leaves it that dies in the middle: an index of that name that is no index.
    let sql = "CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)";
    assert!(database.connect().await.execute(sql).await.is_err(), "two rows are equal");
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(database.count(invalid).await, 1);
    let error = store().migrate(&item, &ours()).await.unwrap_err();
    assert!(error.reason.contains("could not create unique index"), "{error}");
    assert_eq!(database.count(invalid).await, 0, "a failed one leaves nothing");
    database.connect().await.execute("DELETE FROM a WHERE ctid = '(0,1)'").await.unwrap();
    assert_eq!(store().migrate(&item, &ours()).await.unwrap(), [2]);
    assert_eq!(database.count(invalid).await, 0);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_connection_that_dies_in_the_middle_leaves_nothing() {
    let database = Database::new("dies").await;
    let files = vec![file(1, "CREATE TABLE a (); SELECT pg_terminate_backend(pg_backend_pid());", None)];
    let error = store().migrate(&database.item(files), &ours()).await.unwrap_err();
    assert!(error.unreachable, "{error}");
    assert_eq!(database.count("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await, 0);
    assert_eq!(store().migrate(&database.item(three()), &ours()).await.unwrap(), [1, 2, 3]);
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_dump_that_empties_the_search_path_is_recorded_all_the_same_and_a_password_is_not_told() {
    let database = Database::new("words").await;
    let dump = "SELECT pg_catalog.set_config('search_path', '', false); CREATE TABLE public.a ();";
    let files = vec![file(1, dump, None), file(2, "CREATE TABLE b ();", None)];
    assert_eq!(store().migrate(&database.item(files.clone()), &ours()).await.unwrap(), [1, 2]);
    let mut more = files;
    more.push(file(3, "CREATE ROLE postgres PASSWORD 'hunter2';", None));
    let error = store().migrate(&database.item(more), &ours()).await.unwrap_err().to_string();
    assert!(error.contains("PASSWORD '***'") && !error.contains("hunter2"), "{error}");
}
