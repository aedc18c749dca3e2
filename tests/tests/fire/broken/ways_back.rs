//! Where going back is the question: migrations, gates that could not tell, ways back that are gone.

use std::path::PathBuf;
use std::time::Duration;

use mlctl_tests::{BACK, FRONT, Load, Sandbox, assert_settled, eventually, get, item, note};
use serde_json::Value;

use super::{REPLICAS, a_good_one_works, fails, only, programs, release, whole};
use crate::{deployed, knobs};

/// Gives `back` a database with one migration.
fn with_database(sandbox: &Sandbox) {
    sandbox.edit("targets:\n", "stores:\n  db: {kind: postgresql}\ntargets:\n");
    sandbox.edit_service(
        "back",
        "stop: {grace: 2s}",
        "stop: {grace: 2s}\n    needs: [db]\n    migrations: migrations",
    );
    sandbox.edit_service("back", "    env:\n", "    env:\n      DATABASE_URL: {store: db}\n");
    migration(sandbox, "0001_things", "CREATE TABLE things (id INTEGER PRIMARY KEY);");
}

fn migration(sandbox: &Sandbox, name: &str, sql: &str) {
    let folder = sandbox.system_folder().join("migrations/sqlite");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.up.sql")), sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fails_half_way_leaves_nothing_behind() {
    let sandbox = knobs();
    with_database(&sandbox);
    sandbox.mlctl(&["deploy"]).await.ends(0);
    let whole = whole(&sandbox);
    let three = |second: &str| {
        format!(
            "-- Three statements.\nCREATE TABLE halves (id INTEGER NOT NULL);\n{second};\n\
             CREATE INDEX halves_id ON halves (id);\n"
        )
    };
    release(&sandbox, "two", &[]);
    // One that is no SQL, and one that is and breaks a rule of its table.
    for (second, told) in [
        ("INSERT INTO halfs VALUES (1)", "no such table: halfs"),
        ("INSERT INTO halves VALUES (NULL)", "NOT NULL constraint failed: halves.id"),
    ] {
        migration(&sandbox, "0002_halves", &three(second));
        let evidence = ["0002_halves.up.sql", "statement 2, `INSERT INTO hal", told];
        fails(&sandbox, "a migration that fails half-way", 20, &evidence).await;
        sandbox.mlctl(&["db", "status"]).await.ends(0).says("0001_things").says_not("0002_halves");
        only(&sandbox, REPLICAS).await;
    }
    // Its first statement can only work where it was not applied before.
    migration(&sandbox, "0002_halves", &three("INSERT INTO halves VALUES (1)"));
    a_good_one_works(&sandbox, &whole).await;
    sandbox.mlctl(&["db", "status"]).await.ends(0);
    sandbox.end().await;
}

async fn head(sandbox: &Sandbox) -> Value {
    let history = sandbox.query(&["history"]).await;
    history.as_array().unwrap().iter().find(|release| release["head"] == true).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_could_not_tell_keeps_the_release_and_never_marks_it() {
    let sandbox = deployed().await;
    let kpi = |target: &str| {
        format!(
            "kpis:\n  failures: {{title: Few failures, sli: \"ratio(failed, all)\", target: \"<{target}\", load: errors}}\n\
             load:\n  verify: {{rate: 40/s, duration: 2s, mix: [{{name: root, weight: 1, get: /}}]}}\n"
        )
    };
    // Less than one in a thousand: of eighty requests nobody can say that.
    sandbox.edit("targets:\n", &format!("{}targets:\n", kpi("0.1%")));
    release(&sandbox, "two", &[]);
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 50, false, None);
    sandbox.mlctl(&["deploy"]).await.ends(31).says("inconclusive").says("failures");
    load.stop().await.is_clean();
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n", "it is kept");
    assert_settled(&sandbox.query(&["status"]).await);
    let now = head(&sandbox).await;
    assert_eq!((&now["release"], &now["state"]), (&2.into(), &"unverified".into()), "{now:#}");
    // Asked again it still cannot tell, and is still not marked.
    sandbox.mlctl(&["deploy", "--phase", "verification"]).await.ends(31);
    assert_eq!(head(&sandbox).await["state"], "unverified");
    // It is no release to go back to by default: the one before it is.
    let plan = sandbox.query(&["rollback", "--dry-run"]).await;
    assert_eq!(plan["release"]["rollback_of"], 1, "{plan:#}");
    // With a target that so few requests can prove, it passes.
    sandbox.edit("target: \"<0.1%\"", "target: \"<50%\"");
    sandbox.mlctl(&["deploy", "--phase", "verification"]).await.ends(0);
    assert_eq!(head(&sandbox).await["state"], "verified");
    only(&sandbox, REPLICAS).await;
    sandbox.end().await;
}

/// Makes another build of the program, under another name.
fn build(sandbox: &Sandbox, name: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut program = std::fs::read(env!("CARGO_BIN_EXE_knobs")).unwrap();
    program.extend_from_slice(name.as_bytes());
    let path = sandbox.system_folder().join(name);
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Returns the folders of the kept programs.
fn kept(sandbox: &Sandbox) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(sandbox.local().join("knobs/artifacts")).unwrap().flatten();
    folders.map(|entry| entry.path()).collect()
}

/// Throws a program away, wherever it is kept.
fn lose(sandbox: &Sandbox, name: &str) {
    for folder in kept(sandbox).iter().filter(|folder| folder.join(name).exists()) {
        std::fs::remove_dir_all(folder).unwrap();
    }
    std::fs::remove_file(sandbox.system_folder().join(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_is_lost_on_the_way_is_told_as_such_and_the_old_replicas_serve_on() {
    let sandbox = deployed().await;
    let whole = whole(&sandbox);
    build(&sandbox, "knobs-two");
    release(&sandbox, "two", &[("KNOB_NEVER_READY", "true")]);
    sandbox.edit_service("back", "artifact: knobs", "artifact: knobs-two");
    let load = Load::start(&[sandbox.url(FRONT), sandbox.url(BACK)], 100, false, None);
    let running = sandbox.start(&["deploy"]);
    eventually("the first new replica", Duration::from_secs(30), async || {
        let rolling = sandbox.newest_events().iter().any(|event| {
            event["kind"] == "workload" && event["phase"] == "applications" && event["updated"] == 1
        });
        if rolling { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;
    lose(&sandbox, "knobs");
    let failed = running.finish().await.ends(22);
    let failed = failed.says("going back failed").says("artifact_missing").says("warming up for ever");
    note(&format!("a way back that is gone: told after {:.1?}", failed.took));
    let tally = load.stop().await;
    tally.is_clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["one"]);
    // What is where: the old replicas of the service serve, the new one fails.
    assert_eq!(get(&sandbox.url(BACK)).await.body, "one\n");
    let status = sandbox.query(&["status"]).await;
    assert_ne!(item(&status, "back")["status"], "current", "{status:#}");
    // The program is there again, and so is everything else.
    std::fs::copy(env!("CARGO_BIN_EXE_knobs"), sandbox.system_folder().join("knobs")).unwrap();
    a_good_one_works(&sandbox, &whole).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_whose_program_is_gone_is_no_way_back_and_that_is_said_before_anything_changes() {
    let sandbox = deployed().await;
    build(&sandbox, "knobs-two");
    build(&sandbox, "knobs-three");
    // Release 2 is another build; release 1 loses its program.
    sandbox.edit("artifact: knobs}", "artifact: knobs-two}");
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    lose(&sandbox, "knobs");
    let before = (sandbox.query(&["history"]).await, programs(&sandbox));
    sandbox.mlctl(&["rollback"]).await.ends(3).says("artifact_missing").says("build it again");
    assert_eq!(before, (sandbox.query(&["history"]).await, programs(&sandbox)), "nothing has changed");

    // Release 2, the one that runs and the way back of the next, loses its program too.
    let good = whole(&sandbox);
    sandbox.edit("artifact: knobs-two", "artifact: knobs-three");
    sandbox.edit_service(
        "back",
        "KNOB_VERSION: two",
        "KNOB_VERSION: three\n      KNOB_NEVER_READY: \"true\"",
    );
    lose(&sandbox, "knobs-two");
    let warned = "no automatic rollback: workload/back of release 2 cannot be had: artifact_missing";
    sandbox.mlctl(&["deploy", "--dry-run"]).await.ends(0).says(warned).says("kept for inspection");
    let load = Load::start(&[sandbox.url(BACK)], 100, false, None);
    sandbox.mlctl(&["deploy"]).await.ends(20).says(warned).says("warming up for ever");
    let tally = load.stop().await;
    tally.is_clean();
    assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["two"], "nobody was cut off from what works");
    // The next good one works.
    std::fs::write(
        sandbox.system_file(),
        good.replace("artifact: knobs-two", "artifact: knobs-three")
            .replace("KNOB_VERSION: two", "KNOB_VERSION: four"),
    )
    .unwrap();
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "four\n");
    assert_settled(&sandbox.query(&["status"]).await);
    only(&sandbox, REPLICAS).await;
    sandbox.end().await;
}
