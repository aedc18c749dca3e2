//! Acts that are no deploy, and where everything is kept.

use std::os::unix::fs::PermissionsExt as _;

use mlctl::error::ExitStatus;
use serde_json::{Value, json};

use crate::seal::{Seal, Told, assert_told};

fn document(told: &Told) -> Value {
    serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {}", told.whole()))
}

#[tokio::test]
async fn migrations_are_told_as_one_document() {
    let seal = Seal::new("healthy.toml");
    let folder = seal.path("migrations/sqlite");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["0001_things", "0002_more"] {
        std::fs::write(folder.join(format!("{name}.up.sql")), "SELECT 1;").unwrap();
        std::fs::write(folder.join(format!("{name}.down.sql")), "SELECT 2;").unwrap();
    }
    seal.edit("    command: [api,", "    migrations: migrations\n    command: [api,");
    assert_eq!(seal.mlctl(&["deploy"]).await.status, ExitStatus::Done);
    let told = async |args: &[&str]| document(&seal.mlctl(args).await);
    let none: [&str; 0] = [];
    assert_eq!(
        told(&["db", "migrate", "-o", "json"]).await,
        json!([{"service": "api", "migrations": none, "done": "applied"}])
    );
    let last = json!(["0002_more"]);
    assert_eq!(
        told(&["db", "rollback", "api", "--dry-run", "-o", "json"]).await,
        json!([{"service": "api", "migrations": last, "done": "would take back"}])
    );
    assert_eq!(seal.mlctl(&["db", "rollback", "api"]).await.status, ExitStatus::Refused);
    assert_eq!(seal.mlctl(&["db", "status"]).await.status, ExitStatus::Done, "nothing was taken back yet");
    assert_eq!(
        told(&["db", "rollback", "api", "--yes", "-o", "json"]).await,
        json!([{"service": "api", "migrations": last, "done": "took back"}])
    );
    assert_eq!(seal.mlctl(&["db", "status"]).await.status, ExitStatus::Pending);
    assert_eq!(
        told(&["db", "migrate", "-o", "json"]).await,
        json!([{"service": "api", "migrations": last, "done": "applied"}])
    );
    assert_eq!(told(&["runs", "-o", "json"]).await["lock"], Value::Null, "the lease is given back");
}

#[tokio::test]
async fn maintenance_is_kept_until_ended_and_a_dry_run_changes_nothing() {
    // No gateway runs here that could show it: the override waits for one.
    let seal = Seal::new("healthy.toml");
    let on =
        async || document(&seal.mlctl(&["maintenance", "status", "-o", "json"]).await)["maintenance"].clone();
    let told = seal.mlctl(&["maintenance", "on", "--message", "back at noon", "--dry-run"]).await;
    assert_eq!(told.stdout, "would turn maintenance on: back at noon\n");
    assert_eq!(on().await, false);
    assert_told("maintenance", &seal.mlctl(&["maintenance", "on", "--reason", "moving house"]).await);
    assert_told("status-with-an-override", &seal.mlctl(&["status"]).await);
    seal.mlctl(&["maintenance", "off", "--dry-run"]).await;
    assert_eq!(on().await, true);
    seal.mlctl(&["maintenance", "off"]).await;
    assert_eq!(on().await, false);
}

#[tokio::test]
async fn a_plan_tells_of_a_way_back_only_where_there_could_be_one() {
    let seal = Seal::new("healthy.toml");
    seal.mlctl(&["deploy"]).await;
    let told = seal.mlctl(&["scale", "api=3", "--dry-run"]).await;
    assert!(told.stdout.ends_with("1 change\n"), "{}", told.whole());
}

#[tokio::test]
async fn journals_are_for_their_owner_alone() {
    let seal = Seal::new("healthy.toml");
    seal.mlctl(&["deploy"]).await;
    let mut folders = vec![seal.path("state")];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            files += 1;
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", entry.path().display());
        }
    }
    assert_eq!(files, 3, "journal, events and the simulation");
}

#[tokio::test]
async fn a_state_folder_that_cannot_be_had_stops_everything_early() {
    let seal = Seal::new("healthy.toml");
    let target = ["--target", "sim:healthy.toml"];
    std::fs::write(seal.path("file"), "").unwrap();
    let in_a_file = seal.path("file").display().to_string();
    let told = seal.with_env(&[("MLCTL_STATE", &in_a_file)], &[&["deploy"][..], &target].concat()).await;
    assert_eq!(told.status, ExitStatus::Failed, "{}", told.whole());
    assert!(
        told.stderr.contains("nothing was changed") && told.stderr.contains("$MLCTL_STATE"),
        "{}",
        told.whole()
    );
    assert_eq!(told.stderr.matches("Not a directory").count(), 1, "a cause is told once: {}", told.whole());

    let homeless: &[_] = &[("HOME", ""), ("MLCTL_STATE", "")];
    let told = seal.with_env(homeless, &[&["status"][..], &target].concat()).await;
    assert_eq!(told.status, ExitStatus::Refused);
    assert!(told.stderr.contains("MLCTL_STATE="), "{}", told.whole());
    assert_eq!(seal.with_env(homeless, &["version"]).await.status, ExitStatus::Done, "it keeps nothing");
}

#[tokio::test]
async fn a_lock_is_shown_and_released_by_the_rules() {
    let seal = Seal::new("healthy.toml");
    assert_told("lock-free", &seal.mlctl(&["lock", "show"]).await);
    let free = document(&seal.mlctl(&["lock", "show", "-o", "json"]).await);
    assert_eq!(
        (&free["held"], &free["standing"], &free["line"]),
        (&false.into(), &"free".into(), &json!([]))
    );
    assert_eq!(document(&seal.mlctl(&["lock", "release", "-o", "json"]).await)["released"], false);

    // Another deploy, killed on another machine while it held the lock, and one that waits behind it.
    seal.mlctl(&["deploy"]).await;
    let request = |run: &str| {
        json!({"operation": "deploy", "operator": {"name": "bob", "host": "elsewhere"}, "run": run, "pid": 42,
               "pid_start": 1, "ttl": 3_600_000})
    };
    seal.world(|world| {
        let since = "2026-01-01T00:00:00Z";
        let holder = json!({"request": request("run-of-bob"), "since": since, "expires": "2026-01-01T01:00:00Z", "fence": 9});
        world["lease"] = json!({"holder": holder, "dead": false});
        world["fence"] = json!(9);
        world["line"] = json!([{"waiter": {"ticket": 3, "request": request("another-of-bob"), "since": since}, "asked_ms": 0}]);
    });
    assert_told("lock-held", &seal.mlctl(&["lock", "show"]).await);
    assert_told("lock-not-released", &seal.mlctl(&["lock", "release"]).await);
    let told = seal.mlctl(&["lock", "release", "--force"]).await;
    assert_eq!(told.status, ExitStatus::Refused, "{}", told.whole());
    let told = seal.mlctl(&["scale", "api=3"]).await;
    assert_eq!(told.status, ExitStatus::Locked, "{}", told.whole());
    assert!(told.stderr.contains("the target is locked: deploy by bob@elsewhere"), "{}", told.whole());
    assert!(told.stderr.contains("; 1 in line for it"), "{}", told.whole());
    let told = seal.mlctl(&["scale", "api=3", "--wait-lock", "1s"]).await;
    assert_eq!(told.status, ExitStatus::Locked, "{}", told.whole());
    assert!(told.stderr.contains(", place 2 of 2 in line since"), "{}", told.whole());
    let told = document(&seal.mlctl(&["lock", "release", "--force", "--yes", "-o", "json"]).await);
    assert_eq!((&told["released"], &told["holder"]["fence"]), (&true.into(), &9.into()));
    // The one in line comes first all the same.
    let state = document(&seal.mlctl(&["lock", "show", "-o", "json"]).await);
    assert_eq!((&state["standing"], &state["line"][0]["ticket"]), (&"free".into(), &3.into()), "{state:#}");
    assert_eq!(state["line"].as_array().map(Vec::len), Some(1), "who stopped waiting has left: {state:#}");
    assert_eq!(seal.mlctl(&["scale", "api=3"]).await.status, ExitStatus::Locked);
}
