//! The running service while its database goes and comes.

use std::time::{Duration, Instant};

use service_kit::DatabaseUrl;
use service_kit::client::Answer;

use super::database;
use super::wire::{State, Wire};
use crate::support::{PASSWORD, PATIENCE, SignedIn, World, refusal};

async fn world() -> (World, Wire) {
    let database = database().await;
    let wire = Wire::to(&database).await;
    let url = wire.url(&database);
    let world = World::with(|settings| settings.database = DatabaseUrl::Postgres(url)).await;
    (world, wire)
}

async fn becomes(world: &World, status: u16) {
    let deadline = Instant::now() + 3 * PATIENCE;
    while world.get("/readyz", &[]).await.status != status {
        assert!(Instant::now() < deadline, "/readyz never answered {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn busy(answer: &Answer) {
    assert_eq!(refusal(answer), (503, "store_busy".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_restarted_server_is_used_again_and_meanwhile_the_answer_is_to_come_back() {
    let (world, wire) = world().await;
    let ana = world.register("ana@example.com").await;
    for _ in 0..2 {
        wire.become_(State::Cut);
        let asked = Instant::now();
        busy(&world.login("ana@example.com", PASSWORD).await);
        busy(&world.me(&ana).await);
        assert!(asked.elapsed() < Duration::from_secs(6), "two seconds each at most: {:?}", asked.elapsed());
        becomes(&world, 503).await;
        assert_eq!(world.get("/livez", &[]).await.status, 200, "a restart would not help");
        wire.become_(State::Open);
        becomes(&world, 200).await;
        assert_eq!(world.me(&ana).await.status, 200);
    }
    let again = SignedIn::read(&world.login("ana@example.com", PASSWORD).await, 200);
    assert_eq!(world.refresh(&again.refresh).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real server: make e2e-services"]
async fn a_server_that_hangs_holds_nobody_for_long_and_its_connections_are_given_up() {
    let (world, wire) = world().await;
    let ana = world.register("ana@example.com").await;
    wire.become_(State::Frozen);
    // More callers than connections: some hang in a statement, the others wait for a connection.
    let asked = Instant::now();
    let answers = futures::future::join_all((0..30).map(|_| world.me(&ana))).await;
    for answer in &answers {
        busy(answer);
    }
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    becomes(&world, 503).await;
    wire.become_(State::Open);
    becomes(&world, 200).await;
    let asked = Instant::now();
    let answers = futures::future::join_all((0..30).map(|_| world.me(&ana))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "every place of the pool is free: {:?}",
        asked.elapsed()
    );
}
