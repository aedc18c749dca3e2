//! Guessing passwords: uniform answers, throttles that count failures only, hashes that are renewed.

use service_kit::{DatabaseUrl, Place};
use std::time::Duration;

use serde_json::json;
use service_kit::client::Answer;
use user_service::password::Cost;

use crate::support::{PASSWORD, World, refusal, text};

const COMPUTED: &str = r#"password_hashes_total{outcome="computed"}"#;

async fn login_from(world: &World, address: &str, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    world.post("/auth/login", &[("x-forwarded-for", address)], &body).await
}

#[tokio::test]
async fn an_unknown_account_and_a_wrong_password_differ_in_nothing() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    let before = world.metric(COMPUTED).await;
    let known = world.login("ana@example.com", "wrong password").await;
    let unknown = world.login("bob@example.com", "wrong password").await;
    let no_address = world.login("no address", "wrong password").await;
    assert_eq!(refusal(&known), (401, "invalid_credentials".to_owned()));
    for other in [&unknown, &no_address] {
        assert_eq!((other.status, text(other)), (known.status, text(&known)));
    }
    assert_eq!(world.metric(COMPUTED).await - before, 3.0, "each costs one hash");
}

#[tokio::test]
async fn failures_on_one_account_make_it_wait_whether_it_exists_or_not() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    for email in ["ana@example.com", "nobody@example.com"] {
        for _ in 0..6 {
            assert_eq!(world.login(email, "wrong password").await.status, 401);
        }
        let before = world.metric(COMPUTED).await;
        let refused = world.login(email, PASSWORD).await;
        assert_eq!(refusal(&refused), (429, "too_many_attempts".to_owned()), "{email}");
        assert_eq!(refused.headers["retry-after"], "1");
        assert_eq!(world.metric(COMPUTED).await, before, "a refused attempt costs nothing");
    }
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.login("ana@example.com", PASSWORD).await.status, 200);
    for _ in 0..5 {
        assert_eq!(
            world.login("ana@example.com", "wrong password").await.status,
            401,
            "the count began anew"
        );
    }
}

#[tokio::test]
async fn failures_from_one_address_make_it_wait_and_no_other() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    for guess in 0..51 {
        let answer =
            login_from(&world, "192.0.2.1", &format!("user{guess}@example.com"), "wrong password").await;
        assert_eq!(answer.status, 401, "guess {guess}");
    }
    assert_eq!(login_from(&world, "192.0.2.1", "ana@example.com", PASSWORD).await.status, 429);
    assert_eq!(login_from(&world, "192.0.2.2", "ana@example.com", PASSWORD).await.status, 200);
    let forged = login_from(&world, "192.0.2.2, 192.0.2.1", "ana@example.com", PASSWORD).await;
    assert_eq!(forged.status, 429, "what a client claims before the gateway's own value does not count");
}

#[tokio::test]
async fn asking_for_taken_addresses_is_throttled_too() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    let body = json!({"email": "ana@example.com", "password": PASSWORD});
    let headers = [("x-forwarded-for", "192.0.2.1")];
    for _ in 0..51 {
        assert_eq!(world.post("/auth/register", &headers, &body).await.status, 409);
    }
    assert_eq!(world.post("/auth/register", &headers, &body).await.status, 429);
    assert_eq!(world.metric(r#"user_registrations_total{outcome="throttled"}"#).await, 1.0);
}

#[tokio::test]
async fn successes_are_never_counted() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    for _ in 0..60 {
        assert_eq!(login_from(&world, "192.0.2.1", "ana@example.com", PASSWORD).await.status, 200);
    }
}

#[tokio::test]
async fn replicas_count_failures_together() {
    let one = World::new().await;
    one.register("ana@example.com").await;
    let folder = one.folder.path().to_owned();
    let two = World::with(|settings| {
        settings.database = DatabaseUrl::Sqlite(folder.join("app.db"));
        settings.state = Place::Embedded(folder.join("embedded"));
    })
    .await;
    for replica in [&one, &two, &one, &two, &one, &two] {
        assert_eq!(replica.login("ana@example.com", "wrong password").await.status, 401);
    }
    assert_eq!(one.login("ana@example.com", PASSWORD).await.status, 429);
    assert_eq!(two.login("ana@example.com", PASSWORD).await.status, 429);
}

#[tokio::test]
async fn a_login_renews_a_hash_that_has_become_cheap() {
    let cheap = World::new().await;
    cheap.register("ana@example.com").await;
    let folder = cheap.folder.path().to_owned();
    let database = folder.join("app.db");
    let dear = World::with(|settings| {
        settings.database = DatabaseUrl::Sqlite(folder.join("app.db"));
        settings.hash_cost = Cost { memory_kib: 128, passes: 1 };
    })
    .await;
    let stored = || {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.query_row("SELECT password_hash FROM users", [], |row| row.get::<_, String>(0)).unwrap()
    };
    assert!(stored().contains("m=64,"), "{}", stored());
    assert_eq!(dear.login("ana@example.com", PASSWORD).await.status, 200);
    assert!(stored().contains("m=128,"), "{}", stored());
    assert_eq!(
        dear.login("ana@example.com", PASSWORD).await.status,
        200,
        "the new hash is of the same password"
    );
}
