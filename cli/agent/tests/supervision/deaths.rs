//! Deaths in the wrong moment: what is left half done, torn, or under a number that is another's by now.

use libtest_mimic::Trial;
use mlctl_agent::Process;
use mlctl_core::local_protocol::{Request, Response};

use crate::trial;
use crate::world::{Load, World, get, kill, lock_request, passed, processes, service, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_relay_that_dies_without_an_agent_comes_back_by_itself", relay_without_agent),
        trial("agent_and_relay_dead_together_heal_with_the_next_agent", agent_and_relay),
        trial("an_agent_that_lives_tells_a_new_relay_the_newest_table", relay_under_an_agent),
        trial("a_torn_record_ends_what_it_was_about_and_nothing_runs_twice", torn_records),
        trial("a_start_that_was_cut_off_is_begun_again_and_not_counted", cut_off_start),
        trial("a_number_that_is_another_processs_by_now_is_left_alone", reused_number),
        trial("the_lease_of_a_number_that_is_another_processs_by_now_is_free", lease_of_a_reused_number),
        trial("a_zombie_whose_shim_hangs_is_replaced", zombie),
    ]
}

/// Kills the agent, then a process, and waits until that one is gone.
async fn kill_with_agent(world: &mut World, process: Process) {
    world.kill_agent().await;
    kill(process, "-KILL");
    until("it has ended", async || (!process.is_alive()).then_some(())).await;
}

async fn relay_without_agent() {
    let mut world = World::new().await;
    let (relayed, through) = (service("api", &[]), passed("front", &[]));
    world.run(&relayed, 2).await;
    world.run(&through, 1).await;
    let load = Load::start(through.port.unwrap(), 2);
    let (shim, first) = processes(&world.layout.relay());
    kill_with_agent(&mut world, first).await;
    // Nobody is asked for anything.
    until("the stable port answers again", async || get(relayed.port.unwrap()).await.ok()).await;
    let again = processes(&world.layout.relay());
    assert!(again.0 == shim && again.1 != first, "the same shim, another relay");
    // And once more: a relay that its shim has started is kept like the first.
    kill(again.1, "-KILL");
    until("the stable port answers again", async || get(relayed.port.unwrap()).await.ok()).await;
    let kept = processes(&world.layout.relay());
    world.start_agent().await;
    world.current("api", 1).await;
    world.current("front", 1).await;
    assert_eq!(processes(&world.layout.relay()), kept, "taken over");
    let (answers, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "a passed socket does not pass the relay: {answers:?}");
}

async fn agent_and_relay() {
    let mut world = World::new().await;
    let relayed = service("api", &[]);
    let mut through = passed("front", &[]);
    world.run(&relayed, 1).await;
    world.run(&through, 2).await;
    let load = Load::start(through.port.unwrap(), 2);
    let (shim, relay) = processes(&world.layout.relay());
    // With its shim the relay dies too, and nobody is left to start another.
    kill_with_agent(&mut world, shim).await;
    until("the relay has ended too", async || (!relay.is_alive()).then_some(())).await;
    assert!(get(relayed.port.unwrap()).await.is_err());
    world.start_agent().await;
    world.current("api", 1).await;
    assert_eq!(get(relayed.port.unwrap()).await.unwrap(), "1");
    // The socket that replicas accept from was given back, or this could not start.
    through.argv.push("version=2".to_owned());
    world.run(&through, 2).await;
    let (answers, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
    assert!(answers.contains_key("1") && answers.contains_key("2"), "{answers:?}");
    // And nobody holds it for longer than it is needed.
    let remove = Request::Remove { fence: world.fence, name: "front".to_owned() };
    world.applied(remove).await;
    world.seen("front", "gone", |v| v.gone).await;
    assert!(get(through.port.unwrap()).await.unwrap_err().contains("refused"));
}

async fn relay_under_an_agent() {
    let world = World::new().await;
    let mut spec = service("api", &["version=1"]);
    world.run(&spec, 1).await;
    let (shim, relay) = processes(&world.layout.relay());
    // A table that is older than what runs: the relay begins with it, the agent sets it right.
    let path = world.layout.relay().join("table.json");
    let old = std::fs::read(&path).unwrap();
    spec.argv.push("version=2".to_owned());
    world.run(&spec, 1).await;
    std::fs::write(&path, old).unwrap();
    kill(relay, "-KILL");
    until("the new replica answers through a new relay", async || {
        get(spec.port.unwrap()).await.ok().filter(|version| version == "2")
    })
    .await;
    let again = processes(&world.layout.relay());
    assert!(again.0 == shim && again.1 != relay);
    world.current("api", 2).await;
    // A roll needs the relay's count of open connections: the agent talks to the new one.
    let load = Load::start(spec.port.unwrap(), 4);
    spec.argv.push("version=3".to_owned());
    world.run(&spec, 2).await;
    let (answers, failures) = load.stop().await;
    assert_eq!(failures, Vec::<String>::new(), "{answers:?}");
}

async fn torn_records() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    for file in ["replica.json", "status.json"] {
        for content in ["", "{\"service\":\"api\",\"rev"] {
            let name = world.replicas().await[0].replica.name.clone();
            let (shim, program) = world.processes(&name);
            world.kill_agent().await;
            std::fs::write(world.layout.replicas().join(&name).join(file), content).unwrap();
            world.start_agent().await;
            until("another program serves", async || {
                let views = world.replicas().await;
                let [view] = &views[..] else { return None };
                let there = view.replica.ready && !program.is_alive() && !shim.is_alive();
                there.then_some(())
            })
            .await;
            world.current("api", 1).await;
            assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1", "{file} {content:?}");
        }
    }
}

async fn cut_off_start() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, _) = world.processes(&name);
    kill_with_agent(&mut world, shim).await;
    // As its folder is between the agent's record and the first word of its shim.
    let folder = world.layout.replicas().join(&name);
    std::fs::remove_file(folder.join("status.json")).unwrap();
    assert!(!folder.join("exit.json").exists());
    world.start_agent().await;
    world.current("api", 1).await;
    let views = world.replicas().await;
    let replica = &views[0].replica;
    assert_eq!((&replica.name, replica.restarts, &replica.last_exit), (&name, 0, &None), "{views:#?}");
}

async fn reused_number() {
    let mut world = World::new().await;
    let spec = service("api", &[]);
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, _) = world.processes(&name);
    kill_with_agent(&mut world, shim).await;
    // The records name a process that lives, leads a session as a shim does, and is none of ours.
    let mut stranger = tokio::process::Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
    let living = Process::find(stranger.id().unwrap()).unwrap();
    let reused = serde_json::json!({ "pid": living.pid, "start": living.start - 1 });
    let folder = world.layout.replicas().join(&name);
    let path = folder.join("status.json");
    let mut status: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    (status["shim"], status["program"]) = (reused.clone(), reused.clone());
    std::fs::write(&path, status.to_string()).unwrap();
    std::fs::write(folder.join("shim.lock"), reused.to_string()).unwrap();
    world.start_agent().await;
    world.current("api", 1).await;
    let replica = world.replicas().await.remove(0).replica;
    assert_eq!((replica.restarts, replica.last_exit.as_deref()), (1, Some("unknown end (its shim died)")));
    assert!(living.is_alive(), "it was taken for a shim and killed");
    stranger.kill().await.unwrap();
}

async fn zombie() {
    let world = World::new().await;
    // Nothing asks it how it is: its probes would find out too.
    let mut spec = service("api", &[]);
    // A child of it goes its own way.
    let script = "setsid sleep 600 & echo child $!; exec sleep 600";
    spec.argv = ["sh", "-c", script].map(ToOwned::to_owned).to_vec();
    spec.port = None;
    world.run(&spec, 1).await;
    let name = world.replicas().await[0].replica.name.clone();
    let (shim, program) = world.processes(&name);
    let child = until("it tells of its child", async || {
        let log = world.log(&name);
        Process::find(log.lines().find_map(|line| line.split_once(" child ")?.1.parse().ok())?)
    })
    .await;
    kill(shim, "-STOP");
    kill(program, "-KILL");
    until("it is not ready any more", async || {
        let ready = world.replicas().await.first().is_some_and(|view| view.replica.ready);
        (!ready).then_some(())
    })
    .await;
    assert!(shim.is_alive() && !program.is_alive(), "a zombie with a shim that hangs");
    until("it was started again", async || {
        let view = world.replicas().await.remove(0).replica;
        (view.ready && view.restarts == 1).then_some(())
    })
    .await;
    assert!(!shim.is_alive());
    until("its child has ended with it", async || (!child.is_alive()).then_some(())).await;
    let view = world.replicas().await.remove(0).replica;
    assert_eq!(view.last_exit.as_deref(), Some("signal 9 (SIGKILL)"), "a zombie tells how it ended");
    world.current("api", 1).await;
}

async fn lease_of_a_reused_number() {
    let world = World::new().await;
    let free = |response: Response| matches!(response, Response::Line { state } if state.held().is_none());
    assert!(!free(world.ask(Request::LockState).await), "it is ours, and we live");
    world.ask(Request::Unlock { fence: world.fence }).await;
    // Its owner has ended; its number is that of a living process now, this one.
    let mut lock = lock_request("gone", std::process::id());
    lock.pid_start -= 1;
    let taken = world.ask(Request::Lock { lock }).await;
    assert!(matches!(taken, Response::Locked { .. }), "{taken:?}");
    assert!(free(world.ask(Request::LockState).await), "nobody alive holds it");
    let next = world.ask(Request::Lock { lock: lock_request("next", std::process::id()) }).await;
    assert!(matches!(next, Response::Locked { .. }), "{next:?}");
}
