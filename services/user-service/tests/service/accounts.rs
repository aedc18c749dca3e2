//! Register, sign in, stay signed in, sign out, look, leave.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use service_kit::auth::Verifier;
use service_kit::{Clock, PROBE_TENANT};

use crate::support::{OPERATOR, PASSWORD, SignedIn, World, refusal, text};

#[tokio::test]
async fn a_registration_signs_in_with_a_token_that_others_verify() {
    let world = World::new().await;
    let answer = world
        .post(
            "/auth/register",
            &[],
            &json!({"email": " Ana@Example.com", "password": PASSWORD, "tenant": "acme"}),
        )
        .await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let ana = SignedIn::read(&answer, 201);
    assert_eq!(ana.body["user"]["email"], "ana@example.com");
    assert_eq!(ana.body["user"]["tenant"], "acme");
    assert_eq!(ana.body["user"]["created_at"], "2027-01-15T08:00:00Z");
    assert_eq!(ana.body["expires_in"], 900);
    assert!(!text(&answer).contains("argon2"));

    let (clock, _hand) = Clock::manual("2027-01-15T08:00:00Z".parse().unwrap());
    let elsewhere = Verifier::fetching(world.service.url().parse().unwrap(), clock);
    let principal = elsewhere.verify(&ana.access).await.unwrap();
    assert_eq!((principal.user_id.to_string().as_str(), principal.tenant.as_str()), (ana.id(), "acme"));

    let me: Value = world.me(&ana).await.json().unwrap();
    assert_eq!(me, ana.body["user"]);
    assert_eq!(world.metric(r#"user_registrations_total{outcome="created"}"#).await, 1.0);
}

#[tokio::test]
async fn registrations_that_cannot_be_are_refused_and_counted() {
    let world = World::new().await;
    world.register("ana@example.com").await;
    let long = "x".repeat(1025);
    for (body, want) in [
        (json!({"email": "ANA@example.com", "password": PASSWORD}), (409, "email_taken")),
        (json!({"email": "ana@example.com", "password": PASSWORD, "tenant": "other"}), (409, "email_taken")),
        (json!({"email": "no address", "password": PASSWORD}), (422, "invalid_email")),
        (json!({"email": "bob@example.com", "password": "short"}), (422, "invalid_password")),
        (json!({"email": "bob@example.com", "password": long}), (422, "invalid_password")),
        (json!({"email": "bob@example.com", "password": PASSWORD, "tenant": "A/B"}), (422, "invalid_tenant")),
        (
            json!({"email": "bob@example.com", "password": PASSWORD, "tenant": "mlctl-x"}),
            (403, "reserved_tenant"),
        ),
        (json!({"email": "bob@example.com"}), (422, "invalid_body")),
    ] {
        let answer = world.post("/auth/register", &[], &body).await;
        assert_eq!(refusal(&answer), (want.0, want.1.to_owned()), "{body}");
    }
    assert_eq!(world.metric(r#"user_registrations_total{outcome="email_taken"}"#).await, 2.0);
    assert_eq!(world.metric(r#"user_registrations_total{outcome="invalid"}"#).await, 5.0);
    assert_eq!(world.metric(r#"user_registrations_total{outcome="created"}"#).await, 1.0);
}

#[tokio::test]
async fn one_of_many_concurrent_registrations_wins() {
    let world = World::new().await;
    let body = json!({"email": "ana@example.com", "password": PASSWORD});
    let answers = join_all((0..8).map(|_| world.post("/auth/register", &[], &body))).await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status.as_u16() == status).count();
    assert_eq!((count(201), count(409)), (1, 7));
}

#[tokio::test]
async fn only_the_operator_registers_probe_users_and_they_are_not_counted() {
    let world = World::new().await;
    let body = json!({"email": "probe@example.com", "password": PASSWORD, "tenant": PROBE_TENANT});
    for headers in [vec![], vec![("x-operator-token", "wrong")]] {
        let answer = world.post("/auth/register", &headers, &body).await;
        assert_eq!(refusal(&answer), (403, "reserved_tenant".to_owned()));
    }
    let answer = world.post("/auth/register", &[("x-operator-token", OPERATOR)], &body).await;
    assert_eq!(SignedIn::read(&answer, 201).body["user"]["tenant"], PROBE_TENANT);
    for outcome in ["created", "invalid"] {
        assert_eq!(world.metric(&format!("user_registrations_total{{outcome=\"{outcome}\"}}")).await, 0.0);
    }
}

#[tokio::test]
async fn without_an_operator_token_nobody_is_the_operator() {
    let world = World::with(|settings| settings.operator_token = None).await;
    let body = json!({"email": "probe@example.com", "password": PASSWORD, "tenant": PROBE_TENANT});
    let answer = world.post("/auth/register", &[("x-operator-token", "")], &body).await;
    assert_eq!(refusal(&answer).0, 403);
}

#[tokio::test]
async fn a_login_gives_a_session_of_its_own() {
    let world = World::new().await;
    let first = world.register("ana@example.com").await;
    let second = SignedIn::read(&world.login("Ana@example.com ", PASSWORD).await, 200);
    assert_eq!(first.body["user"], second.body["user"]);
    assert_eq!(world.post("/auth/logout", &[], &json!({"refresh_token": first.refresh})).await.status, 204);
    assert_eq!(world.refresh(&second.refresh).await.status, 200, "the other session goes on");
}

#[tokio::test]
async fn refresh_tokens_rotate_and_reuse_ends_the_session() {
    let world = World::new().await;
    let first = world.register("ana@example.com").await;
    let second = SignedIn::read(&world.refresh(&first.refresh).await, 200);
    assert_ne!(first.refresh, second.refresh);
    assert_eq!(world.me(&second).await.status, 200);
    let third = SignedIn::read(&world.refresh(&second.refresh).await, 200);

    let refused = (401, "invalid_refresh_token".to_owned());
    assert_eq!(refusal(&world.refresh(&first.refresh).await), refused, "used before");
    assert_eq!(refusal(&world.refresh(&third.refresh).await), refused, "its session is revoked");
    assert_eq!(refusal(&world.refresh("unknown").await), refused);
    assert_eq!(world.login("ana@example.com", PASSWORD).await.status, 200, "signing in anew works");
}

#[tokio::test]
async fn of_twenty_concurrent_refreshes_one_wins_and_the_session_ends() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let answers = join_all((0..20).map(|_| world.refresh(&ana.refresh))).await;
    let winners: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert_eq!(winners.len(), 1);
    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 401));
    let winner = SignedIn::read(winners[0], 200);
    assert_eq!(world.refresh(&winner.refresh).await.status, 401);
}

#[tokio::test]
async fn tokens_end_with_their_time() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    world.clock.advance(Duration::from_secs(895));
    assert_eq!(world.me(&ana).await.status, 200);
    world.clock.advance(Duration::from_secs(15));
    assert_eq!(refusal(&world.me(&ana).await), (401, "invalid_token".to_owned()));

    let ana = SignedIn::read(&world.refresh(&ana.refresh).await, 200);
    assert_eq!(world.me(&ana).await.status, 200);
    world.clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(world.refresh(&ana.refresh).await.status, 401, "a month later");
}

#[tokio::test]
async fn logout_ends_the_session_and_tells_nothing() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let used = ana.refresh.clone();
    let ana = SignedIn::read(&world.refresh(&ana.refresh).await, 200);
    for token in ["unknown", &used, &ana.refresh] {
        assert_eq!(world.post("/auth/logout", &[], &json!({"refresh_token": token})).await.status, 204);
    }
    assert_eq!(world.refresh(&ana.refresh).await.status, 401);
}

#[tokio::test]
async fn routes_of_a_user_need_a_bearer_token() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let basic = format!("Basic {}", ana.access);
    let foreign = World::new().await.register("ana@example.com").await.bearer();
    for path in ["/users/me", "/auth/ml/connect"] {
        for headers in
            [vec![], vec![("authorization", basic.as_str())], vec![("authorization", foreign.as_str())]]
        {
            assert_eq!(
                refusal(&world.get(path, &headers).await),
                (401, "invalid_token".to_owned()),
                "{path}"
            );
        }
    }
    assert_eq!(refusal(&world.post("/auth/ml/disconnect", &[], &json!({})).await).0, 401);
}

#[tokio::test]
async fn who_leaves_is_gone_and_may_come_back() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    assert_eq!(world.leave(&ana).await.status, 204);
    assert_eq!(world.me(&ana).await.status, 401);
    assert_eq!(world.leave(&ana).await.status, 401);
    assert_eq!(world.refresh(&ana.refresh).await.status, 401);
    assert_eq!(
        refusal(&world.login("ana@example.com", PASSWORD).await),
        (401, "invalid_credentials".to_owned())
    );
    let again = world.register("ana@example.com").await;
    assert_ne!(again.id(), ana.id());
}
