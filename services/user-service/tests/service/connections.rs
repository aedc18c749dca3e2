//! Connecting a MercadoLibre account: start, callback, disconnect.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use serde_json::{Value, json};
use service_kit::client::Answer;
use sha2::{Digest as _, Sha256};

use crate::support::{INTERNAL, PASSWORD, REDIRECT, SignedIn, World, refusal, text};

/// A connection that was started: the query of its consent page, the cookie that the browser keeps.
struct Started {
    query: HashMap<String, String>,
    cookie: String,
}

impl Started {
    fn state(&self) -> &str {
        &self.query["state"]
    }
}

async fn start(world: &World, user: &SignedIn) -> Started {
    let answer = world.get("/auth/ml/connect", &[("authorization", &user.bearer())]).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body: Value = answer.json().unwrap();
    let (page, query) = body["authorize_url"].as_str().unwrap().split_once('?').unwrap();
    assert_eq!(page, "https://auth.example.com/authorization");
    let query: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    assert_eq!(body["state"], query["state"].as_str());
    let set = answer.headers["set-cookie"].to_str().unwrap();
    let (cookie, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "HttpOnly; SameSite=Lax; Path=/api/auth/ml; Max-Age=600; Secure");
    assert!(!text(&answer).contains(cookie.strip_prefix("ml_connect=").unwrap()), "a script could read it");
    Started { query, cookie: cookie.to_owned() }
}

/// The browser that started it comes back.
async fn back(world: &World, started: &Started, code: &str) -> Answer {
    returned(world, started.state(), code, &[("cookie", &started.cookie), ("x-request-id", "trace-me")]).await
}

async fn returned(world: &World, state: &str, code: &str, headers: &[(&str, &str)]) -> Answer {
    world.get(&format!("/auth/ml/callback?code={code}&state={state}"), headers).await
}

async fn outcome(world: &World, name: &str) -> f64 {
    world.metric(&format!("oauth_connections_total{{outcome=\"{name}\"}}")).await
}

#[tokio::test]
async fn a_consent_connects_the_account_of_whoever_started_it() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let started = start(&world, &ana).await;
    for (name, want) in [
        ("response_type", "code"),
        ("client_id", "1234"),
        ("redirect_uri", REDIRECT),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(started.query[name], want);
    }

    let answer = back(&world, &started, "TG-code").await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    assert_eq!(answer.json::<Value>().unwrap(), json!({"connected": true, "ml_user_id": 4711}));

    let call = world.integration.call().await;
    assert_eq!(call.headers["x-internal-token"], INTERNAL);
    assert_eq!(call.headers["x-request-id"], "trace-me");
    assert_eq!(call.content["user_id"], ana.id());
    assert_eq!(call.content["tenant"], "default");
    assert_eq!(call.content["code"], "TG-code");
    assert_eq!(call.content["redirect_uri"], REDIRECT);
    let verifier = call.content["code_verifier"].as_str().unwrap();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
    assert_eq!(challenge, started.query["code_challenge"]);

    let me: Value = world.me(&ana).await.json().unwrap();
    assert_eq!(me["ml_user_id"], 4711);
    assert_eq!((outcome(&world, "started").await, outcome(&world, "connected").await), (1.0, 1.0));
}

#[tokio::test]
async fn a_state_works_once() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let started = start(&world, &ana).await;
    let answers = join_all((0..10).map(|_| back(&world, &started, "code"))).await;
    let connected = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(connected, 1);
    world.integration.call().await;
    assert_eq!(world.integration.unseen().await, 0, "one exchange only");
    assert_eq!(outcome(&world, "invalid_state").await, 9.0);
}

#[tokio::test]
async fn states_that_do_not_count_any_more_are_refused() {
    let world = World::new().await;
    let refused = (400, "invalid_state".to_owned());
    assert_eq!(refusal(&returned(&world, "unknown", "code", &[]).await), refused);

    let ana = world.register("ana@example.com").await;
    let late = start(&world, &ana).await;
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(refusal(&back(&world, &late, "code").await), refused, "ten minutes later");

    let orphan = start(&world, &ana).await;
    world.post("/auth/logout", &[], &json!({"refresh_token": ana.refresh})).await;
    assert_eq!(refusal(&back(&world, &orphan, "code").await), refused, "signed out meanwhile");
    let connect = world.get("/auth/ml/connect", &[("authorization", &ana.bearer())]).await;
    assert_eq!(connect.status, 401, "an ended session starts nothing");

    let bob = world.register("bob@example.com").await;
    let gone = start(&world, &bob).await;
    world.leave(&bob).await;
    assert_eq!(refusal(&back(&world, &gone, "code").await), refused, "the user left");
    assert_eq!(world.integration.call().await.method, "DELETE", "no code was exchanged");
    assert_eq!(world.get("/auth/ml/callback?code=x", &[]).await.status, 400, "no state at all");
}

#[tokio::test]
async fn a_callback_needs_the_browser_or_the_sign_in_that_began_it() {
    let world = World::new().await;
    let (ana, eve) = (world.register("ana@example.com").await, world.register("eve@example.com").await);
    let elsewhere = SignedIn::read(&world.login("ana@example.com", PASSWORD).await, 200);
    let of_eve = start(&world, &eve).await;
    for (what, cookie, bearer) in [
        ("nothing", None, None),
        ("a guess", Some("ml_connect=guess".to_owned()), None),
        ("an empty cookie", Some("ml_connect=".to_owned()), None),
        ("another browser", Some(of_eve.cookie.clone()), None),
        ("another user", None, Some(eve.bearer())),
        ("another sign-in", None, Some(elsewhere.bearer())),
    ] {
        let started = start(&world, &ana).await;
        let cookie = cookie.iter().map(|cookie| ("cookie", cookie.as_str()));
        let headers: Vec<_> =
            cookie.chain(bearer.iter().map(|bearer| ("authorization", bearer.as_str()))).collect();
        let answer = returned(&world, started.state(), "code", &headers).await;
        assert_eq!(refusal(&answer), (403, "other_browser".to_owned()), "{what}");
        assert_eq!(refusal(&back(&world, &started, "code").await).0, 400, "{what}: the state is used up");
    }
    assert_eq!(world.integration.unseen().await, 0, "no code was exchanged");

    let started = start(&world, &ana).await;
    let garbage = returned(&world, started.state(), "code", &[("authorization", "Bearer a.b.c")]).await;
    assert_eq!(refusal(&garbage).0, 401, "the state is kept for a better token");
    let answer = returned(&world, started.state(), "code", &[("authorization", &ana.bearer())]).await;
    assert_eq!(answer.status, 200, "{}", text(&answer));
    assert_eq!(world.integration.call().await.content["user_id"], ana.id());
}

#[tokio::test]
async fn declining_is_told_and_uses_the_state_up() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let started = start(&world, &ana).await;
    let path = format!("/auth/ml/callback?error=access_denied&state={}", started.state());
    let declined = world.get(&path, &[("cookie", &started.cookie)]).await;
    assert_eq!(refusal(&declined), (400, "consent_declined".to_owned()));
    assert_eq!(refusal(&back(&world, &started, "code").await), (400, "invalid_state".to_owned()));
    assert_eq!(outcome(&world, "denied").await, 1.0);
}

#[tokio::test]
async fn what_integration_service_says_is_passed_on_in_our_words() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    for (status, body, want) in [
        (409, json!({"error": "taken"}), (409, "ml_account_taken")),
        (400, json!({"error": "invalid_grant"}), (400, "code_refused")),
        (401, json!({"error": "unauthorized"}), (502, "integration_failed")),
        (429, json!({}), (502, "integration_failed")),
        (500, json!({"error": "internal"}), (502, "integration_failed")),
        (201, json!({"unexpected": true}), (502, "integration_failed")),
    ] {
        world.integration.answer(status, body);
        let started = start(&world, &ana).await;
        let answer = back(&world, &started, "code").await;
        assert_eq!(refusal(&answer), (want.0, want.1.to_owned()), "{status}");
    }
    assert_eq!((outcome(&world, "refused").await, outcome(&world, "failed").await), (2.0, 4.0));
    world.integration.answer(201, json!({"ml_user_id": "815"}));
    let started = start(&world, &ana).await;
    let answer = back(&world, &started, "code").await;
    assert_eq!(answer.json::<Value>().unwrap()["ml_user_id"], 815, "text is understood too");
}

#[tokio::test]
async fn an_unreachable_integration_service_is_a_503() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let world = World::with(|settings| settings.integration = url.parse().unwrap()).await;
    let ana = world.register("ana@example.com").await;
    let started = start(&world, &ana).await;
    let answer = back(&world, &started, "code").await;
    assert_eq!(refusal(&answer), (503, "integration_unavailable".to_owned()));
    assert_eq!(answer.headers["retry-after"], "5");
}

#[tokio::test]
async fn disconnecting_tells_integration_service_first() {
    let world = World::new().await;
    let ana = world.register("ana@example.com").await;
    let started = start(&world, &ana).await;
    back(&world, &started, "code").await;
    world.integration.call().await;
    let disconnect =
        || async { world.post("/auth/ml/disconnect", &[("authorization", &ana.bearer())], &json!({})).await };

    world.integration.answer(500, json!({}));
    assert_eq!(disconnect().await.status, 502);
    assert_eq!(world.me(&ana).await.json::<Value>().unwrap()["ml_user_id"], 4711, "nothing changed");

    for status in [204, 404] {
        world.integration.answer(status, json!({}));
        assert_eq!(disconnect().await.status, 204, "integration-service says {status}");
        assert_eq!(world.me(&ana).await.json::<Value>().unwrap()["ml_user_id"], Value::Null);
    }
    let call = world.integration.call().await;
    assert_eq!((call.method, call.content.as_str()), ("DELETE", Some(ana.id())));
    assert_eq!(outcome(&world, "disconnected").await, 2.0);
}
