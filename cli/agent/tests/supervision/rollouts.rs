//! Rolling updates under load, and releases that are broken.

use std::time::Duration;

use libtest_mimic::Trial;
use mlctl_core::local_protocol::{Limits, Request, Response, WorkloadSpec};
use mlctl_core::ports::ErrorKind;
use mlctl_core::status::Status;
use tokio::time::Instant;

use crate::trial;
use crate::world::{Load, World, get, kill, passed, service};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_service_starts_and_answers_on_its_stable_port", starts),
        trial("a_rolling_update_through_the_relay_fails_no_request", || rolls_without_failure(service)),
        trial("a_rolling_update_with_a_passed_socket_fails_no_request", || rolls_without_failure(passed)),
        trial("with_drain_switched_off_requests_fail", drain_off_fails),
        trial("an_exit_at_once_is_terminal_within_two_seconds_and_the_old_revision_serves", exits_at_once),
        trial("that_limits_are_approximate_is_told_once", approximate_limits),
        trial("never_ready_names_the_answer_and_going_back_reuses_what_runs", never_ready),
        trial("a_missing_program_is_terminal", missing_program),
        trial("too_much_memory_is_named", out_of_memory),
        trial("a_sick_replica_is_started_again", sick),
        trial("a_taken_port_is_named", taken_port),
        trial("scaling_and_restarting_change_what_they_say", scale_and_restart),
        trial("what_could_never_run_is_refused", refused),
    ]
}

async fn starts() {
    let world = World::new().await;
    let spec = service("api", &["version=one"]);
    world.run(&spec, 2).await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "one");
    let replicas = world.replicas().await;
    assert_eq!(replicas.len(), 2);
    for view in &replicas {
        assert!(view.replica.ready && view.replica.state == "ready", "{view:?}");
        assert!(world.log(&view.replica.name).contains("Z version one starts\n"));
    }
    let generation = world.put(&spec, 2).await;
    assert_eq!(generation, 1, "the same again changes nothing");
}

async fn rolls_without_failure(make: fn(&str, &[&str]) -> WorkloadSpec) {
    let world = World::new().await;
    let mut spec = make("api", &["version=1", "slow-answer=20"]);
    world.run(&spec, 2).await;
    let load = Load::start(spec.port.unwrap(), 8);
    for version in ["version=2", "version=3"] {
        spec.argv[3] = version.to_owned();
        world.run(&spec, 2).await;
    }
    let (answers, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["1", "2", "3"], "{answers:?}");
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "3");
}

async fn drain_off_fails() {
    let world = World::new().await;
    let mut spec = service("api", &["version=1", "slow-answer=60"]);
    spec.update.drain_ms = 0;
    world.run(&spec, 2).await;
    let load = Load::start(spec.port.unwrap(), 8);
    for version in ["version=2", "version=3"] {
        spec.argv[3] = version.to_owned();
        world.run(&spec, 2).await;
    }
    let (_, failures) = load.stop().await;
    assert!(!failures.is_empty());
}

async fn exits_at_once() {
    let world = World::new().await;
    let mut spec = service("api", &["version=1"]);
    world.run(&spec, 2).await;
    spec.argv.extend(["exit-after=0", "code=3"].map(ToOwned::to_owned));
    let begun = Instant::now();
    let generation = world.put(&spec, 2).await;
    let view = world
        .seen("api", "failed", |v| v.observed_generation == generation && v.status.status == Status::Failed)
        .await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let cause = view.status.cause.unwrap();
    assert_eq!(cause.code, "crash_loop");
    assert!(
        cause.text.contains("exit code 3") && cause.text.contains("started again 2 times"),
        "{}",
        cause.text
    );
    assert_eq!(view.status.ready, 2);
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1");
    // However quick an end comes, its beginning is told before it.
    let events = world.events().await;
    let last = events.iter().rfind(|event| event.reason == "exited").unwrap().replica.clone();
    let life = events.iter().filter(|event| event.replica == last).map(|event| event.reason.as_str());
    let life: Vec<&str> = life.collect();
    assert!(life.len() >= 4 && life.chunks(2).all(|pair| pair[0] == "started"), "{life:?}");
}

/// What is true of every limit here is no news of each replica.
async fn approximate_limits() {
    let mut world = World::new().await;
    let mut spec = service("api", &[]);
    spec.limits = Limits { cpu_millis: None, memory_bytes: Some(512 << 20) };
    world.run(&spec, 3).await;
    let approximate = world.is_approximate(&world.replicas().await[0].replica.name);
    let told = async |world: &World| {
        let events = world.events().await;
        assert!(events.iter().filter(|event| event.reason == "started").count() >= 3);
        events.iter().filter(|event| event.text.contains("control group")).count()
    };
    assert_eq!(told(&world).await, usize::from(approximate));
    world.kill_agent().await;
    world.start_agent().await;
    world.put(&spec, 4).await;
    world.current("api", 2).await;
    assert_eq!(told(&world).await, 2 * usize::from(approximate), "the next agent says it once more");
}

async fn never_ready() {
    let world = World::new().await;
    let good = service("api", &["version=1"]);
    world.run(&good, 2).await;
    let before: Vec<String> = world.replicas().await.into_iter().map(|r| r.replica.name).collect();
    let mut bad = good.clone();
    bad.argv.push("never-ready".to_owned());
    bad.update.progress_deadline_ms = 700;
    world.put(&bad, 2).await;
    let view = world.seen("api", "failed", |v| v.status.status == Status::Failed).await;
    let cause = view.status.cause.unwrap();
    assert_eq!(cause.code, "progress_deadline");
    assert!(cause.text.contains("/ready answers 503 Service Unavailable: no tables yet"), "{}", cause.text);
    world.run(&good, 2).await;
    let after: Vec<String> = world.replicas().await.into_iter().map(|r| r.replica.name).collect();
    assert_eq!(before, after);
}

async fn missing_program() {
    let world = World::new().await;
    let mut spec = service("api", &[]);
    spec.argv = vec!["/no/such/program".to_owned()];
    world.put(&spec, 1).await;
    let view = world.seen("api", "failed", |v| v.status.status == Status::Failed).await;
    let cause = view.status.cause.unwrap();
    assert_eq!(cause.code, "exec_failed");
    assert!(
        cause.text.contains("cannot start /no/such/program: No such file or directory"),
        "{}",
        cause.text
    );
}

async fn out_of_memory() {
    let world = World::new().await;
    let mut spec = service("api", &["allocate=100000000"]);
    spec.limits = Limits { cpu_millis: None, memory_bytes: Some(64 << 20) };
    world.put(&spec, 1).await;
    let view = world
        .seen("api", "out of memory", |v| v.status.cause.as_ref().is_some_and(|c| c.code == "oom"))
        .await;
    assert!(view.status.cause.unwrap().text.contains("killed for its memory"));
    assert!(world.events().await.iter().any(|e| e.reason == "oom"));
}

async fn sick() {
    let world = World::new().await;
    let spec = service("api", &["sick-after=300"]);
    world.run(&spec, 1).await;
    let view =
        world.seen("api", "sick", |v| v.status.cause.as_ref().is_some_and(|c| c.code == "exited")).await;
    let text = view.status.cause.unwrap().text;
    assert!(text.contains("liveness probe: /live answers 500 Internal Server Error: stuck"), "{text}");
    world.seen("api", "current again", |v| v.status.status == Status::Current).await;
    assert_eq!(world.replicas().await[0].replica.restarts, 1);
}

async fn taken_port() {
    let world = World::new().await;
    let spec = service("api", &[]);
    let port = spec.port.unwrap();
    let other = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    world.put(&spec, 1).await;
    let taken = |code: &'static str| move |c: &mlctl_core::status::Cause| c.code == code;
    let view =
        world.seen("api", "blocked", |v| v.status.cause.as_ref().is_some_and(taken("port_taken"))).await;
    let cause = view.status.cause.unwrap();
    assert!(!cause.terminal && cause.text.contains(&format!("port {port} is taken")), "{}", cause.text);
    drop(other);
    world.seen("api", "current", |v| v.status.status == Status::Current).await;
    assert_eq!(get(port).await.unwrap(), "1");
}

async fn scale_and_restart() {
    let world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = || "api".to_owned();
    let scale = |replicas| Request::Scale { fence: world.fence, name: name(), replicas };
    let generation = world.applied(scale(3)).await;
    assert_eq!(world.current("api", generation).await.status.ready, 3);
    let generation = world.applied(scale(1)).await;
    world.current("api", generation).await;
    let before = world.replicas().await;
    assert_eq!(before.len(), 1);
    let restart = || Request::Restart { fence: world.fence, name: name(), token: "t".to_owned() };
    let generation = world.applied(restart()).await;
    world.current("api", generation).await;
    let after = world.replicas().await;
    assert_ne!(before[0].replica.name, after[0].replica.name);
    assert_eq!(world.applied(restart()).await, generation, "the same token again changes nothing");
    let generation = world.applied(Request::Remove { fence: world.fence, name: name() }).await;
    let view = world.seen("api", "gone", |v| v.gone).await;
    assert_eq!(view.generation, generation);
    // Who begins to watch only now is told the same.
    assert_eq!(world.seen("api", "gone", |v| v.gone).await.generation, generation);
    assert_eq!(world.applied(Request::Remove { fence: world.fence, name: name() }).await, generation);
    assert!(get(spec.port.unwrap()).await.is_err());
    let processes = world.processes(&after[0].replica.name);
    assert!(!processes.0.is_alive() && !processes.1.is_alive());
    kill(mlctl_agent::Process::own(), "-0");
}

async fn refused() {
    let world = World::new().await;
    let good = service("api", &[]);
    let digest = mlctl_core::item::Digest::of(b"x");
    let put = |spec: WorkloadSpec| Request::Put {
        fence: world.fence,
        digest: digest.clone(),
        spec: Box::new(spec),
        replicas: 1,
    };
    let artifact = mlctl_core::local_protocol::ArtifactRef { digest: digest.clone(), file: "api".to_owned() };
    for (spec, wanted) in [
        (WorkloadSpec { name: "../api".to_owned(), ..good.clone() }, "is no name"),
        (WorkloadSpec { argv: vec![], ..good.clone() }, "no program"),
        (WorkloadSpec { artifact: Some(artifact), ..good.clone() }, "artifact_missing"),
    ] {
        match world.ask(put(spec)).await {
            Response::Refused { kind: ErrorKind::Invalid, reason, .. } => {
                assert!(reason.contains(wanted), "{reason}");
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    assert!(world.replicas().await.is_empty());
}
