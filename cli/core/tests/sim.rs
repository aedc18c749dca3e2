//! The simulation as a target of its own: its script, its memory, its repeatability.

#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use futures::StreamExt as _;
use mlctl_core::clock::Clock as _;
use mlctl_core::item::{Item, ItemId};
use mlctl_core::ports::{
    ErrorKind, Inspector as _, LockRequest, LogQuery, Orchestrator as _, ReleaseInput, Write,
};
use mlctl_core::release::Operator;
use mlctl_core::sim::{KillPoint, ScriptError, Sim};
use mlctl_core::status::Status;
use mlctl_core::system::SystemFile;

const SYSTEM: &str = "
apiVersion: mlctl/v1
system: tiny
services:
  api: {command: [api], port: 4001, replicas: {min: 2, max: 3}, needs: [db], env: {KEY: {secret: key}}}
stores: {db: {kind: postgresql}}
secrets: {key: {generate: token}}
";

async fn api(sim: &Sim) -> Item {
    let system = SystemFile::parse("mlctl.yaml", SYSTEM.as_bytes()).unwrap().system().unwrap();
    let desired = sim.resolve(&system, &ReleaseInput::default()).await.unwrap();
    let ids: Vec<String> = desired.items.iter().map(|item| item.id.to_string()).collect();
    assert_eq!(ids, ["namespace/tiny", "secret/key", "store/db", "workload/api"]);
    desired.get(&ItemId::workload("api")).unwrap().clone()
}

fn request() -> LockRequest {
    LockRequest {
        operation: "deploy".into(),
        operator: Operator { name: "operator".into(), host: "host".into() },
        run: "run".into(),
        pid: 1,
        pid_start: 0,
        ttl: Duration::from_secs(60),
    }
}

/// Puts the service and tells what a watch says until it settles.
async fn story(sim: &Sim) -> Vec<String> {
    let fence = sim.lock(&request()).await.unwrap().fence();
    let item = api(sim).await;
    let mut stream = sim.watch(std::slice::from_ref(&item.id)).await.unwrap();
    sim.apply(&Write::Put { item, replicas: Some(2) }, fence).await.unwrap();
    let mut told = Vec::new();
    loop {
        let live = stream.next().await.unwrap().unwrap().live;
        told.push(format!("{} ms: {} {}", sim.now_ms(), live.status.status.word(), live.status.ready));
        if matches!(live.status.status, Status::Current | Status::Failed) {
            return told;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_script_plays_one_story() {
    let script = "pace = {start = '1s', ready = '2s'}\n[[fault]]\nitem = 'api'\ncrash = '0s'";
    let one = story(&Sim::from_toml(script).unwrap()).await;
    assert_eq!(
        one,
        ["0 ms: in progress 0", "20 ms: in progress 0", "1020 ms: in progress 0", "3020 ms: failed 0"]
    );
    assert_eq!(one, story(&Sim::from_toml(script).unwrap()).await);
}

#[tokio::test(start_paused = true)]
async fn a_world_goes_on_where_it_was_saved() {
    let script = "[timing.api]\nstart = '10s'";
    let sim = Sim::from_toml(script).unwrap();
    let fence = sim.lock(&request()).await.unwrap().fence();
    let item = api(&sim).await;
    sim.apply(&Write::Put { item: item.clone(), replicas: None }, fence).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let (saved, then) = (sim.save().unwrap(), sim.clock().now());
    let later = Sim::restore(script, &saved).unwrap();
    assert_eq!(later.world(), sim.world());
    assert_eq!((later.now_ms(), later.clock().now()), (6_000, then));
    assert!(!later.observe().await.unwrap().get(&item.id).is_current());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let live = later.observe().await.unwrap().get(&item.id);
    assert!(live.is_current() && live.replicas == Some(2), "{live:?}");
    assert!(later.lock(&request()).await.is_err(), "the lease is kept too");
}

#[tokio::test(start_paused = true)]
async fn the_dead_hear_nothing_until_they_are_revived() {
    let sim = Sim::from_toml("kill = {effect = 1}").unwrap();
    let fence = sim.lock(&request()).await.unwrap().fence();
    let put = Write::Put { item: api(&sim).await, replicas: None };
    let patience = Duration::from_secs(3_600);
    tokio::time::timeout(patience, sim.apply(&put, fence)).await.unwrap_err();
    sim.killed().await;
    assert_eq!(sim.world().effect_count(), 1, "the effect happened, only its answer did not come");
    tokio::time::timeout(patience, sim.observe()).await.unwrap_err();
    sim.revive();
    assert_eq!(sim.observe().await.unwrap().items.len(), 1);
    let next = sim.lock(&request()).await.unwrap();
    assert!(next.fence() > fence);
    sim.kill_at(KillPoint::Record(1));
    tokio::time::timeout(patience, mlctl_core::ports::Journal::append(&sim.journal("run"), "{}"))
        .await
        .unwrap_err();
    assert_eq!(sim.journal_text("run"), "{}\n");
}

#[tokio::test(start_paused = true)]
async fn crashes_leave_their_traces() {
    let sim =
        Sim::from_toml("[[fault]]\nitem = 'api'\ncrash = '0s'\nexit = 3\nlog = ['no such table']").unwrap();
    story(&sim).await;
    let replicas = sim.replicas(Some("api")).await.unwrap();
    assert_eq!(replicas.len(), 2);
    assert!(
        replicas.iter().all(|r| r.last_exit.as_deref() == Some("exit code 3") && r.restarts == 2 && !r.ready)
    );
    let query = LogQuery { service: "api".into(), previous: true, tail: Some(2), ..LogQuery::default() };
    let lines: Vec<String> = sim.logs(&query).await.unwrap().map(|line| line.unwrap().text).collect().await;
    assert_eq!(lines, ["no such table", "crash_loop: exited 2 times with code 3, each 0 s after its start"]);
    let events = sim.events(None).await.unwrap();
    let reasons: Vec<&str> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["started", "exited", "crash_loop"]);
}

#[tokio::test(start_paused = true)]
async fn windows_and_scripted_errors_refuse() {
    let script = "
        [[unavailable]]
        from = '1s'
        until = '2s'
        [[error]]
        port = 'apply'
        item = 'workload/api'
        skip = 1
        count = 1
        kind = 'conflict'
        reason = 'somebody else wrote it'
    ";
    let sim = Sim::from_toml(script).unwrap();
    let fence = sim.lock(&request()).await.unwrap().fence();
    let item = api(&sim).await;
    let scale = |replicas| Write::Scale { id: item.id.clone(), replicas };
    sim.apply(&Write::Put { item: item.clone(), replicas: None }, fence).await.unwrap();
    let error = sim.apply(&scale(3), fence).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(error.to_string(), "apply workload/api: somebody else wrote it");
    sim.apply(&scale(3), fence).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(sim.observe().await.unwrap_err().is_transient());
    tokio::time::sleep(Duration::from_millis(500)).await;
    sim.observe().await.unwrap();
}

#[test]
fn a_wrong_script_is_refused_with_the_place() {
    for (script, told) in [
        ("pace = {strat = '1s'}", ":1:9: unknown key `strat`"),
        ("pace = {start = '1 parsec'}", "a duration such as 500ms"),
        ("[[error]]\nitem = 'api'", ":1:1: the key `port` is missing"),
        ("[[fault]]\ncrash =", "string values must be quoted"),
    ] {
        let error = Sim::from_toml(script).unwrap_err();
        assert!(error.to_string().contains(told), "{script}: {error}");
    }
    assert!(matches!(Sim::restore("", "{}"), Err(ScriptError::World(_))));
}
