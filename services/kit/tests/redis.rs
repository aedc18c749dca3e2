//! The shared connection to Redis while its server is dead, killed, paused, and closes what is idle.

#![expect(clippy::unwrap_used, reason = "what is not as expected here fails the test")]

use std::time::{Duration, Instant};

use secrecy::SecretString;
use service_kit::redis::{Redis, RedisError};
use service_kit::testing::{RedisServer, eventually};

const DEADLINE: Duration = Duration::from_millis(200);

fn redis(url: &SecretString) -> Redis {
    Redis::new("redis", url, DEADLINE).unwrap()
}

async fn count(redis: &Redis) -> Result<i64, RedisError> {
    redis.ask(redis::cmd("INCR").arg("count")).await
}

async fn answers(redis: &Redis) {
    eventually("an answer", async || count(redis).await.ok()).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_costs_nobody_more_than_two_deadlines() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = SecretString::from(format!("redis://{}", socket.local_addr().unwrap()));
    // It accepts and never answers; the first question waits for that.
    let begun = Instant::now();
    let silent = redis(&url);
    assert!(begun.elapsed() < DEADLINE, "nobody connects at the start");
    let error = count(&silent).await.unwrap_err();
    assert!(matches!(error, RedisError::Late(_)), "{error:?}");
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..100 {
        assert!(matches!(count(&silent).await, Err(RedisError::Resting)));
    }
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    drop(socket);
    // Now it refuses.
    let begun = Instant::now();
    let refused = redis(&url);
    assert!(count(&refused).await.unwrap_err().is_away());
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn connections_that_the_server_closes_when_idle_cost_no_question() {
    let server = RedisServer::start(&[("timeout", "1")]).unwrap();
    let redis = redis(&server.url());
    for round in 1..=3 {
        assert_eq!(count(&redis).await.unwrap(), 2 * round - 1);
        let script = redis::Script::new("return redis.call('INCR', 'count')");
        assert_eq!(redis.run::<i64>(&script.prepare_invoke()).await.unwrap(), 2 * round);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
}

#[tokio::test]
#[ignore = "needs a real server: make e2e-services"]
async fn a_killed_and_a_paused_server_are_found_again() {
    let mut server = RedisServer::start(&[]).unwrap();
    let redis = redis(&server.url());
    answers(&redis).await;
    server.kill();
    let begun = Instant::now();
    assert!(count(&redis).await.unwrap_err().is_away());
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
    server.run().unwrap();
    let begun = Instant::now();
    answers(&redis).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    server.pause();
    let begun = Instant::now();
    assert!(count(&redis).await.unwrap_err().is_away());
    assert!(begun.elapsed() < 3 * DEADLINE, "{:?}", begun.elapsed());
    server.resume();
    answers(&redis).await;
    assert_eq!(redis.is_reachable().await, Ok(()));
}
