//! user-service and this service over their main flows with marked secrets, at LOG_LEVEL=debug: none may be in the logs.
//! A program of its own, because the logs of a whole process are looked at.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, also in what its cases share")]

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::routing::post;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use service_kit::auth::Signer;
use service_kit::client::{Answer, Client};
use service_kit::testing::{Logs, Running, client, eventually, migrate};
use service_kit::{Base, Configuration, Environment, Identity, Kit, Listener, ServeError};
use user_service::password::Cost;

const INTERNAL: &str = "canary-internal-token";
const OPERATOR: &str = "canary-operator-token";
const WEBHOOK: &str = "canary-webhook-secret";
const CLIENT_SECRET: &str = "canary-client-secret";
/// `canary-token-encryption-key-1234` in base64.
const ENCRYPTION_KEY: &str = "Y2FuYXJ5LXRva2VuLWVuY3J5cHRpb24ta2V5LTEyMzQ=";
const PASSWORD: &str = "canary-password";
const WRONG_PASSWORD: &str = "canary-mistyped";
const PERSON: &str = "canary.person";
const PATIENCE: Duration = Duration::from_secs(10);

/// Both services, MercadoLibre and a catalog that takes everything, each knowing the others.
struct System {
    users: Running<user_service::RunError>,
    integration: Running<integration_service::RunError>,
    sim: Running<ServeError>,
    catalog: Running<ServeError>,
    pem: String,
    _folder: tempfile::TempDir,
}

impl System {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        for service in ["user-service", "integration-service"] {
            let services = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
            migrate(&database, &services.join(service).join("migrations/sqlite")).unwrap();
        }
        let redirect = "http://127.0.0.1:8080/api/auth/ml/callback";
        let sim_environment = Environment::of([
            ("SIM_CLIENT_ID", "app"),
            ("SIM_CLIENT_SECRET", CLIENT_SECRET),
            ("SIM_REDIRECT_URI", redirect),
        ]);
        let config =
            ml_api_sim::config::Config::from_environment(ml_api_sim::IDENTITY, &sim_environment).unwrap();
        let sim = Running::start(|listener, shutdown| ml_api_sim::run(config, listener, shutdown));
        let sim = sim.await.unwrap();
        let identity = Identity::new("catalog-service", "0.0.0", 3003);
        let routes = Router::new().route("/internal/products/upsert", post(|| async { StatusCode::OK }));
        let catalog = Running::start(|listener, shutdown| async move {
            Kit::new(identity, &Base::new(identity)).serve(routes, listener, shutdown).await
        });
        let catalog = catalog.await.unwrap();

        let for_users = Listener::loopback().await.unwrap();
        let for_integration = Listener::loopback().await.unwrap();
        let url = |listener: &Listener| format!("http://{}", listener.local_addr().unwrap());
        let pem = Signer::generate_pem().unwrap().expose_secret().to_owned();
        let environment = Environment::of([
            ("DATABASE_URL", format!("sqlite:{}", database.display())),
            ("EMBEDDED_DIR", folder.path().display().to_string()),
            ("JWT_KEYS", pem.clone()),
            ("INTERNAL_TOKEN", INTERNAL.to_owned()),
            ("OPERATOR_TOKEN", OPERATOR.to_owned()),
            ("WEBHOOK_SECRET", WEBHOOK.to_owned()),
            ("TOKEN_ENCRYPTION_KEY", ENCRYPTION_KEY.to_owned()),
            ("ML_CLIENT_ID", "app".to_owned()),
            ("ML_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            ("ML_REDIRECT_URI", redirect.to_owned()),
            ("ML_AUTH_URL", sim.url()),
            ("ML_API_URL", sim.url()),
            ("USER_SERVICE_URL", url(&for_users)),
            ("INTEGRATION_SERVICE_URL", url(&for_integration)),
            ("CATALOG_SERVICE_URL", catalog.url()),
            ("DRAIN_SECONDS", "0".to_owned()),
        ]);
        let mut settings =
            user_service::settings::Settings::from_environment(user_service::IDENTITY, &environment).unwrap();
        settings.hash_cost = Cost { memory_kib: 64, passes: 1 };
        let users =
            Running::start_on(for_users, |listener, stop| user_service::run(settings, listener, stop))
                .unwrap();
        let config = integration_service::config::Config::from_environment(
            integration_service::IDENTITY,
            &environment,
        )
        .unwrap();
        let integration = Running::start_on(for_integration, |listener, stop| {
            integration_service::run(config, listener, stop)
        })
        .unwrap();
        users.ready(PATIENCE).await.unwrap();
        integration.ready(PATIENCE).await.unwrap();
        Self { users, integration, sim, catalog, pem, _folder: folder }
    }

    async fn stop(self) {
        self.users.stop().await.unwrap().unwrap();
        self.integration.stop().await.unwrap().unwrap();
        self.sim.stop().await.unwrap().unwrap();
        self.catalog.stop().await.unwrap().unwrap();
    }
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
    status: u16,
) -> Answer {
    let answer = client.send_json(method.clone(), path, headers, body).await.unwrap();
    assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
    answer
}

/// A field of an answer that is a secret from now on.
fn field(answer: &Answer, name: &str, secrets: &mut Vec<String>) -> String {
    let text = answer.json::<Value>().unwrap()[name].as_str().unwrap().to_owned();
    secrets.push(text.clone());
    text
}

/// Consents at MercadoLibre as a browser would; the callback's query.
async fn consent(system: &System, authorize_url: &str) -> String {
    let path = authorize_url.strip_prefix(&system.sim.url()).unwrap();
    let answer = client(system.sim.address).unwrap().get(path, &[]).await.unwrap();
    let location = answer.headers["location"].to_str().unwrap();
    location.split_once('?').unwrap().1.to_owned()
}

/// Everything that a person, MercadoLibre and an operator do; answers the secrets that came up.
async fn flows(system: &System) -> Vec<String> {
    let mut secrets = Vec::new();
    let (post, get, put, delete) = (Method::POST, Method::GET, Method::PUT, Method::DELETE);
    let users = system.users.client().unwrap();
    let integration = system.integration.client().unwrap();
    let nothing = json!({});
    let email = format!("{PERSON}@example.com");
    let account = json!({"email": email, "password": PASSWORD});

    send(&users, post.clone(), "/auth/register", &[], &account, 201).await;
    send(&users, post.clone(), "/auth/register", &[], &account, 409).await;
    let probe = json!({"email": format!("probe.{email}"), "password": PASSWORD, "tenant": "mlctl-probe"});
    send(&users, post.clone(), "/auth/register", &[], &probe, 403).await;
    send(&users, post.clone(), "/auth/register", &[("x-operator-token", OPERATOR)], &probe, 201).await;
    send(&users, post.clone(), "/auth/register", &[], &json!({"email": 1, "password": PASSWORD}), 422).await;
    let mistyped = json!({"email": email, "password": WRONG_PASSWORD});
    send(&users, post.clone(), "/auth/login", &[], &mistyped, 401).await;
    let first = send(&users, post.clone(), "/auth/login", &[], &account, 200).await;
    field(&first, "access_token", &mut secrets);
    let spent = json!({"refresh_token": field(&first, "refresh_token", &mut secrets)});
    let second = send(&users, post.clone(), "/auth/refresh", &[], &spent, 200).await;
    field(&second, "access_token", &mut secrets);
    field(&second, "refresh_token", &mut secrets);
    send(&users, post.clone(), "/auth/refresh", &[], &spent, 401).await;
    let third = send(&users, post.clone(), "/auth/login", &[], &account, 200).await;
    let bearer = format!("Bearer {}", field(&third, "access_token", &mut secrets));
    let signed = [("authorization", bearer.as_str())];
    let refresh = json!({"refresh_token": field(&third, "refresh_token", &mut secrets)});

    for cookie in ["ml_connect=canary-cookie", ""] {
        let started = send(&users, get.clone(), "/auth/ml/connect", &signed, &nothing, 200).await;
        let set = started.headers["set-cookie"].to_str().unwrap();
        let own = set.split(';').next().unwrap().to_owned();
        secrets.push(own.strip_prefix("ml_connect=").unwrap().to_owned());
        field(&started, "state", &mut secrets);
        let url = started.json::<Value>().unwrap()["authorize_url"].as_str().unwrap().to_owned();
        let query = consent(system, &url).await;
        secrets.push(query.clone());
        let path = format!("/auth/ml/callback?{query}");
        let (cookie, status) = if cookie.is_empty() { (own.as_str(), 200) } else { (cookie, 403) };
        send(&users, get.clone(), &path, &[("cookie", cookie)], &nothing, status).await;
        send(&users, get.clone(), &path, &[("cookie", cookie)], &nothing, 400).await;
    }

    let page = send(&integration, get.clone(), "/ml/items", &signed, &nothing, 200).await;
    let id = page.json::<Value>().unwrap()["results"][0].as_str().unwrap().to_owned();
    let item = format!("/ml/items/{id}");
    send(&integration, get.clone(), &item, &signed, &nothing, 200).await;
    send(&integration, put, &item, &signed, &json!({"price": 12.5}), 200).await;
    send(&integration, post.clone(), "/ml/items/sync", &signed, &nothing, 200).await;
    let forged = [("authorization", &*format!("{bearer}x"))];
    send(&integration, get.clone(), &item, &forged, &nothing, 401).await;
    let me = send(&users, get.clone(), "/users/me", &signed, &nothing, 200).await;
    let seller = me.json::<Value>().unwrap()["ml_user_id"].clone();
    let notification = json!({
        "_id": "n1", "resource": format!("/items/{id}"), "user_id": seller, "topic": "items", "application_id": "app",
    });
    let hook = format!("/ml/notifications/{WEBHOOK}");
    send(&integration, post.clone(), &hook, &[], &notification, 200).await;
    send(&integration, post.clone(), &hook, &[], &json!([]), 200).await;
    eventually("the notification", || async {
        let page = system.integration.scrape().await.unwrap();
        page.contains("ml_notifications_total{outcome=\"done\"} 1").then_some(())
    })
    .await;
    let sim = client(system.sim.address).unwrap();
    let fault = json!({"endpoint": "items.search", "times": 9, "kind": "server_error"});
    send(&sim, post.clone(), "/sim/faults", &[], &fault, 201).await;
    send(&integration, get.clone(), "/ml/items", &signed, &nothing, 502).await;

    send(&users, post.clone(), "/auth/ml/disconnect", &signed, &nothing, 204).await;
    send(&users, post, "/auth/logout", &[], &refresh, 204).await;
    let gone = users.call(delete, "/users/me", &signed, Bytes::new()).await.unwrap();
    assert_eq!(gone.status.as_u16(), 204);
    secrets
}

#[tokio::test]
async fn no_secret_and_no_person_is_in_the_logs() {
    let logs = Logs::capture("debug").unwrap();
    let system = System::start().await;
    let mut secrets = flows(&system).await;
    let key: String = system.pem.lines().filter(|line| !line.starts_with("-----")).collect();
    system.stop().await;

    secrets.extend([
        key,
        INTERNAL.to_owned(),
        OPERATOR.to_owned(),
        WEBHOOK.to_owned(),
        CLIENT_SECRET.to_owned(),
        ENCRYPTION_KEY.to_owned(),
        PASSWORD.to_owned(),
        WRONG_PASSWORD.to_owned(),
        PERSON.to_owned(),
        "canary-cookie".to_owned(),
        // MercadoLibre's tokens and codes.
        "APP_USR-".to_owned(),
        "TG-".to_owned(),
    ]);
    let text = logs.text();
    for said in
        ["a user registered", "a MercadoLibre account is connected", "items synchronised", "\"DEBUG\""]
    {
        assert!(text.contains(said), "the logs are not what they should be, {said} is missing:\n{text}");
    }
    let found = |text: &str| -> Vec<String> {
        let told = |line: &&str| secrets.iter().any(|secret| line.contains(secret.as_str()));
        text.lines().filter(told).map(str::to_owned).collect()
    };
    assert_eq!(found(&text), Vec::<String>::new());
    tracing::info!(secret = secrets[0], "the search itself works");
    assert_eq!(found(&logs.text()).len(), 1);
}
