//! Each server starts, answers a client, is killed and back, is silent while it is paused, and leaves nothing behind.

use std::time::{Duration, Instant};

use mlctl_tests::stores::{Kafka, Mongodb, Postgresql, Redis, Store};
use mlctl_tests::{alive, note, pause};

use crate::bson::{Document, command};
use crate::{client, records, redis, sql};

/// Time for a client to be answered again.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// Asks until the answer is the wanted one.
#[track_caller]
fn eventually(what: &str, ask: impl Fn() -> Result<String, String>, wanted: &str) {
    let until = Instant::now() + ANSWERS_WITHIN;
    loop {
        let answer = ask();
        if answer.as_ref().is_ok_and(|answer| answer == wanted) {
            return;
        }
        assert!(Instant::now() < until, "{what}: wanted {wanted:?}, the last answer is {answer:?}");
        pause(Duration::from_millis(50));
    }
}

/// What holds for every store: `ask` reads what was written before.
#[track_caller]
fn is_disturbed_well<S: Store>(mut store: S, ask: impl Fn(&S) -> Result<String, String>, kept: &str) {
    let name = store.name();
    eventually("before anything happened", || ask(&store), kept);

    let began = Instant::now();
    store.pause();
    assert!(ask(&store).is_err(), "{name} answers although it is paused");
    store.resume();
    eventually("after a pause", || ask(&store), kept);

    let before = store.processes();
    store.kill();
    assert!(before.iter().all(|pid| !alive(*pid)), "{name}: of {before:?} some live");
    assert!(!store.runs() && store.processes().is_empty(), "{name} runs although it was killed");
    assert!(ask(&store).is_err(), "{name} answers although it was killed");
    store.restart().unwrap();
    eventually("after kill -9", || ask(&store), kept);

    store.stop().unwrap();
    assert!(ask(&store).is_err(), "{name} answers although it was stopped");
    store.restart().unwrap();
    eventually("after a stop", || ask(&store), kept);
    note(&format!("{name}: paused, killed, stopped and back in {:.1?}", began.elapsed()));

    // Dropped in the worst state, which leaves the most behind.
    store.pause();
    let (processes, folders) = (store.processes(), store.folders());
    assert!(
        !processes.is_empty() && folders.iter().all(|folder| folder.is_dir()),
        "{processes:?}, {folders:?}"
    );
    drop(store);
    let left: Vec<i32> = processes.into_iter().filter(|pid| alive(*pid)).collect();
    assert!(left.is_empty(), "{name}: {left:?} outlived it");
    let left: Vec<_> = folders.into_iter().filter(|folder| folder.exists()).collect();
    assert!(left.is_empty(), "{name}: {left:?} outlived it");
}

#[test]
fn postgresql_keeps_what_it_committed() {
    let server = Postgresql::start().unwrap();
    assert!(sql(&server.url(), "show max_connections").unwrap().parse::<u32>().unwrap() >= 200);
    sql(&server.url(), "create table kept as select 'a row' as value").unwrap();
    is_disturbed_well(server, |server| sql(&server.url(), "select value from kept"), "a row");
}

#[test]
fn a_killed_postgresql_leaves_no_shared_memory() {
    let segments = || {
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
    };
    let server = Postgresql::start().unwrap();
    let file = server.folders()[0].join("data/postmaster.pid");
    let file = std::fs::read_to_string(file).unwrap();
    let own = file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let before: Vec<String> = segments();
    assert!(before.contains(&own), "{own} is not among {before:?}");
    let mut server = server;
    server.kill();
    assert!(segments().contains(&own), "kill -9 leaves it, or this proves nothing");
    drop(server);
    let after: Vec<String> = segments();
    assert!(!after.contains(&own), "{own} is left");
}

#[test]
fn redis_keeps_what_its_log_has() {
    let server = Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
    redis(&server.url(), &["-n", "9999", "set", "kept", "a value"]).unwrap();
    is_disturbed_well(server, |server| redis(&server.url(), &["-n", "9999", "get", "kept"]), "a value");
}

#[test]
fn redis_without_a_log_forgets() {
    let mut server = Redis::start().unwrap();
    redis(&server.url(), &["set", "kept", "a value"]).unwrap();
    server.kill();
    server.restart().unwrap();
    assert_eq!(redis(&server.url(), &["exists", "kept"]).unwrap(), "0");
}

#[test]
fn redis_evicts_and_closes_as_it_is_set() {
    let mut server =
        Redis::start_with(&[("maxmemory", "16mb"), ("maxmemory-policy", "allkeys-lru")]).unwrap();
    let url = server.url();
    // Twice as much as it may have.
    let fill = || {
        let script = "value=$(printf %016384d 0); for i in {1..2000}; do echo \"set key$i $value\"; done \
                      | redis-cli -u \"$0\" | sort | uniq -c";
        client(20, &["bash", "-c", script, &url]).unwrap()
    };
    assert_eq!(fill(), "2000 OK");
    let evicted = redis(&url, &["info", "stats"]).unwrap();
    let evicted =
        evicted.lines().find_map(|line| line.trim().strip_prefix("evicted_keys:")).unwrap().to_owned();
    assert!(evicted.parse::<u32>().unwrap() > 100, "{evicted} keys evicted");

    server.set("maxmemory-policy", "noeviction");
    server.set("timeout", "1");
    server.restart().unwrap();
    let filled = fill();
    assert!(filled.contains("OOM command not allowed"), "{filled}");
    assert_eq!(redis(&url, &["config", "get", "timeout"]).unwrap(), "timeout\n1");
}

#[test]
fn kafka_keeps_records_and_makes_no_topic_by_itself() {
    let server = Kafka::start().unwrap();
    let put = |server: &Kafka, topic: &str| {
        let send = "echo 'a record' | kcat -b \"$0\" -t \"$1\" -P -X message.timeout.ms=4000";
        client(8, &["bash", "-o", "pipefail", "-c", send, &server.brokers(), topic])
    };
    assert!(put(&server, "nobody-made-it").is_err(), "a topic came by itself");
    server.create_topic("kept", 3).unwrap();
    // Again is no error: whoever comes second finds it.
    server.create_topic("kept", 3).unwrap();
    put(&server, "kept").unwrap();
    let topics = client(5, &["kcat", "-b", &server.brokers(), "-L", "-t", "kept"]).unwrap();
    assert!(topics.contains("with 3 partitions"), "{topics}");
    is_disturbed_well(server, |server| records(&server.brokers(), "kept"), "a record");
}

#[test]
fn the_stand_in_for_mongodb_keeps_documents() {
    let server = Mongodb::start().unwrap();
    let insert = Document::default()
        .text("insert", "kept")
        .list_of("documents", Document::default().text("_id", "one").text("value", "a document"));
    let ok = |answer: &[u8]| {
        // `ok` is a double, and one.
        let wanted = [&b"\x01ok\0"[..], &1f64.to_le_bytes()].concat();
        answer.windows(wanted.len()).any(|bytes| bytes == wanted)
    };
    let answer = command(&server.url(), insert).unwrap();
    assert!(ok(&answer), "{}", String::from_utf8_lossy(&answer));
    let read = |server: &Mongodb| {
        let find = Document::default()
            .text("find", "kept")
            .document("filter", Document::default().text("_id", "one"));
        let answer = command(&server.url(), find)?;
        let there = answer.windows(10).any(|bytes| bytes == b"a document");
        if ok(&answer) && there {
            Ok("a document".to_owned())
        } else {
            Err(String::from_utf8_lossy(&answer).into_owned())
        }
    };
    is_disturbed_well(server, read, "a document");
}
