//! `--stores real`: PostgreSQL and Redis of this machine as supervised processes, and the way there and back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use mlctl_tests::{Sandbox, ask, eventually, get, item, kill, note, of_folder, repository};
use serde_json::Value;

use crate::{FRONT, assert_settled};

/// What plan, summary and status say.
const STORES: &str = "stores: real (db, cache and state); bus stays embedded";
/// The stores that have a server.
const SERVERS: [&str; 3] = ["db", "cache", "state"];

fn sandbox() -> Sandbox {
    Sandbox::of_fixture("servers", &[])
}

/// The state folder of the fixture's system, or of the shipped one.
fn state(sandbox: &Sandbox) -> PathBuf {
    let shipped = sandbox.local().join("ml-ecosystem");
    if shipped.exists() { shipped } else { sandbox.local().join("visit-shop") }
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn port(sandbox: &Sandbox, store: &str) -> String {
    let record = json(&state(sandbox).join(format!("items/store/{store}.json")));
    record["item"]["payload"]["server"]["port"].as_u64().unwrap().to_string()
}

fn password(sandbox: &Sandbox, store: &str) -> String {
    let path = state(sandbox).join(format!("secrets/{store}.password/current"));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Asks the servers themselves, past the service.
fn sql(sandbox: &Sandbox, password: &str, text: &str) -> Output {
    let (port, name) = (port(sandbox, "db"), "visit_shop");
    let words = ["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", name, "-d", name, "-c", text];
    Command::new("psql").args(words).env("PGPASSWORD", password).output().unwrap()
}

fn row(sandbox: &Sandbox, text: &str) -> String {
    let output = sql(sandbox, &password(sandbox, "db"), text);
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn redis(sandbox: &Sandbox, store: &str, words: &[&str]) -> String {
    let port = port(sandbox, store);
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port]).args(words);
    let output = command.env("REDISCLI_AUTH", password(sandbox, store)).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Visits the shop once; returns what each of its stores has counted.
async fn visit(sandbox: &Sandbox) -> Result<[u64; 3], String> {
    let answer = ask(&format!("{}/visit", sandbox.url(FRONT))).await?;
    let counts: Vec<u64> = answer.body.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let counts = <[u64; 3]>::try_from(counts);
    counts.ok().filter(|_| answer.status == 200).ok_or_else(|| format!("{}: {}", answer.status, answer.body))
}

async fn body(sandbox: &Sandbox) -> String {
    get(&format!("{}/ready", sandbox.url(FRONT))).await.body
}

/// The process of a store's server, as its shim has told it; none when no replica of it runs.
fn process(sandbox: &Sandbox, store: &str) -> Option<i32> {
    let replicas = std::fs::read_dir(state(sandbox).join("replicas")).ok()?.flatten();
    let running = replicas.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.rsplit_once('-').is_some_and(|(service, _)| service == store)
            && !entry.path().join("exit.json").exists()
    });
    let mut told = running.map(|entry| entry.path().join("status.json")).filter(|path| path.exists());
    told.find_map(|path| i32::try_from(json(&path)["program"]["pid"].as_i64()?).ok())
}

fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Returns every file below a folder, but for those whose path has one of these in it.
fn files(folder: &Path, but: &[&str]) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let wanted = entries.filter(|path| !but.iter().any(|part| path.to_string_lossy().contains(part)));
    wanted.flat_map(|path| if path.is_dir() { files(&path, but) } else { vec![path] }).collect()
}

/// Asserts that the passwords are where they have to be and nowhere else.
fn assert_secret(sandbox: &Sandbox) {
    let passwords: Vec<String> = SERVERS.iter().map(|store| password(sandbox, store)).collect();
    assert!(passwords.iter().all(|password| password.len() > 30), "{passwords:?}");
    let holds = |text: &str| passwords.iter().any(|password| text.contains(password.as_str()));
    for process in of_folder(sandbox.root()) {
        assert!(!process.args.iter().any(|word| holds(word)), "{:?}", process.args);
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        assert!(!holds(&String::from_utf8_lossy(&environment)), "the environment of {:?}", process.args);
    }
    // Beside the secret itself: what a replica was given, and what the servers keep.
    let looked = files(sandbox.root(), &["/secrets/", "/env-", "/data/"]);
    assert!(looked.len() > 30, "{looked:?}");
    for path in looked {
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(!holds(&String::from_utf8_lossy(&bytes)), "a password is in {}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of PostgreSQL and Redis: make e2e-services"]
async fn postgresql_and_redis_run_under_supervision_and_the_services_use_them() {
    let sandbox = sandbox();

    // Without its programs nothing is begun, and whoever asked learns what to install.
    let missing = sandbox.start_by(&["env", "PATH=/nowhere"], &["deploy", "--stores", "real"]).finish().await;
    missing.ends(4).says("redis-server").says("/nowhere").says("Debian package").says("store cache");
    assert!(!state(&sandbox).exists());
    sandbox.mlctl(&["deploy", "--stores", "real", "--dry-run"]).await.ends(0).says(STORES).says("store/db");
    assert!(!state(&sandbox).exists());

    sandbox.mlctl(&["deploy", "--stores", "real"]).await.ends(0).says(STORES);
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(visit(&sandbox).await, Ok([1, 1, 1]));
    assert_eq!(visit(&sandbox).await, Ok([2, 2, 2]));
    // It really is in there, under the settings of the system, and nobody else gets in.
    assert_eq!(row(&sandbox, "SELECT count(*) FROM visits"), "2");
    assert_eq!(row(&sandbox, "SHOW max_connections"), "37");
    assert_eq!(
        row(&sandbox, "SELECT extname FROM pg_extension WHERE extname = 'pg_stat_statements'").len(),
        18
    );
    assert_eq!(row(&sandbox, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"), "f");
    assert!(!sql(&sandbox, "wrong", "SELECT 1").status.success());
    assert_eq!(redis(&sandbox, "state", &["GET", "visits"]), "2");
    assert_eq!(redis(&sandbox, "cache", &["CONFIG", "GET", "maxmemory"]), "maxmemory\n16777216");
    let probe = redis(&sandbox, "cache", &["--user", "mlctl-probe", "--pass", "x", "GET", "visits"]);
    assert!(probe.contains("NOPERM"), "{probe}");
    assert_secret(&sandbox);
    let owner =
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(state(&sandbox).join("data/db")).unwrap());
    assert_eq!(
        owner,
        if nix::unistd::geteuid().is_root() { 65_534 } else { nix::unistd::geteuid().as_raw() }
    );
    sandbox.mlctl(&["logs", "db"]).await.ends(0).says("database system is ready to accept connections");
    sandbox.mlctl(&["status", "db"]).await.ends(0).says("store/db").says("ready");
    sandbox.mlctl(&["db", "status"]).await.ends(0).says("0001_visits");

    // Killed, they come back with what they had on the same ports, and no service has to be started again.
    let before: Vec<(String, i32)> =
        SERVERS.iter().map(|store| (port(&sandbox, store), process(&sandbox, store).unwrap())).collect();
    before.iter().for_each(|(_, pid)| kill(*pid));
    let counted =
        eventually("the shop to go on", Duration::from_secs(20), async || visit(&sandbox).await).await;
    assert_eq!(counted[0], 3, "a row is lost, or one too many is there");
    for (store, (port_before, pid)) in SERVERS.iter().zip(&before) {
        assert_eq!(&port(&sandbox, store), port_before);
        assert_ne!(process(&sandbox, store), Some(*pid));
    }
    let replicas = sandbox.query(&["status", "shop"]).await;
    let restarts = replicas["replicas"].as_array().unwrap().iter().map(|r| r["restarts"].as_u64().unwrap());
    assert_eq!(restarts.sum::<u64>(), 0, "{replicas:#}");
    eventually("all to be well", Duration::from_secs(10), async || {
        let status = sandbox.query(&["status"]).await;
        let well = status["items"].as_array().unwrap().iter().all(|item| item["status"] == "current");
        if well { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;

    // How the stores are had is part of the release: a deploy that does not say keeps it.
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    assert_eq!(sandbox.query(&["status"]).await["stores"], "real");

    // Stopped after whoever stands on them, and there again with all they had.
    sandbox.mlctl(&["down", "--yes"]).await.ends(0);
    assert!(before.iter().all(|(_, pid)| !lives(*pid)));
    assert!(SERVERS.iter().all(|store| process(&sandbox, store).is_none()));
    let ended = |service: &str| {
        let text = std::fs::read_to_string(state(&sandbox).join("events.jsonl")).unwrap();
        let of =
            |line: &&str| line.contains(&format!("workload/{service}\"")) && line.contains("\"stopped\"");
        let line =
            text.lines().rfind(of).unwrap_or_else(|| panic!("{service} did not stop: {text}")).to_owned();
        serde_json::from_str::<Value>(&line).unwrap()["at"].as_str().unwrap().to_owned()
    };
    assert!(SERVERS.iter().all(|store| ended(store) > ended("shop")));
    let events = std::fs::read_to_string(state(&sandbox).join("events.jsonl")).unwrap();
    let clean = |line: &&str| line.contains("workload/db\"") && line.contains("\"stopped\"");
    assert!(events.lines().rfind(clean).unwrap().contains("exit code 0"), "{events}");
    sandbox.mlctl(&["deploy"]).await.ends(0).says(STORES);
    assert_eq!(visit(&sandbox).await.map(|counted| counted[0]), Ok(4));

    let pids: Vec<i32> = SERVERS.iter().map(|store| process(&sandbox, store).unwrap()).collect();
    let root = sandbox.local();
    sandbox.mlctl(&["down", "--purge", "--yes"]).await.ends(0);
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0, "something is left");
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of PostgreSQL and Redis: make e2e-services"]
async fn releases_go_between_real_and_embedded_stores_and_back() {
    let sandbox = sandbox();
    sandbox.mlctl(&["deploy"]).await.ends(0).says_not("stores: real");
    assert_eq!(body(&sandbox).await, "embedded");
    let stays = "data does not move";
    sandbox.mlctl(&["deploy", "--stores", "real"]).await.ends(0).says(STORES).says(stays);
    assert_eq!(visit(&sandbox).await, Ok([1, 1, 1]));

    // A release that fails on the way to other stores leaves its services where they were, on servers that run.
    sandbox.edit("BROKEN: \"no\"", "BROKEN: \"yes\"");
    sandbox.mlctl(&["deploy", "--stores", "embedded"]).await.ends(21);
    assert_eq!(visit(&sandbox).await, Ok([2, 2, 2]));
    sandbox.edit("BROKEN: \"yes\"", "BROKEN: \"no\"");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(visit(&sandbox).await, Ok([3, 3, 3]));

    // Nobody needs them any more: they end after the last service that did.
    let pids: Vec<i32> = SERVERS.iter().map(|store| process(&sandbox, store).unwrap()).collect();
    sandbox.mlctl(&["deploy", "--stores", "embedded"]).await.ends(0).says(stays).says_not("stores: real");
    assert_eq!(body(&sandbox).await, "embedded");
    eventually("the servers to end", Duration::from_secs(20), async || {
        if pids.iter().any(|pid| lives(*pid)) { Err(format!("{pids:?}")) } else { Ok(()) }
    })
    .await;
    let status = sandbox.query(&["status"]).await;
    assert_settled(&status);
    assert_eq!((&status["stores"], &item(&status, "db")["desired"]), (&"embedded".into(), &0.into()));
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");

    // A rollback brings the stores of the earlier release back, and all of its services or none.
    sandbox.mlctl(&["rollback", "shop"]).await.ends(40).says("real stores");
    sandbox.mlctl(&["rollback"]).await.ends(0).says(STORES).says(stays);
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(visit(&sandbox).await, Ok([4, 4, 4]));
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    sandbox.end().await;
}

/// What the shipped system keeps, asked of the server itself.
fn shipped_row(sandbox: &Sandbox, text: &str) -> String {
    let (port, name) = (port(sandbox, "postgresql"), "ml_ecosystem");
    let words = ["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", name, "-d", name, "-c", text];
    let output =
        Command::new("psql").args(words).env("PGPASSWORD", password(sandbox, "postgresql")).output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs the script that README tells people to run, as soon as calls to MercadoLibre are let through: for about two
/// minutes after the limits' Redis has begun anew every quota counts as used up, since nobody knows what was used.
///
/// `passing` are the answers that are waited over; any other fails at once.
async fn journey(gateway: &str, passing: &[&str]) {
    eventually("the journey to get through", Duration::from_secs(240), async || {
        let mut script = tokio::process::Command::new("bash");
        script.arg(repository().join("tests/journey.sh")).arg(gateway).stdin(std::process::Stdio::null());
        let output = script.output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (told, talk) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() && told.contains("analytics") {
            return Ok(());
        }
        let passes = passing.iter().any(|status| talk.contains(&format!("error: {status}")));
        assert!(passes, "{}\n{told}{talk}", output.status);
        note(&format!("not yet: {}", talk.trim()));
        tokio::time::sleep(Duration::from_secs(5)).await;
        Err(format!("{told}{talk}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the programs of PostgreSQL and Redis: make e2e-services"]
async fn the_shipped_system_runs_on_real_stores() {
    let sandbox = Sandbox::of_shipped();
    let gateway = sandbox.url(8080);
    let limit = Duration::from_secs(300);
    let line = "stores: real (postgresql, redis and redis-state); mongodb and kafka stay embedded";
    sandbox.mlctl_within(limit, &["deploy", "--stores", "real"]).await.ends(0).says(line);
    assert_settled(&sandbox.query(&["status"]).await);
    journey(&gateway, &["429"]).await;
    assert_ne!(shipped_row(&sandbox, "SELECT count(*) FROM users"), "0");
    let keys = redis(&sandbox, "redis-state", &["DBSIZE"]);
    assert!(keys.parse::<u32>().is_ok_and(|keys| keys > 0), "{keys}");
    sandbox.mlctl(&["db", "status"]).await.ends(0).says("integration-service").says("analytics-service");

    // All of them killed: the journey goes on, on the same data, and no service is started again for it.
    let stores = ["postgresql", "redis", "redis-state"];
    let killed = stores.map(|store| process(&sandbox, store).unwrap());
    killed.into_iter().for_each(kill);
    eventually("other servers to run", Duration::from_secs(30), async || {
        let status = sandbox.query(&["status"]).await;
        let other = stores
            .iter()
            .zip(killed)
            .all(|(store, pid)| process(&sandbox, store).is_some_and(|now| now != pid));
        let current = stores.iter().all(|store| item(&status, store)["status"] == "current");
        if other && current { Ok(()) } else { Err(format!("{status:#}")) }
    })
    .await;
    eventually("the system to be healthy again", Duration::from_secs(30), async || {
        let health = get(&format!("{gateway}/health")).await;
        if health.status == 200 { Ok(()) } else { Err(format!("{}: {}", health.status, health.body)) }
    })
    .await;
    // What was under way when they died may still fail; nothing that is asked later does.
    journey(&gateway, &["429", "500", "502", "503"]).await;
    journey(&gateway, &["429"]).await;
    for service in ["user-service", "integration-service", "analytics-service"] {
        let status = sandbox.query(&["status", service]).await;
        let restarts = status["replicas"].as_array().unwrap().iter().map(|r| r["restarts"].as_u64().unwrap());
        assert_eq!(restarts.sum::<u64>(), 0, "{status:#}");
    }
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    sandbox.mlctl_within(limit, &["deploy", "--stores", "embedded"]).await.ends(0).says_not("stores: real");
    crate::shipped::journey(&gateway).await;
    sandbox.end().await;
}
