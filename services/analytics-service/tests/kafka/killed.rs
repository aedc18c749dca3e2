//! Processes of the service killed with -9 at any moment.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::world::{Kept, Random, World, users};

/// A process of the service; killed when the test ends.
struct Process(Child);

impl Process {
    fn start(world: &World) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_analytics-service"))
            .env_clear()
            .env("DATABASE_URL", world.database_url())
            .env("KAFKA_BROKERS", &world.settings.brokers)
            .env("KAFKA_TOPIC_PREFIX", &world.settings.prefix)
            .env("USER_SERVICE_URL", "http://127.0.0.1:9")
            .env("PORT", free_port().to_string())
            .env("DRAIN_SECONDS", "0")
            .env("LOG_LEVEL", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; it may have ended already.
        let _ended = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn processes_killed_at_any_moment_count_each_event_once() {
    kill_at_any_moment(Kept::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn processes_killed_at_any_moment_count_each_event_once_in_postgresql() {
    kill_at_any_moment(Kept::Postgresql).await;
}

async fn kill_at_any_moment(kept: Kept) {
    let world = Arc::new(World::with(kept, 4).await);
    let users = users(16);
    let publishing = {
        let (world, users) = (Arc::clone(&world), users.clone());
        tokio::spawn(async move {
            let mut random = Random(77);
            for _ in 0..80 {
                world.publish_mixture(&users, 12, &mut random).await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        })
    };
    let mut random = Random(91);
    let mut replicas = vec![Process::start(&world), Process::start(&world)];
    let mut kills = 0;
    while !publishing.is_finished() || kills < 8 {
        tokio::time::sleep(Duration::from_millis(500 + random.below(5_000) as u64)).await;
        let victim = random.below(replicas.len());
        drop(replicas.swap_remove(victim));
        kills += 1;
        replicas.push(Process::start(&world));
    }
    publishing.await.unwrap();
    world.caught_up(Duration::from_secs(120)).await;
    drop(replicas);
    let records = world.compare_with_replay().await;
    assert!(records > 80 * 16 * 11, "{records} records, {kills} kills");
}
