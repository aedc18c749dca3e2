//! What is the local target's own: artifacts, secrets, stores, the front's routes, logs, agents that are replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use libtest_mimic::Trial;
use mlctl_core::item::{Desired, ItemId, ItemKind};
use mlctl_core::overrides::{Override, OverrideKind};
use mlctl_core::ports::{
    Artifact, Builder as _, ErrorKind, Fence, Inspector as _, LogQuery, Orchestrator as _, OverrideStore,
    ProbeRequest, ReleaseInput, ReleaseStore, RunMirror, Through, Write,
};
use mlctl_core::release::{Release, ReleaseState};
use mlctl_core::status::Condition;
use mlctl_core::system::SystemFile;
use mlctl_targets::build::ProcessBuilder;
use mlctl_targets::local::{Local, connect};

use crate::trial;
use crate::world::{World, lock_request};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_system_deploys_from_its_build_to_an_answer", deploys),
        trial("an_artifact_is_kept_and_a_missing_one_is_refused_before_anything_changes", artifacts),
        trial("maintenance_rewrites_the_routes_and_rolls_nothing", maintenance),
        trial("an_agent_of_another_build_is_replaced_and_replicas_go_on", replaced),
        trial("a_folder_that_an_ending_agent_still_holds_is_waited_for", held),
        trial("reading_an_empty_target_starts_nothing", reading),
        trial("journals_are_mirrored", journals),
        trial("a_purge_takes_nothing_from_an_agent_and_leaves_nothing", purged),
        trial("a_number_is_given_once_although_a_kill_cut_its_release_off", numbers),
    ]
}

/// Applies all items in order and waits for each.
async fn deploy(local: &Local, desired: &Desired, fence: Fence) {
    for item in &desired.items {
        let write = Write::Put { item: item.clone(), replicas: item.replicas.map(|range| range.min) };
        let applied = local.apply(&write, fence).await.unwrap();
        let mut stream = local.watch(std::slice::from_ref(&item.id)).await.unwrap();
        let current = async {
            while let Some(observation) = stream.next().await {
                let live = observation.unwrap().live;
                assert!(!live.status.cause.as_ref().is_some_and(|c| c.terminal), "{}: {live:?}", item.id);
                if Condition::AllCurrent.holds(&live, applied.generation) {
                    return;
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(Duration::from_secs(20), current).await.unwrap();
    }
}

async fn ask(local: &Local, through: Through, service: &str, path: &str) -> (Option<u16>, String) {
    let request = ProbeRequest {
        service: service.to_owned(),
        through,
        path: path.to_owned(),
        timeout: Duration::from_secs(5),
    };
    let answer = local.probe(&request).await.unwrap().remove(0);
    (answer.status, answer.detail)
}

/// A script that runs the fixture program, so that the artifact is what `build` makes.
fn script(knobs: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    format!("#!/bin/sh\nexec {} fixture port=$PORT {knobs} print-env=GIVEN\n", exe.display())
}

async fn deploys() {
    let world = World::new();
    std::fs::write(world.sources().join("app.in"), script("version=built")).unwrap();
    let port = World::free_port();
    let text = format!(
        "apiVersion: mlctl/v1
system: test
services:
  app:
    gateway: true
    build: {{run: [sh, -c, 'cp app.in app && chmod +x app'], artifact: app}}
    port: {port}
    health: {{ready: /ready, period: 100ms}}
    update: {{minReady: 0ms, drain: 1s, progressDeadline: 30s}}
    needs: [db]
    env: {{DB: {{store: db}}, KEY: {{secret: made}}, GIVEN: {{secret: given, as: env}}, LOG_LEVEL: info}}
stores: {{db: {{kind: postgresql}}}}
secrets: {{made: {{generate: ed25519-pem}}, given: {{generate: none, env: X}}}}
"
    );
    let system = SystemFile::parse("mlctl.yaml", text.as_bytes()).unwrap().system().unwrap();
    let local = world.connect().await;
    let builder = ProcessBuilder::new(world.sources());
    let artifacts = builder.build(&system, &["app".to_owned()], &|_| {}).await.unwrap();
    let input = ReleaseInput { artifacts, ..ReleaseInput::default() };
    let desired = local.resolve(&system, &input).await.unwrap();
    let lease = local.lock(&lock_request()).await.unwrap();
    deploy(&local, &desired, lease.fence()).await;

    assert_eq!(ask(&local, Through::Gateway, "app", "/").await, (Some(200), "built".to_owned()));
    assert_eq!(ask(&local, Through::Replicas, "app", "/").await, (Some(200), "built".to_owned()));
    assert_eq!(local.address(None).await.unwrap(), Some(format!("http://127.0.0.1:{port}")));
    let snapshot = local.observe().await.unwrap();
    assert_eq!(snapshot.items.len(), desired.items.len());
    for item in &desired.items {
        let live = snapshot.get(&item.id);
        assert!(live.is_current() && live.digest.as_ref() == Some(&item.digest), "{} {live:?}", item.id);
        assert_eq!(local.preview(item).await.unwrap(), []);
    }
    let query = LogQuery { service: "app".to_owned(), ..LogQuery::default() };
    let lines: Vec<String> = local.logs(&query).await.unwrap().map(|line| line.unwrap().text).collect().await;
    assert!(lines.contains(&"GIVEN=from-outside".to_owned()), "{lines:?}");
    assert!(local.secret("made").await.unwrap().unwrap().expose().starts_with("-----BEGIN PRIVATE KEY-----"));

    // The same with another variable: the difference is told by name, and a release holds no secret.
    let other = SystemFile::parse("mlctl.yaml", text.replace("info", "debug").as_bytes()).unwrap();
    let changed = local.resolve(&other.system().unwrap(), &input).await.unwrap();
    let app = changed.get(&ItemId::workload("app")).unwrap();
    let told: Vec<String> = local.preview(app).await.unwrap().into_iter().map(|d| d.path).collect();
    assert_eq!(told, ["env.LOG_LEVEL"]);
    assert!(!serde_json::to_string(&desired).unwrap().contains("from-outside"));
}

async fn artifacts() {
    let world = World::new();
    let local = world.connect().await;
    let path = world.sources().join("app");
    let system = World::system(&format!(
        "  app: {{build: {{run: [], artifact: app}}, command: [sh, app], port: {}, health: {{ready: /ready, period: 100ms}}, update: {{minReady: 0ms, drain: 1s}}}}\n",
        World::free_port()
    ));
    let resolve = async |version: &str| {
        std::fs::write(&path, script(version)).unwrap();
        let digest = mlctl_core::item::Digest::of(script(version).as_bytes());
        let artifact = Artifact { path: path.clone(), digest };
        let artifacts = BTreeMap::from([("app".to_owned(), artifact)]);
        local.resolve(&system, &ReleaseInput { artifacts, ..ReleaseInput::default() }).await.unwrap()
    };
    let lease = local.lock(&lock_request()).await.unwrap();
    let first = resolve("version=1").await;
    deploy(&local, &first, lease.fence()).await;
    let second = resolve("version=2").await;
    deploy(&local, &second, lease.fence()).await;
    assert_eq!(ask(&local, Through::Service, "app", "/").await.1, "2");

    let third = resolve("version=3").await;
    std::fs::remove_file(&path).unwrap();
    let error = local.check_artifacts(&third).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.reason.starts_with("artifact_missing: "), "{error}");
    let item = third.get(&ItemId::workload("app")).unwrap();
    assert!(local.preview(item).await.is_err());
    let write = Write::Put { item: item.clone(), replicas: Some(1) };
    assert!(local.apply(&write, lease.fence()).await.is_err());
    assert_eq!(ask(&local, Through::Service, "app", "/").await.1, "2", "nothing has changed");
    // Going back needs no source: the first release's artifact is kept.
    local.check_artifacts(&first).await.unwrap();
    deploy(&local, &first, lease.fence()).await;
    assert_eq!(ask(&local, Through::Service, "app", "/").await.1, "1");
}

async fn maintenance() {
    let world = World::new();
    let local = world.connect().await;
    let service = World::service("front", World::free_port(), "version=1") + "    gateway: true\n";
    let desired = local.resolve(&World::system(&service), &ReleaseInput::default()).await.unwrap();
    let lease = local.lock(&lock_request()).await.unwrap();
    deploy(&local, &desired, lease.fence()).await;
    let file = world.state().join("files/front/routes.json");
    let table = || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap() };
    assert!(table()["maintenance"].is_null());
    let before = local.replicas(Some("front")).await.unwrap();
    let kind = OverrideKind::Maintenance { message: "Back soon".to_owned(), retry_after_seconds: 60 };
    let entry = Override {
        id: "maintenance".to_owned(),
        owner: "test".to_owned(),
        reason: "test".to_owned(),
        since: jiff::Timestamp::now(),
        until: None,
        kind,
    };
    local.put(&entry, lease.fence()).await.unwrap();
    assert_eq!(table()["maintenance"]["message"], "Back soon");
    // A release in between carries it along.
    deploy(&local, &desired, lease.fence()).await;
    assert_eq!(table()["maintenance"]["retry_after_seconds"], 60);
    assert_eq!(local.observe().await.unwrap().overrides, std::slice::from_ref(&entry));
    assert!(local.end("maintenance", lease.fence()).await.unwrap());
    assert!(!local.end("maintenance", lease.fence()).await.unwrap());
    assert!(table()["maintenance"].is_null());
    // One with an end is over by itself, while nobody asks for anything.
    let until = Some(jiff::Timestamp::now() + Duration::from_millis(800));
    local.put(&Override { until, ..entry.clone() }, lease.fence()).await.unwrap();
    assert_eq!(table()["maintenance"]["message"], "Back soon");
    let over = async {
        while !table()["maintenance"].is_null() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), over).await.unwrap();
    assert_eq!(local.observe().await.unwrap().overrides, []);
    deploy(&local, &desired, lease.fence()).await;
    assert!(table()["maintenance"].is_null());
    let after = local.replicas(Some("front")).await.unwrap();
    assert_eq!(before[0].name, after[0].name);
    assert_eq!(after[0].restarts, 0);
}

async fn replaced() {
    let world = World::new();
    let local = world.connect().await;
    let service = World::service("app", World::free_port(), "version=1");
    let desired = local.resolve(&World::system(&service), &ReleaseInput::default()).await.unwrap();
    let lease = local.lock(&lock_request()).await.unwrap();
    deploy(&local, &desired, lease.fence()).await;
    let mut watch = local.watch(&[ItemId::workload("app")]).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().live.is_current());
    let before = local.replicas(None).await.unwrap();

    let newer = connect(world.settings("newer")).await.unwrap();
    let after = newer.replicas(None).await.unwrap();
    assert_eq!(before[0].name, after[0].name);
    assert_eq!(ask(&newer, Through::Service, "app", "/").await.1, "1");
    assert!(newer.lock_holder().await.unwrap().is_some_and(|holder| holder.fence == lease.fence()));
    assert!(newer.events(None).await.unwrap().iter().any(|event| event.reason == "ready"));
}

async fn held() {
    let world = World::new();
    let local = world.connect().await;
    std::fs::create_dir_all(world.state()).unwrap();
    let ending = std::fs::File::create(world.state().join("agent.lock")).unwrap();
    ending.lock().unwrap();
    let released = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(ending);
    };
    let request = lock_request();
    let (lease, ()) = tokio::join!(local.lock(&request), released);
    lease.unwrap();
}

async fn reading() {
    let world = World::new();
    let local = world.connect().await;
    assert!(local.observe().await.unwrap().items.is_empty());
    assert!(local.lock_holder().await.unwrap().is_none());
    assert!(local.events(None).await.unwrap().is_empty());
    assert!(local.replicas(None).await.unwrap().is_empty());
    assert_eq!(OverrideStore::list(&local).await.unwrap(), []);
    assert!(!local.is_running().await && !world.state().exists());
    let item = ItemId::new(ItemKind::Store, "db");
    let error = local.apply(&Write::Scale { id: item, replicas: 1 }, Fence(1)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
}

async fn journals() {
    let world = World::new();
    let local = world.connect().await;
    for (run, line) in [("01B", "one"), ("01A", "two"), ("01B", "three")] {
        local.append(run, line).await.unwrap();
    }
    assert_eq!(RunMirror::list(&local).await.unwrap(), ["01A", "01B"]);
    assert_eq!(local.read("01B").await.unwrap().as_deref(), Some("one\nthree\n"));
    assert_eq!(local.read("01C").await.unwrap(), None);
    // What a kill and a bad disk leave: the tail goes on request, what is no text is still read.
    let path = world.state().join("journals/01B.jsonl");
    std::fs::write(&path, b"one\n\xff\xfe\n{\"to").unwrap();
    assert_eq!(local.read("01B").await.unwrap().as_deref(), Some("one\n\u{fffd}\u{fffd}\n{\"to"));
    local.trim("01B").await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one\n\xff\xfe\n");
    local.trim("01C").await.unwrap();
    for run in ["01B", "01B", "01C"] {
        local.remove(run).await.unwrap();
    }
    assert_eq!(RunMirror::list(&local).await.unwrap(), ["01A"]);
    for error in [local.remove("../x").await.unwrap_err(), local.trim("../x").await.unwrap_err()] {
        assert_eq!(error.kind, ErrorKind::Invalid);
    }
    assert_eq!(local.append("../x", "no").await.unwrap_err().kind, ErrorKind::Invalid);
}

async fn numbers() {
    let world = World::new();
    let local = world.connect().await;
    let lease = local.lock(&lock_request()).await.unwrap();
    let release = |number: u32| Release {
        number,
        tag: None,
        system: "test".to_owned(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        author: lock_request().operator,
        run: format!("run-{number}"),
        state: ReleaseState::Pending,
        rollback_of: None,
        note: None,
        desired: Desired::default(),
    };
    local.create(&release(1), lease.fence()).await.unwrap();
    let ledger = std::fs::read_to_string(world.state().join("head.json")).unwrap();
    local.create(&release(2), lease.fence()).await.unwrap();
    // What a process leaves that dies between the record and the ledger.
    std::fs::write(world.state().join("head.json"), ledger).unwrap();
    assert_eq!(local.next_number().await.unwrap(), 3);
    let again = Release { run: "another".to_owned(), ..release(2) };
    assert_eq!(local.create(&again, lease.fence()).await.unwrap_err().kind, ErrorKind::Conflict);
    local.create(&release(3), lease.fence()).await.unwrap();
    let runs: Vec<String> =
        ReleaseStore::list(&local).await.unwrap().into_iter().map(|release| release.run).collect();
    assert_eq!(runs, ["run-1", "run-2", "run-3"]);
    local.stop(lease.fence()).await.unwrap();
    lease.release().await.unwrap();
    assert!(!local.is_running().await);
}

async fn purged() {
    let world = World::new();
    let local = world.connect().await;
    let lease = local.lock(&lock_request()).await.unwrap();
    let conflict = local.purge().await.unwrap_err();
    assert_eq!(conflict.kind, ErrorKind::Conflict, "an agent is at work there: {conflict}");
    local.stop(lease.fence()).await.unwrap();
    // What a purge has left that was killed, and one who only looks at the lock.
    let left = world.state().with_file_name("state.removed-1");
    std::fs::create_dir(&left).unwrap();
    let looking = std::fs::File::open(world.state().join("agent.lock")).unwrap();
    looking.lock().unwrap();
    let looked = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(looking);
    };
    let (removed, ()) = tokio::join!(local.purge(), looked);
    removed.unwrap();
    let names: Vec<_> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("state"))
        .collect();
    assert_eq!(names, Vec::<String>::new());
}
