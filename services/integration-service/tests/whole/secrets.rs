//! Every service over its main flows, failures too, with marked secrets, at LOG_LEVEL=trace: none may be in a log, a
//! trace, a metric or the answer to a request that fails.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use service_kit::client::{Answer, Client};
use service_kit::testing::{Logs, Running, client, eventually};
use service_kit::{Configuration, Environment};

use crate::system::{CLIENT_SECRET, ENCRYPTION_KEY, INTERNAL, OPERATOR, System, WEBHOOK};

const PASSWORD: &str = "canary-password";
const WRONG_PASSWORD: &str = "canary-mistyped";
const PERSON: &str = "canary.person";
const STORE_PASSWORD: &str = "canary-store-password";
const JWT_SECRET: &str = "canary-jwt-secret-of-at-least-32-bytes";

/// What failing requests were answered, heads and bodies.
#[derive(Default)]
struct Refusals(Mutex<String>);

impl Refusals {
    fn keep(&self, answer: &Answer) {
        if answer.status.as_u16() >= 400 {
            let body = String::from_utf8_lossy(&answer.body);
            self.0.lock().push_str(&format!("{:?}\n{body}\n", answer.headers));
        }
    }

    async fn send(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
        status: u16,
    ) -> Answer {
        let answer = crate::system::send(client, method, path, headers, body, status).await;
        self.keep(&answer);
        answer
    }
}

/// A field of an answer that is a secret from now on.
fn field(answer: &Answer, name: &str, secrets: &mut Vec<String>) -> String {
    let text = answer.json::<Value>().unwrap()[name].as_str().unwrap().to_owned();
    secrets.push(text.clone());
    text
}

/// Everything that a person, MercadoLibre and an operator do; answers the secrets that came up.
async fn flows(system: &System, seen: &Refusals) -> Vec<String> {
    let mut secrets = Vec::new();
    let (post, get, put, delete) = (Method::POST, Method::GET, Method::PUT, Method::DELETE);
    let front = system.front();
    let integration = system.integration.client().unwrap();
    let nothing = json!({});
    let email = format!("{PERSON}@example.com");
    let account = json!({"email": email, "password": PASSWORD});

    seen.send(&front, post.clone(), "/api/auth/register", &[], &account, 201).await;
    seen.send(&front, post.clone(), "/api/auth/register", &[], &account, 409).await;
    let probe = json!({"email": format!("probe.{email}"), "password": PASSWORD, "tenant": "mlctl-probe"});
    seen.send(&front, post.clone(), "/api/auth/register", &[], &probe, 403).await;
    let by_operator = [("x-operator-token", OPERATOR)];
    seen.send(&front, post.clone(), "/api/auth/register", &by_operator, &probe, 201).await;
    let unreadable = json!({"email": 1, "password": PASSWORD});
    seen.send(&front, post.clone(), "/api/auth/register", &[], &unreadable, 422).await;
    let mistyped = json!({"email": email, "password": WRONG_PASSWORD});
    seen.send(&front, post.clone(), "/api/auth/login", &[], &mistyped, 401).await;
    let first = seen.send(&front, post.clone(), "/api/auth/login", &[], &account, 200).await;
    field(&first, "access_token", &mut secrets);
    let spent = json!({"refresh_token": field(&first, "refresh_token", &mut secrets)});
    let second = seen.send(&front, post.clone(), "/api/auth/refresh", &[], &spent, 200).await;
    field(&second, "access_token", &mut secrets);
    field(&second, "refresh_token", &mut secrets);
    seen.send(&front, post.clone(), "/api/auth/refresh", &[], &spent, 401).await;
    let third = seen.send(&front, post.clone(), "/api/auth/login", &[], &account, 200).await;
    let bearer = format!("Bearer {}", field(&third, "access_token", &mut secrets));
    let signed = [("authorization", bearer.as_str())];
    let refresh = json!({"refresh_token": field(&third, "refresh_token", &mut secrets)});

    for cookie in ["ml_connect=canary-cookie", ""] {
        let started = seen.send(&front, get.clone(), "/api/auth/ml/connect", &signed, &nothing, 200).await;
        let set = started.headers["set-cookie"].to_str().unwrap();
        let own = set.split(';').next().unwrap().to_owned();
        secrets.push(own.strip_prefix("ml_connect=").unwrap().to_owned());
        field(&started, "state", &mut secrets);
        let url = started.json::<Value>().unwrap()["authorize_url"].as_str().unwrap().to_owned();
        let query = system.consent(&url).await;
        secrets.extend(query.split('&').map(|pair| pair.split_once('=').unwrap().1.to_owned()));
        let path = format!("/api/auth/ml/callback?{query}");
        let (cookie, status) = if cookie.is_empty() { (own.as_str(), 200) } else { (cookie, 403) };
        seen.send(&front, get.clone(), &path, &[("cookie", cookie)], &nothing, status).await;
        seen.send(&front, get.clone(), &path, &[("cookie", cookie)], &nothing, 400).await;
    }

    let page = seen.send(&front, get.clone(), "/api/ml/items", &signed, &nothing, 200).await;
    let id = page.json::<Value>().unwrap()["results"][0].as_str().unwrap().to_owned();
    let item = format!("/api/ml/items/{id}");
    seen.send(&front, get.clone(), &item, &signed, &nothing, 200).await;
    seen.send(&front, put, &item, &signed, &json!({"price": 12.5}), 200).await;
    seen.send(&front, post.clone(), "/api/ml/items/sync", &signed, &nothing, 200).await;
    let forged = [("authorization", &*format!("{bearer}x"))];
    for path in [&*item, "/api/products", "/api/analytics/summary", "/api/users/me"] {
        seen.send(&front, get.clone(), path, &forged, &nothing, 401).await;
    }
    let product = json!({"title": "Lamp", "price": 10, "currency_id": "ARS", "available_quantity": 1});
    seen.send(&front, post.clone(), "/api/products", &signed, &product, 201).await;
    seen.send(&front, post.clone(), "/api/products", &signed, &json!({"title": 1}), 422).await;
    seen.send(&front, get.clone(), "/api/analytics/summary", &signed, &nothing, 200).await;
    let by_operator = [("authorization", &*format!("Bearer {OPERATOR}"))];
    seen.send(&front, get.clone(), "/metrics", &by_operator, &nothing, 200).await;
    seen.send(&front, get.clone(), "/metrics", &signed, &nothing, 401).await;
    let catalog = system.catalog.client().unwrap();
    let wrong = [("x-internal-token", "canary-guessed-token")];
    seen.send(&catalog, post.clone(), "/internal/products/upsert", &wrong, &nothing, 401).await;
    let exchange = json!({
        "user_id": uuid::Uuid::nil(), "tenant": "default", "code": "TG-canary-code",
        "code_verifier": "canary-verifier", "redirect_uri": "http://127.0.0.1:8080/api/auth/ml/callback",
    });
    let internal = [("x-internal-token", INTERNAL)];
    let refused =
        integration.send_json(post.clone(), "/internal/ml/accounts", &internal, &exchange).await.unwrap();
    assert!(refused.status.as_u16() >= 400, "a code that nobody gave is refused");
    seen.keep(&refused);

    let me = seen.send(&front, get.clone(), "/api/users/me", &signed, &nothing, 200).await;
    let seller = me.json::<Value>().unwrap()["ml_user_id"].clone();
    let notification = json!({
        "_id": "n1", "resource": format!("/items/{id}"), "user_id": seller, "topic": "items", "application_id": "app",
    });
    let hook = format!("/api/ml/notifications/{WEBHOOK}");
    seen.send(&front, post.clone(), &hook, &[], &notification, 200).await;
    seen.send(&front, post.clone(), &hook, &[], &json!([]), 200).await;
    seen.send(&front, post.clone(), "/api/ml/notifications/canary-guess", &[], &notification, 404).await;
    eventually("the notification", || async {
        let page = system.integration.scrape().await.unwrap();
        page.contains("ml_notifications_total{outcome=\"done\"} 1").then_some(())
    })
    .await;
    let sim = client(system.sim.address).unwrap();
    let fault = json!({"endpoint": "items.search", "times": 9, "kind": "server_error"});
    seen.send(&sim, post.clone(), "/sim/faults", &[], &fault, 201).await;
    seen.send(&front, get.clone(), "/api/ml/items", &signed, &nothing, 502).await;

    seen.send(&front, post.clone(), "/api/auth/ml/disconnect", &signed, &nothing, 204).await;
    seen.send(&front, post, "/api/auth/logout", &[], &refresh, 204).await;
    let gone = front.call(delete, "/api/users/me", &signed, Bytes::new()).await.unwrap();
    assert_eq!(gone.status.as_u16(), 204);
    secrets
}

/// Services whose stores are servers that nobody runs, with a password in each address: what they say of it.
async fn without_stores(seen: &Refusals) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = closed.local_addr().unwrap();
    drop(closed);
    let environment = Environment::of([
        ("DATABASE_URL", format!("postgresql://app:{STORE_PASSWORD}@{at}/app")),
        ("REDIS_URL", format!("redis://app:{STORE_PASSWORD}@{at}")),
        ("REDIS_STATE_URL", format!("redis://app:{STORE_PASSWORD}@{at}")),
        ("MONGODB_URL", format!("mongodb://app:{STORE_PASSWORD}@{at}/app")),
        ("KAFKA_BROKERS", at.to_string()),
        ("JWT_SECRET", JWT_SECRET.to_owned()),
        ("INTERNAL_TOKEN", INTERNAL.to_owned()),
        ("WEBHOOK_SECRET", WEBHOOK.to_owned()),
        ("TOKEN_ENCRYPTION_KEY", ENCRYPTION_KEY.to_owned()),
        ("ML_CLIENT_ID", "app".to_owned()),
        ("ML_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
        ("ML_REDIRECT_URI", "https://api.example.com/callback".to_owned()),
        ("ML_AUTH_URL", format!("http://{at}")),
        ("ML_API_URL", format!("http://{at}")),
        ("USER_SERVICE_URL", format!("http://{at}")),
        ("INTEGRATION_SERVICE_URL", format!("http://{at}")),
        ("CATALOG_SERVICE_URL", format!("http://{at}")),
        ("DRAIN_SECONDS", "0".to_owned()),
    ]);
    /// Starts one, asks it a little and stops it; one that will not start tells why.
    macro_rules! lives_without {
        ($service:ident, $config:ty) => {
            let config = <$config>::from_environment($service::IDENTITY, &environment).unwrap();
            tracing::debug!(?config, "configuration");
            let running =
                Running::start(|listener, stop| $service::run(config, listener, stop)).await.unwrap();
            let asked = running.client().unwrap();
            for path in ["/health", "/readyz", "/startupz"] {
                if let Ok(answer) = asked.get(path, &[]).await {
                    assert_ne!((path, answer.status.as_u16()), ("/readyz", 200));
                    seen.keep(&answer);
                }
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            if let Err(error) = running.stop().await.unwrap() {
                tracing::error!(cause = service_kit::error::chain(&error), ?error, "the service ended");
            }
        };
    }
    lives_without!(user_service, user_service::settings::Settings);
    lives_without!(integration_service, integration_service::config::Config);
    lives_without!(catalog_service, catalog_service::Config);
    lives_without!(analytics_service, analytics_service::Config);
}

#[tokio::test]
async fn no_secret_and_no_person_is_in_a_log_a_trace_a_metric_or_a_refusal() {
    let logs = Logs::capture("trace").unwrap();
    let system = System::start().await;
    let seen = Refusals::default();
    let mut secrets = flows(&system, &seen).await;
    without_stores(&seen).await;
    let key: String = system.pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let metrics = system.metrics().await;
    let traces = system.stop().await.text();

    secrets.extend([
        key,
        // MercadoLibre's tokens and codes.
        "APP_USR-".to_owned(),
        "TG-".to_owned(),
    ]);
    let marked = [
        INTERNAL,
        OPERATOR,
        WEBHOOK,
        CLIENT_SECRET,
        ENCRYPTION_KEY,
        PASSWORD,
        WRONG_PASSWORD,
        PERSON,
        STORE_PASSWORD,
        JWT_SECRET,
        // Every other secret of these flows begins so.
        "canary",
    ];
    secrets.extend(marked.map(str::to_owned));
    let found = |text: &str| -> Vec<String> {
        let told = |line: &&str| secrets.iter().any(|secret| line.contains(secret.as_str()));
        text.lines().filter(told).map(str::to_owned).collect()
    };
    let text = logs.text();
    let refusals = seen.0.into_inner();
    for (place, text, said) in [
        ("log", &text, "a user registered"),
        ("log", &text, "a MercadoLibre account is connected"),
        ("log", &text, "\"DEBUG\""),
        ("log", &text, "\"trace_id\""),
        ("log", &text, "\"request_id\""),
        ("trace", &traces, "GET /auth/ml/callback"),
        ("trace", &traces, "mercadolibre"),
        ("metric", &metrics, "user_registrations_total"),
        ("metric", &metrics, "ml_api_requests_total"),
        ("refusal", &refusals, "email_taken"),
        ("refusal", &refusals, "ml_error"),
    ] {
        assert!(text.contains(said), "the {place}s are not what they should be, {said} is missing:\n{text}");
    }
    for (place, text) in [("log", &text), ("trace", &traces), ("metric", &metrics), ("refusal", &refusals)] {
        assert_eq!(found(text), Vec::<String>::new(), "in a {place}");
        assert_eq!(found(&format!("{text}\n{PASSWORD}")).len(), 1, "the search itself works");
    }
}
