//! Deaths, takeovers and the lease.

use std::time::Duration;

use libtest_mimic::Trial;
use mlctl_agent::Process;
use mlctl_core::local_protocol::{EnvSource, FileSpec, LaterContent, Request, Response};
use mlctl_core::ports::{ErrorKind, Fence, Standing};
use mlctl_core::status::Status;

use crate::trial;
use crate::world::{Load, World, get, kill, lock_request, passed, processes, service, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_killed_agent_loses_nothing", agent_killed),
        trial("a_replica_that_ends_while_there_is_no_agent_is_started_again", ended_without_agent),
        trial("a_dead_shim_takes_its_replica_along", shim_killed),
        trial("the_relay_outlives_agents_and_is_replaced_when_it_dies", relay),
        trial("what_a_program_started_ends_with_its_shim", orphans),
        trial("what_goes_into_the_background_is_told_and_ended", daemon),
        trial("a_loss_of_power_leaves_an_agent_that_starts", power_loss),
        trial("what_could_not_be_written_was_not_put", unwritten),
        trial("a_live_file_changes_at_its_time", later_file),
        trial("an_endless_request_ends_the_conversation", endless_request),
        trial("what_ignores_the_stop_signal_is_killed", ignores_term),
        trial("a_shim_that_hangs_is_killed_with_its_replica", hung_shim),
        trial("one_agent_a_folder", one_agent),
        trial("the_lease_is_exclusive_fenced_and_outlives_the_agent", lease),
        trial("shutdown_stops_everything_and_the_next_agent_starts_it_again", shutdown),
        trial("secrets_reach_the_program_and_no_file_of_the_agent", secrets),
    ]
}

async fn agent_killed() {
    let mut world = World::new().await;
    let relayed = service("api", &["slow-answer=10"]);
    let through = passed("front", &["slow-answer=10"]);
    world.run(&relayed, 2).await;
    world.run(&through, 1).await;
    let names = |views: Vec<mlctl_core::local_protocol::ReplicaView>| {
        views.into_iter().map(|v| v.replica.name).collect::<Vec<_>>()
    };
    let before = names(world.replicas().await);
    let loads = [Load::start(relayed.port.unwrap(), 3), Load::start(through.port.unwrap(), 3)];
    world.kill_agent().await;
    for _ in 0..20 {
        get(relayed.port.unwrap()).await.unwrap();
        get(through.port.unwrap()).await.unwrap();
    }
    world.start_agent().await;
    // Adopted, not started again: current at the old generation without a single new process.
    world.current("api", 1).await;
    world.current("front", 1).await;
    assert_eq!(names(world.replicas().await), before);
    let mut next = relayed.clone();
    next.argv.push("version=2".to_owned());
    world.run(&next, 2).await;
    for load in loads {
        let (answers, failures) = load.stop().await;
        assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
    }
    assert_eq!(get(relayed.port.unwrap()).await.unwrap(), "2");
}

async fn ended_without_agent() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, program) = world.processes(&name);
    world.kill_agent().await;
    kill(program, "-KILL");
    until("the shim has ended", async || (!shim.is_alive()).then_some(())).await;
    world.start_agent().await;
    world.seen("api", "started again", |v| v.status.status == Status::Current).await;
    let view = world.replicas().await.remove(0).replica;
    assert_eq!((view.name, view.restarts), (name, 1));
    assert_eq!(view.last_exit.as_deref(), Some("signal 9 (SIGKILL)"));
}

async fn shim_killed() {
    let world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, program) = world.processes(&name);
    kill(shim, "-KILL");
    until("the program has ended too", async || (!program.is_alive()).then_some(())).await;
    until("it is started again", async || {
        let views = world.replicas().await;
        (views[0].replica.restarts == 1 && views[0].replica.ready).then_some(())
    })
    .await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1");
}

async fn relay() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    let mut through = passed("front", &[]);
    world.run(&spec, 1).await;
    world.run(&through, 1).await;
    let (_, first) = processes(&world.layout.relay());
    world.kill_agent().await;
    get(spec.port.unwrap()).await.unwrap();
    world.start_agent().await;
    world.current("api", 1).await;
    assert_eq!(processes(&world.layout.relay()).1, first, "taken over");
    let load = Load::start(through.port.unwrap(), 2);
    kill(first, "-KILL");
    until("the stable port answers again", async || get(spec.port.unwrap()).await.ok()).await;
    assert_ne!(processes(&world.layout.relay()).1, first);
    // The socket that replicas accept from was never closed, and the new relay hands it on.
    through.argv.push("version=2".to_owned());
    world.run(&through, 1).await;
    assert_eq!(get(through.port.unwrap()).await.unwrap(), "2");
    let (answers, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
    // Nor is a copy of it left once nobody needs it.
    world.applied(Request::Remove { fence: world.fence, name: "front".to_owned() }).await;
    world.seen("front", "gone", |v| v.gone).await;
    assert!(get(through.port.unwrap()).await.unwrap_err().contains("refused"));
}

async fn orphans() {
    let world = World::new().await;
    let mut spec = service("api", &[]);
    let script = "sleep 600 & echo child $!; exec \"$@\"";
    spec.argv.splice(0..0, ["sh", "-c", script, "sh"].map(ToOwned::to_owned));
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let log = world.log(&name);
    let child = log.lines().find_map(|line| line.split_once(" child ")?.1.parse().ok()).unwrap();
    let child = Process::find(child).unwrap();
    kill(world.processes(&name).0, "-KILL");
    until("the program's child has ended", async || (!child.is_alive()).then_some(())).await;
    world.seen("api", "started again", |v| v.status.status == Status::Current).await;
}

async fn power_loss() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, _) = world.processes(&name);
    let relay = processes(&world.layout.relay()).0;
    let renew = || Request::Renew { fence: world.fence, run: None };
    assert_eq!(world.ask(renew()).await, Response::Done);
    let lease = std::fs::read(world.layout.lease()).unwrap();
    world.kill_agent().await;
    for shim in [shim, relay] {
        kill(shim, "-KILL");
        until("the shim has ended", async || (!shim.is_alive()).then_some(())).await;
    }
    // The lease is not among what may be lost, a renewal of it neither: a fence would be given twice. An agent that
    // finds it torn all the same does not start.
    std::fs::write(world.layout.lease(), "").unwrap();
    let refused = world.agent_command().output().await.unwrap();
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && reason.contains("lease.json"), "{reason}");
    std::fs::write(world.layout.lease(), lease).unwrap();
    // Renamed and not synced: after a loss of power such a file may be there and empty.
    for folder in [world.layout.replicas().join(&name), world.layout.relay()] {
        for file in ["replica.json", "status.json", "exit.json"] {
            std::fs::write(folder.join(file), "").unwrap();
        }
    }
    world.start_agent().await;
    world.current("api", 1).await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1");
    assert_eq!(world.ask(Request::Renew { fence: world.fence, run: None }).await, Response::Done);
    assert_eq!(world.ask(Request::Unlock { fence: world.fence }).await, Response::Done);
    match world.ask(Request::Lock { lock: lock_request("next", std::process::id()) }).await {
        Response::Locked { holder } => assert!(holder.fence > world.fence, "a fence is given once"),
        other => panic!("{other:?}"),
    }
}

async fn unwritten() {
    let world = World::new().await;
    let spec = service("api", &[]);
    // A folder in the place of its record.
    let record = world.layout.workloads().join("api.json");
    std::fs::create_dir(&record).unwrap();
    let digest = mlctl_core::item::Digest::of(b"");
    let put = || Request::Put {
        fence: world.fence,
        digest: digest.clone(),
        spec: Box::new(spec.clone()),
        replicas: 1,
    };
    for _ in 0..2 {
        match world.ask(put()).await {
            Response::Refused { kind: ErrorKind::Unavailable, reason, .. } => {
                assert!(reason.contains("api.json"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(world.replicas().await.is_empty(), "what was refused is not started");
    std::fs::remove_dir(&record).unwrap();
    assert_eq!(world.applied(put()).await, 1);
    world.current("api", 1).await;
}

async fn later_file() {
    let mut world = World::new().await;
    let mut spec = service("api", &[]);
    let from = jiff::Timestamp::now() + Duration::from_millis(1_500);
    let later = LaterContent { from, content: "open".to_owned() };
    let content = "closed".to_owned();
    spec.files = vec![FileSpec { name: "state".to_owned(), content, live: true, later: vec![later] }];
    world.run(&spec, 1).await;
    let path = world.layout.files("api").join("state");
    let read = || std::fs::read_to_string(&path).unwrap();
    assert_eq!(read(), "closed");
    // Nobody asks for anything meanwhile, and the agent is another one.
    world.kill_agent().await;
    world.start_agent().await;
    until("its time has come", async || (read() == "open").then_some(())).await;
    assert!(jiff::Timestamp::now() >= from);
    assert_eq!(
        world.put(&spec, 1).await,
        1,
        "the same again changes nothing, and brings back nothing that is over"
    );
    assert_eq!(read(), "open");
    assert_eq!(world.replicas().await[0].replica.restarts, 0);
}

async fn endless_request() {
    let world = World::new().await;
    let mut connection = world.connect().await;
    let error = connection.pour(32 << 20).await;
    assert!(error.contains("longer than"), "{error}");
    assert!(matches!(world.ask(Request::Observe).await, Response::Workloads { .. }));
}

async fn ignores_term() {
    let world = World::new().await;
    let mut spec = service("api", &["ignore-term"]);
    (spec.update.drain_ms, spec.update.stop_grace_ms) = (100, 200);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, program) = world.processes(&name);
    world.applied(Request::Remove { fence: world.fence, name: "api".to_owned() }).await;
    world.seen("api", "gone", |v| v.gone).await;
    assert!(!program.is_alive() && !shim.is_alive());
}

async fn hung_shim() {
    let world = World::new().await;
    let mut spec = service("api", &[]);
    (spec.update.drain_ms, spec.update.stop_grace_ms) = (50, 50);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, program) = world.processes(&name);
    kill(shim, "-STOP");
    world.applied(Request::Remove { fence: world.fence, name: "api".to_owned() }).await;
    world.seen("api", "gone", |v| v.gone).await;
    assert!(!shim.is_alive());
    until("the program has ended too", async || (!program.is_alive()).then_some(())).await;
}

async fn one_agent() {
    let world = World::new().await;
    let mut second = world.agent_command();
    let output = second.stdin(std::process::Stdio::null()).output().await.unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("is held by another process"), "{text}");
    assert!(matches!(world.ask(Request::Observe).await, Response::Workloads { .. }));
}

async fn lease() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    let ours = world.fence;
    let take = |name: &str, pid| Request::Lock { lock: lock_request(name, pid) };
    match world.ask(take("other", std::process::id())).await {
        Response::Refused { kind: ErrorKind::Conflict, holder: Some(holder), .. } => {
            assert_eq!(holder.fence, ours);
        }
        other => panic!("{other:?}"),
    }
    world.kill_agent().await;
    world.start_agent().await;
    assert!(matches!(world.ask(Request::Renew { fence: ours, run: None }).await, Response::Done));
    assert_eq!(world.put(&spec, 1).await, 1);
    assert!(matches!(world.ask(Request::Unlock { fence: ours }).await, Response::Done));
    // A process that has ended holds nothing, whatever its time to live.
    let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
    let dead = match world.ask(take("dead", child.id().unwrap())).await {
        Response::Locked { holder } => holder.fence,
        other => panic!("{other:?}"),
    };
    child.kill().await.unwrap();
    match world.ask(Request::LockState).await {
        Response::Line { state } => assert_eq!(state.standing, Standing::Dead),
        other => panic!("{other:?}"),
    }
    let next = match world.ask(take("next", std::process::id())).await {
        Response::Locked { holder } => holder.fence,
        other => panic!("{other:?}"),
    };
    assert!(ours < dead && dead < next);
    for old in [Fence(0), ours, dead] {
        let request = Request::Scale { fence: old, name: "api".to_owned(), replicas: 2 };
        match world.ask(request).await {
            Response::Refused { kind: ErrorKind::LeaseLost, .. } => {}
            other => panic!("{old:?}: {other:?}"),
        }
    }
}

async fn shutdown() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 2).await;
    let running: Vec<_> = world.replicas().await.iter().map(|v| world.processes(&v.replica.name)).collect();
    let (relay_shim, _) = processes(&world.layout.relay());
    let stop = async |fence| world.ask(Request::Shutdown { stop_replicas: true, fence }).await;
    for (fence, refused) in [(None, ErrorKind::Invalid), (Some(Fence(99)), ErrorKind::LeaseLost)] {
        let answer = stop(fence).await;
        assert!(matches!(answer, Response::Refused { kind, .. } if kind == refused), "{answer:?}");
    }
    assert!(running.iter().all(|(shim, program)| shim.is_alive() && program.is_alive()));
    // Whoever asks gets an answer, not only the last one.
    let answers = tokio::join!(stop(Some(world.fence)), stop(Some(world.fence)));
    assert!(matches!(answers, (Response::Done, Response::Done)), "{answers:?}");
    for (shim, program) in running {
        assert!(!shim.is_alive() && !program.is_alive());
    }
    assert!(!relay_shim.is_alive());
    world.agent_ended().await;
    world.start_agent().await;
    world.current("api", 1).await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1");
}

async fn secrets() {
    let world = World::new().await;
    let folder = world.layout.secret("token");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("current"), "hush-hush\n").unwrap();
    let mut spec = service("api", &["print-env=TOKEN"]);
    spec.env.insert("TOKEN".to_owned(), EnvSource::SecretValue("token".to_owned()));
    spec.env.insert("TOKEN_FILE".to_owned(), EnvSource::SecretFile("token".to_owned()));
    let text = "redis://:{secret}@127.0.0.1:6379".to_owned();
    let source = EnvSource::SecretText { secret: "token".to_owned(), text };
    spec.env.insert("REDIS_URL_FILE".to_owned(), source);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    assert!(world.log(&name).contains("TOKEN=hush-hush"));
    let filled = world.layout.replicas().join(&name).join("env-REDIS_URL_FILE");
    assert_eq!(std::fs::read_to_string(&filled).unwrap(), "redis://:hush-hush@127.0.0.1:6379");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&filled).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for entry in std::fs::read_dir(world.layout.replicas().join(&name)).unwrap().flatten() {
        if entry.file_name() != "log" && entry.path() != filled && entry.path().is_file() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert!(!text.contains("hush-hush"), "{}", entry.path().display());
        }
    }
    tokio::time::timeout(Duration::from_secs(1), get(spec.port.unwrap())).await.unwrap().unwrap();
}

async fn daemon() {
    let mut world = World::new().await;
    // The shell ends with 0 at once; what it left in a session of its own would go on for ten minutes.
    let mut spec = service("api", &[]);
    let script = "setsid sleep 600 & setsid sh -c 'setsid sleep 600 & exit 0' & exit 0";
    spec.argv = ["sh", "-c", script].map(ToOwned::to_owned).to_vec();
    world.put(&spec, 1).await;
    let backgrounded = |v: &mlctl_core::local_protocol::WorkloadView| {
        v.status.cause.as_ref().is_some_and(|cause| cause.code == "backgrounded" && cause.terminal)
    };
    let view = world.seen("api", "told to be in the background", backgrounded).await;
    let text = view.status.cause.unwrap().text;
    assert!(text.contains("exit code 0") && text.contains("run it in the foreground"), "{text}");
    let marker = world.layout.root().to_str().unwrap().to_owned();
    world.applied(Request::Remove { fence: world.fence, name: "api".to_owned() }).await;
    world.seen("api", "gone", |v| v.gone).await;
    world.kill_agent().await;
    let daemons = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let is = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        is(&read("cmdline"), "sleep\x00600")
            && std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&marker))
    });
    assert_eq!(daemons.count(), 0);
}
