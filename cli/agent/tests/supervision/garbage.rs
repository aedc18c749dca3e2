//! The fuzzer's seeds over the real socket: whatever is sent, the agent answers the next one who asks.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use mlctl_core::local_protocol::{PROTOCOL, Request, Response};
use mlctl_core::ports::Fence;
use tokio::time::timeout;

use crate::trial;
use crate::world::{World, lock_request};

pub fn trials() -> Vec<Trial> {
    vec![trial("an_agent_survives_every_seed_of_the_fuzzer", seeds)]
}

async fn seeds() {
    let world = World::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/protocol");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // To end when asked to is no failure.
        let asks_to_end = |line: &[u8]| {
            let request = std::str::from_utf8(line).ok().and_then(|line| Request::decode(line).ok());
            matches!(request, Some(Request::Shutdown { .. }))
        };
        if bytes.split(|byte| *byte == b'\n').any(asks_to_end) {
            continue;
        }
        // As they are, their fence is nobody's: behind the lease is only who has it.
        for bytes in [bytes.clone(), with_fence(&bytes, present_fence(&world).await)] {
            let mut connection = world.connect().await;
            let answers = timeout(Duration::from_secs(10), connection.throw(&bytes)).await;
            let answers = answers.unwrap_or_else(|_| panic!("{} is not answered", path.display()));
            for line in answers.lines() {
                serde_json::from_str::<Response>(line)
                    .unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
            }
        }
        count += 1;
    }
    assert!(count > 40, "only {count} seeds");
    let hello = Request::Hello { protocol: PROTOCOL, build: "test".to_owned() };
    let answer = world.connect().await.ask(&hello).await;
    assert!(matches!(answer, Response::Hello { .. }), "{answer:?}");
}

/// Returns the fence that is in force; some seeds give the lease back, take it or stand in line.
async fn present_fence(world: &World) -> Fence {
    let Response::Line { state } = world.ask(Request::LockState).await else {
        panic!("no state of the lock")
    };
    if let Some(holder) = state.holder {
        return holder.fence;
    }
    for waiter in state.line {
        world.ask(Request::LeaveLine { lock: waiter.request }).await;
    }
    match world.ask(Request::Lock { lock: lock_request("test", std::process::id()) }).await {
        Response::Locked { holder } => holder.fence,
        other => panic!("{other:?}"),
    }
}

/// Puts a fence in the place of those that a seed names.
fn with_fence(seed: &[u8], fence: Fence) -> Vec<u8> {
    const NAME: &[u8] = b"\"fence\":";
    let mut changed = Vec::new();
    let mut rest = seed;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        let (before, behind) = rest.split_at(at + NAME.len());
        changed.extend_from_slice(before);
        let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            changed.extend_from_slice(fence.0.to_string().as_bytes());
        }
        rest = &behind[digits..];
    }
    changed.extend_from_slice(rest);
    changed
}
