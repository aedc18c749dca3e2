//! The fuzzer's seeds over the real socket: whatever is sent, the agent answers the next one who asks.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use mlctl_core::local_protocol::{Request, Response};
use tokio::time::timeout;

use crate::trial;
use crate::world::World;

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
        let mut connection = world.connect().await;
        let answers = timeout(Duration::from_secs(10), connection.throw(&bytes)).await;
        let answers = answers.unwrap_or_else(|_| panic!("{} is not answered", path.display()));
        for line in answers.lines() {
            serde_json::from_str::<Response>(line)
                .unwrap_or_else(|e| panic!("{}: {e}: {line}", path.display()));
        }
        count += 1;
    }
    assert!(count > 40, "only {count} seeds");
    let hello = Request::Hello { protocol: 1, build: "test".to_owned() };
    let answer = world.connect().await.ask(&hello).await;
    assert!(matches!(answer, Response::Hello { .. }), "{answer:?}");
}
