//! Notifications while the database hangs: told in time, sent again, none lost.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use parking_lot::Mutex;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::bench::{Bench, WEBHOOK_SECRET};

/// Notifications a second.
const RATE: u32 = 500;
/// How long the database hangs.
const PAUSE: Duration = Duration::from_secs(30);
/// How long MercadoLibre waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// The unprivileged user that the server runs as when we are root, which it refuses to be.
const NOBODY: u32 = 65_534;

/// A PostgreSQL server of this test alone: it is stopped in the middle of its work.
struct Server {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let as_root = std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t");
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if as_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        if as_root {
            for path in [folder.path(), &data] {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        let mut init = command("initdb");
        init.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]);
        assert!(init.status().unwrap().success(), "initdb failed");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = command("postgres");
        server.arg("-D").arg(&data).args(["-p", &port.to_string(), "-k"]).arg(folder.path());
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        let this = Self { process: server.spawn().unwrap(), port, _folder: folder };
        let began = Instant::now();
        while PgConnection::connect(&this.url()).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut database = PgConnection::connect(&this.url()).await.unwrap();
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres");
        let entries = std::fs::read_dir(migrations).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.to_string_lossy().ends_with(".up.sql")).collect();
        files.sort();
        for file in files {
            database.execute(AssertSqlSafe(std::fs::read_to_string(file).unwrap())).await.unwrap();
        }
        this
    }

    fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The postmaster and its children, each of which has a session of its own.
    fn processes(&self) -> Vec<u32> {
        let own = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        std::iter::once(own).chain(children.split_whitespace().map(|pid| pid.parse().unwrap())).collect()
    }

    fn signal(&self, signal: &str) {
        let pids = self.processes().into_iter().map(|pid| pid.to_string());
        // One that ended meanwhile is none of our business.
        let _ = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal("-CONT");
        // Fast shutdown: the postmaster ends its children.
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}

/// The newest PostgreSQL of the machine.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("this test needs PostgreSQL's programs");
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.unwrap().path().join("bin")).collect();
    found.retain(|folder| folder.join("initdb").is_file());
    found.sort();
    found.pop().expect("this test needs initdb and postgres")
}

/// What MercadoLibre saw.
#[derive(Default)]
struct Seen {
    acknowledged: usize,
    slowest_acknowledgement: Duration,
    slowest_refusal: Duration,
    again: Vec<usize>,
    /// Answers that did not come at all.
    broken: usize,
    wrong: Vec<u16>,
}

/// Sends these notifications at the rate of the flood, whether the ones before were answered or not.
async fn flood(bench: &Bench, seller: u64, numbers: Vec<usize>) -> Seen {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut sent = tokio::task::JoinSet::new();
    for number in numbers {
        tick.tick().await;
        let (client, seen) = (bench.client().clone(), Arc::clone(&seen));
        let body = json!({
            "_id": format!("n{number}"), "resource": format!("/orders/{number}"), "user_id": seller,
            "topic": "orders_v2", "application_id": "app", "attempts": 1,
            "sent": "2027-01-15T08:00:00.000Z", "received": "2027-01-15T08:00:00.000Z",
        });
        sent.spawn(async move {
            let began = Instant::now();
            let path = format!("/ml/notifications/{WEBHOOK_SECRET}");
            let status =
                client.send_json(Method::POST, &path, &[], &body).await.map(|answer| answer.status.as_u16());
            let took = began.elapsed();
            let mut seen = seen.lock();
            match status {
                Ok(200) if took < PATIENCE => {
                    seen.acknowledged += 1;
                    seen.slowest_acknowledgement = seen.slowest_acknowledgement.max(took);
                }
                // A late word is no word: MercadoLibre sends it again.
                Ok(200) => seen.again.push(number),
                Ok(500..=599) => {
                    seen.again.push(number);
                    seen.slowest_refusal = seen.slowest_refusal.max(took);
                }
                Ok(other) => seen.wrong.push(other),
                Err(_) => {
                    seen.again.push(number);
                    seen.broken += 1;
                }
            }
        });
    }
    while let Some(done) = sent.join_next().await {
        done.unwrap();
    }
    Arc::into_inner(seen).unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_flood_while_the_database_hangs_is_answered_in_time_and_loses_nothing() {
    let server = Server::start().await;
    let bench = Bench::with(&[("DATABASE_URL", &server.url())]).await;
    let (_, seller) = bench.connected().await;
    let second = RATE as usize;
    let paused = second * usize::try_from(PAUSE.as_secs()).unwrap();

    let before = flood(&bench, seller, (0..second).collect()).await;
    assert_eq!(before.wrong, [0u16; 0]);

    server.signal("-STOP");
    let during = flood(&bench, seller, (second..second + paused).collect()).await;
    server.signal("-CONT");
    assert_eq!(during.wrong, [0u16; 0], "an answer is an acknowledgement or a 5xx");
    println!(
        "{} acknowledged before, the slowest after {:?}; {} refused in the pause, the slowest after {:?}",
        before.acknowledged,
        before.slowest_acknowledgement,
        during.again.len(),
        during.slowest_refusal
    );
    assert_eq!(during.broken, 0, "every one is answered");
    assert_eq!(during.acknowledged, 0, "nothing is acknowledged that a hanging database did not store");

    bench.service.ready(Duration::from_secs(10)).await.unwrap();
    let mut again = [before.again, during.again].concat();
    let mut rounds = 0;
    while !again.is_empty() {
        rounds += 1;
        assert!(rounds <= 8, "MercadoLibre gives up after eight tries: {} are left", again.len());
        let round = flood(&bench, seller, std::mem::take(&mut again)).await;
        assert_eq!(round.wrong, [0u16; 0]);
        again = round.again;
    }
    let mut database = PgConnection::connect(&server.url()).await.unwrap();
    let (rows, numbers): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT id) FROM ml_webhook_inbox WHERE id LIKE 'n%'")
            .fetch_one(&mut database)
            .await
            .unwrap();
    let all = i64::try_from(second + paused).unwrap();
    assert_eq!((rows, numbers), (all, all), "each is in the inbox exactly once");
    drop(database);
    bench.stop().await;
}

/// The database hangs: the word comes while MercadoLibre still waits for it, whichever statement hangs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_hanging_database_is_told_within_the_patience_of_mercadolibre() {
    let server = Server::start().await;
    let bench = Bench::with(&[("DATABASE_URL", &server.url())]).await;
    let (_, seller) = bench.connected().await;
    let body = json!({
        "_id": "n1", "resource": "/orders/1", "user_id": seller, "topic": "orders_v2", "application_id": "app",
    });
    let path = format!("/ml/notifications/{WEBHOOK_SECRET}");
    let post = async || {
        let began = Instant::now();
        let answer = bench.client().send_json(Method::POST, &path, &[], &body).await.unwrap();
        (answer.status.as_u16(), began.elapsed())
    };
    server.signal("-STOP");
    for _ in 0..3 {
        let (status, took) = post().await;
        assert!(status == 503 && took < PATIENCE, "{status} after {took:?}");
    }
    server.signal("-CONT");
    bench.service.ready(Duration::from_secs(10)).await.unwrap();
    let back = async { while post().await.0 != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), back).await.unwrap();
    bench.stop().await;
}
