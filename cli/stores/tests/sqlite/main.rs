//! Migrations on real SQLite files.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on panics; clippy knows only test functions as tests"
)]

mod lease;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::clock::Clock;
use mlctl_core::item::{Digest, Item, ItemId, ItemKind, Tier};
use mlctl_core::ports::{MigrationFile, MigrationState, StoreAdmin, StoreError};
use mlctl_stores::{MigrationSet, SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use self::lease::Ours;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }
}

fn store() -> SqliteStore {
    SqliteStore::new(Arc::new(Noon)).with_busy_timeout(Duration::from_millis(50))
}

fn file(version: u32, up: &str, down: Option<&str>) -> MigrationFile {
    MigrationFile { version, name: format!("step{version}"), up: up.into(), down: down.map(Into::into) }
}

fn three() -> Vec<MigrationFile> {
    vec![
        file(1, "CREATE TABLE a (id INTEGER PRIMARY KEY);", Some("DROP TABLE a;")),
        file(2, "CREATE TABLE b (a INTEGER REFERENCES a (id));", Some("DROP TABLE b;")),
        file(3, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1);", None),
    ]
}

fn item(path: &Path, service: &str, files: Vec<MigrationFile>) -> Item {
    let set = MigrationSet { service: service.into(), url: format!("sqlite:{}", path.display()), files };
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

/// A folder with a database that is not there yet.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("store.db")
    }

    fn item(&self, files: Vec<MigrationFile>) -> Item {
        item(&self.path(), "api", files)
    }

    fn open(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn tables(&self) -> Vec<String> {
        let connection = self.open();
        let mut statement =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    }
}

fn applied(states: &[MigrationState]) -> Vec<u32> {
    states.iter().filter(|s| s.applied_at.is_some()).map(|s| s.version).collect()
}

#[tokio::test]
async fn pending_migrations_are_applied_once_and_remembered() {
    let place = Place::new();
    let item = place.item(three());
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [1, 2, 3]);
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [0u32; 0], "a second run changes nothing");
    let states = store().migrations(&item).await.unwrap();
    assert_eq!(applied(&states), [1, 2, 3]);
    assert_eq!(states[0].applied_at, Some(Noon.now()));
    assert!(states.iter().all(|s| !s.changed && s.service == "api"));
    let mode: String = place.open().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn asking_creates_nothing() {
    let place = Place::new();
    let item = place.item(three());
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [0u32; 0]);
    assert!(!place.path().exists());
    place.open().execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    assert_eq!(store().migrations(&item).await.unwrap().len(), 3);
    assert_eq!(place.tables(), ["other"]);
}

#[tokio::test]
async fn asking_and_having_nothing_to_do_work_while_another_writes() {
    let place = Place::new();
    let item = place.item(three());
    store().migrate(&item, &Ours).await.unwrap();
    let writer = place.open();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2, 3]);
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [0u32; 0]);
}

#[tokio::test]
async fn services_share_a_database_without_meeting() {
    let place = Place::new();
    let one =
        item(&place.path(), "one", vec![file(1, "CREATE TABLE one (id INTEGER)", Some("DROP TABLE one"))]);
    let two =
        item(&place.path(), "two", vec![file(1, "CREATE TABLE two (id INTEGER)", Some("DROP TABLE two"))]);
    store().migrate(&one, &Ours).await.unwrap();
    store().migrate(&two, &Ours).await.unwrap();
    assert_eq!(store().roll_back(&one, 1, &Ours).await.unwrap(), [1]);
    assert_eq!(place.tables(), ["schema_migrations", "two"]);
    assert_eq!(applied(&store().migrations(&two).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_failing_migration_leaves_no_trace_and_those_before_it_stay() {
    let place = Place::new();
    let mut files = three();
    files[1].up = "CREATE TABLE b (id INTEGER); INSERT INTO nowhere VALUES (1);".into();
    let item = place.item(files);
    let error = store().migrate(&item, &Ours).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "migrate api 0002_step2.up.sql: statement 2, `INSERT INTO nowhere VALUES (1);`: no such table: nowhere \
         (number 0001 is done and stays so)"
    );
    assert!(!error.unreachable);
    assert_eq!(place.tables(), ["a", "schema_migrations"]);
    // Put right, it goes on where it stopped.
    assert_eq!(store().migrate(&place.item(three()), &Ours).await.unwrap(), [2, 3]);
}

#[tokio::test]
async fn a_syntax_error_is_told_with_its_place() {
    let place = Place::new();
    let item =
        place.item(vec![file(1, "CREATE TABLE a (id INTEGER);\nCREATE TABEL b (id INTEGER);\n-- end", None)]);
    let error = store().migrate(&item, &Ours).await.unwrap_err();
    assert_eq!(
        error.reason,
        "statement 2, `CREATE TABEL b (id INTEGER);`: near \"TABEL\": syntax error, at `TABEL b (id INTEGER);`"
    );
}

#[tokio::test]
async fn an_edited_migration_stops_everything() {
    let place = Place::new();
    let mut files = three();
    store().migrate(&place.item(files.drain(..2).collect()), &Ours).await.unwrap();
    let mut edited = three();
    edited[1].up.push_str(" -- more");
    let item = place.item(edited);
    let states = store().migrations(&item).await.unwrap();
    assert_eq!(states.iter().map(|s| s.changed).collect::<Vec<_>>(), [false, true, false]);
    for error in [
        store().migrate(&item, &Ours).await.unwrap_err(),
        store().roll_back(&item, 1, &Ours).await.unwrap_err(),
    ] {
        assert_eq!(
            error.reason,
            "`0002_step2.up.sql` was changed after it was applied on 2026-11-24T12:00:00Z: \
             put its old text back and write a new migration"
        );
    }
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn line_ends_of_another_checkout_are_no_edit() {
    let place = Place::new();
    store()
        .migrate(&place.item(vec![file(1, "CREATE TABLE a (\n id INTEGER);\n", None)]), &Ours)
        .await
        .unwrap();
    let item = place.item(vec![file(1, "CREATE TABLE a (\r\n id INTEGER);\r\n", None)]);
    assert!(!store().migrations(&item).await.unwrap()[0].changed);
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [0u32; 0]);
}

#[tokio::test]
async fn a_migration_cannot_leave_its_transaction() {
    for sql in [
        "CREATE TABLE b (id INTEGER); COMMIT; CREATE TABLE c (id INTEGER);",
        "ROLLBACK;",
        "BEGIN; CREATE TABLE b (id INTEGER); END;",
        "ATTACH 'other.db' AS other;",
    ] {
        let place = Place::new();
        let error = store().migrate(&place.item(vec![file(1, sql, None)]), &Ours).await.unwrap_err();
        assert!(error.reason.contains("it begins or ends a transaction"), "{sql}: {error}");
        assert_eq!(place.tables(), [""; 0], "{sql}");
    }
}

#[tokio::test]
async fn a_table_can_be_rebuilt_without_losing_what_refers_to_it() {
    let place = Place::new();
    let mut files = three();
    files.push(file(
        4,
        "CREATE TABLE new (id INTEGER PRIMARY KEY, note TEXT);
         INSERT INTO new (id) SELECT id FROM a; DROP TABLE a; ALTER TABLE new RENAME TO a;",
        None,
    ));
    store().migrate(&place.item(files), &Ours).await.unwrap();
    let rows: i64 = place.open().query_row("SELECT count(*) FROM b", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn rows_that_refer_to_nothing_are_refused_unless_they_were_there_before() {
    let place = Place::new();
    let mut files = three();
    files.push(file(4, "DELETE FROM a;", None));
    let error = store().migrate(&place.item(files.clone()), &Ours).await.unwrap_err();
    assert!(error.reason.starts_with("it leaves rows in `b` that refer to missing rows of `a`"), "{error}");
    // Another program broke it: a migration that has nothing to do with it goes on.
    place.open().execute_batch("PRAGMA foreign_keys = off; INSERT INTO b VALUES (99);").unwrap();
    files[3].up = "CREATE TABLE c (id INTEGER);".into();
    assert_eq!(store().migrate(&place.item(files), &Ours).await.unwrap(), [4]);
}

#[tokio::test]
async fn a_busy_database_is_waited_for_and_its_holder_named() {
    let place = Place::new();
    let item = place.item(three());
    let writer = place.open();
    writer.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE x (id INTEGER); BEGIN IMMEDIATE").unwrap();
    let error = store().migrate(&item, &Ours).await.unwrap_err();
    assert!(error.unreachable);
    assert!(error.reason.contains("was locked by another writer for 0.05 s; "), "{error}");
    if cfg!(target_os = "linux") {
        assert!(error.reason.contains(&format!("(pid {})", std::process::id())), "{error}");
    }
    // One that ends in time is no error.
    let waiting = tokio::spawn(async move { SqliteStore::new(Arc::new(Noon)).migrate(&item, &Ours).await });
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn two_at_once_apply_each_migration_once() {
    let place = Place::new();
    let store = SqliteStore::new(Arc::new(Noon));
    let item = place.item(three());
    let (one, other) = tokio::join!(store.migrate(&item, &Ours), store.migrate(&item, &Ours));
    let mut all = [one.unwrap(), other.unwrap()].concat();
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
}

#[tokio::test]
async fn what_a_newer_release_applied_is_told_and_blocks_nothing() {
    let place = Place::new();
    store().migrate(&place.item(three()), &Ours).await.unwrap();
    let older = place.item(three().drain(..2).collect());
    let states = store().migrations(&older).await.unwrap();
    assert_eq!(applied(&states), [1, 2, 3]);
    assert_eq!((states[2].name.as_str(), states[2].changed), ("step3", false));
    assert_eq!(store().migrate(&older, &Ours).await.unwrap(), [0u32; 0]);
    let error = store().roll_back(&older, 1, &Ours).await.unwrap_err();
    assert!(error.reason.starts_with("0003_step3 is newer than this release"), "{error}");
}

#[tokio::test]
async fn a_failing_way_back_is_told_by_its_own_file() {
    let place = Place::new();
    let item = place.item(vec![file(1, "CREATE TABLE a (id INTEGER);", Some("DROP TABLE nowhere;"))]);
    store().migrate(&item, &Ours).await.unwrap();
    let error = store().roll_back(&item, 1, &Ours).await.unwrap_err();
    assert_eq!(error.subject, "api 0001_step1.down.sql");
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_rollback_goes_newest_first_and_only_where_a_way_back_exists() {
    let place = Place::new();
    let error = {
        let item = place.item(three());
        store().migrate(&item, &Ours).await.unwrap();
        store().roll_back(&item, 2, &Ours).await.unwrap_err()
    };
    assert!(error.reason.starts_with("0003_step3 has no way back"), "{error}");
    assert_eq!(place.tables(), ["a", "b", "schema_migrations"]);

    let mut files = three();
    files[2].down = Some("DELETE FROM b; DELETE FROM a;".into());
    let item = place.item(files);
    assert_eq!(store().roll_back(&item, 0, &Ours).await.unwrap(), [0u32; 0]);
    assert_eq!(store().roll_back(&item, 2, &Ours).await.unwrap(), [3, 2]);
    assert_eq!(place.tables(), ["a", "schema_migrations"]);
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1]);
    let error = store().roll_back(&item, 2, &Ours).await.unwrap_err();
    assert_eq!(error.to_string(), "roll back api: 2 steps back are asked for and 1 are applied");
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [2, 3]);
}

#[tokio::test]
async fn a_failing_way_back_keeps_the_migration() {
    let place = Place::new();
    let item = place.item(vec![file(1, "CREATE TABLE a (id INTEGER)", Some("DROP TABLE wrong"))]);
    store().migrate(&item, &Ours).await.unwrap();
    let error = store().roll_back(&item, 1, &Ours).await.unwrap_err();
    assert!(error.reason.contains("no such table: wrong"), "{error}");
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_history_with_a_hole_is_not_continued() {
    let place = Place::new();
    let item = place.item(three());
    store().migrate(&item, &Ours).await.unwrap();
    place.open().execute("DELETE FROM schema_migrations WHERE version = 2", []).unwrap();
    let error = store().migrate(&item, &Ours).await.unwrap_err();
    assert!(error.reason.starts_with("number 0002 is not applied but 0003_step3 is"), "{error}");
}

#[tokio::test]
async fn unusable_databases_say_what_to_do() {
    async fn told(path: &Path) -> StoreError {
        store().migrate(&item(path, "api", three()), &Ours).await.unwrap_err()
    }
    let place = Place::new();
    let error = told(&place.folder.path().join("gone/store.db")).await;
    assert!(error.unreachable && error.reason.contains("deploy the infrastructure phase first"), "{error}");
    std::fs::write(place.path(), [b'x'; 4096]).unwrap();
    let error = told(&place.path()).await;
    assert!(error.reason.ends_with("is not a SQLite database"), "{error}");
}

#[tokio::test]
async fn other_urls_and_payloads_are_refused_without_showing_a_password() {
    let mut item = Place::new().item(three());
    for (url, scheme) in [
        ("postgresql://u:secret@db/x", "postgresql:..."),
        ("sqlite:", "sqlite:..."),
        ("x", "`:..."),
        ("sqlite::memory:", "sqlite:..."),
    ] {
        item.payload["url"] = url.into();
        let error = store().migrations(&item).await.unwrap_err().to_string();
        assert!(error.contains(scheme) && !error.contains("secret"), "{url}: {error}");
    }
    item.payload["url"] = "sqlite:x".into();
    item.payload["files"].as_array_mut().unwrap().remove(0);
    let error = store().migrations(&item).await.unwrap_err();
    assert_eq!(error.reason, "`0002_step2.up.sql` stands where number 0001 should be");
    item.payload = serde_json::json!({});
    assert!(store().migrations(&item).await.unwrap_err().reason.contains("deploy again"));
}
