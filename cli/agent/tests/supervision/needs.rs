//! What others cannot do without, and programs that have the stable port themselves.

use libtest_mimic::Trial;
use mlctl_core::local_protocol::{Request, Response, SocketMode, WorkloadSpec};
use mlctl_core::status::Status;

use crate::trial;
use crate::world::{World, get, kill, service, until};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("what_others_need_ends_after_them", ends_last),
        trial("what_runs_while_it_is_needed_comes_and_goes_with_the_need", while_needed),
        trial("a_program_with_the_port_itself_is_never_there_twice", own_port),
    ]
}

/// A service that has its port itself, as a database has.
fn base() -> WorkloadSpec {
    let mut spec = service("base", &[]);
    spec.socket = SocketMode::Own;
    (spec.update.surge, spec.update.unavailable) = (0, 1);
    spec
}

fn top() -> WorkloadSpec {
    let mut spec = service("top", &[]);
    spec.needs = vec!["base".to_owned()];
    spec
}

async fn remove(world: &World, name: &str) {
    world.applied(Request::Remove { fence: world.fence, name: name.to_owned() }).await;
}

async fn count(world: &World, service: &str) -> usize {
    world.replicas().await.iter().filter(|view| view.replica.service == service).count()
}

/// Returns the place of the last event of that reason among all events.
async fn place(world: &World, replica: &str, reason: &str) -> usize {
    let events = world.events().await;
    let found = events.iter().rposition(|e| e.replica.as_deref() == Some(replica) && e.reason == reason);
    found.unwrap_or_else(|| panic!("no {reason} of {replica} in {events:?}"))
}

async fn ends_last() {
    let mut world = World::new().await;
    let (base, top) = (base(), top());
    world.run(&base, 1).await;
    world.run(&top, 2).await;
    remove(&world, "base").await;
    world.seen("base", "on its way out", |v| v.status.status == Status::Terminating).await;
    // Removed, and still there for those that stand on it; killed, it even comes back.
    let name =
        world.replicas().await.iter().find(|v| v.replica.service == "base").unwrap().replica.name.clone();
    let (_, program) = world.processes(&name);
    kill(program, "-KILL");
    until("it to serve again", async || get(base.port.unwrap()).await.ok()).await;
    remove(&world, "top").await;
    world.seen("base", "gone", |v| v.gone).await;
    world.seen("top", "gone", |v| v.gone).await;

    // The same order where everything ends at once.
    world.run(&base, 1).await;
    world.run(&top, 2).await;
    let names: Vec<(String, String)> = world
        .replicas()
        .await
        .iter()
        .map(|view| (view.replica.service.clone(), view.replica.name.clone()))
        .collect();
    let stop = Request::Shutdown { stop_replicas: true, fence: Some(world.fence) };
    assert_eq!(world.ask(stop).await, Response::Done);
    world.agent_ended().await;
    world.start_agent().await;
    let (bases, tops): (Vec<_>, Vec<_>) = names.iter().partition(|(service, _)| service == "base");
    let last = place(&world, &bases[0].1, "stopped").await;
    for (_, name) in tops {
        assert!(place(&world, name, "stopped").await < last, "{name} ended after what it needs");
    }
}

async fn while_needed() {
    let mut world = World::new().await;
    let (mut base, top) = (base(), top());
    base.while_needed = true;
    world.put(&base, 1).await;
    world.seen("base", "settled without replicas", |v| v.status.status == Status::Current).await;
    assert_eq!(count(&world, "base").await, 0);

    world.run(&top, 1).await;
    until("it to serve", async || get(base.port.unwrap()).await.ok()).await;
    // Needed or not is remembered like all else.
    world.kill_agent().await;
    world.start_agent().await;
    assert_eq!(count(&world, "base").await, 1);
    let names = async |world: &World| {
        let views = world.replicas().await;
        views.iter().map(|view| view.replica.name.clone()).collect::<Vec<_>>()
    };
    let before = names(&world).await;

    // Asked for by itself it stays when nobody needs it, and changing that replaces nothing.
    base.while_needed = false;
    world.run(&base, 1).await;
    assert_eq!(names(&world).await, before);
    remove(&world, "top").await;
    world.seen("top", "gone", |v| v.gone).await;
    assert_eq!(count(&world, "base").await, 1);
    base.while_needed = true;
    world.put(&base, 1).await;
    until("it to end", async || (count(&world, "base").await == 0).then_some(())).await;
}

async fn own_port() {
    let world = World::new().await;
    let mut spec = base();
    world.run(&spec, 1).await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "1");
    let view = world.replicas().await.remove(0);
    assert_eq!(view.port, spec.port, "its own port is the stable one");
    spec.argv.push("version=2".to_owned());
    world.run(&spec, 1).await;
    assert_eq!(get(spec.port.unwrap()).await.unwrap(), "2");
    let next = world.replicas().await.remove(0).replica.name;
    let (ended, began) =
        (place(&world, &view.replica.name, "stopped").await, place(&world, &next, "started").await);
    assert!(ended < began, "the next one began before the last one had ended");
}
