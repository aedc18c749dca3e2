//! The simulator over HTTP, as a client of MercadoLibre meets it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise, also in what its cases share")]

use std::time::Duration;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ml_api_sim::config::Config;
use ml_api_sim::{IDENTITY, run};
use serde_json::{Value, json};
use service_kit::client::{Answer, CallError, Client};
use service_kit::testing::{Running, client};
use service_kit::{Configuration, Environment, ServeError};
use sha2::{Digest, Sha256};

const REDIRECT: &str = "http%3A%2F%2F127.0.0.1%3A8080%2Fcallback";
const VERIFIER: &str = "a-verifier-of-sufficient-length-0123456789abc";

struct Site {
    running: Running<ServeError>,
    client: Client,
}

struct Seller {
    id: u64,
    bearer: String,
    refresh_token: String,
}

impl Site {
    async fn open(environment: &Environment) -> Self {
        let config = Config::from_environment(IDENTITY, environment).unwrap();
        let running = Running::start(|listener, shutdown| run(config, listener, shutdown)).await.unwrap();
        let client = client(running.address).unwrap();
        Self { running, client }
    }

    async fn get(&self, path: &str, bearer: &str) -> Answer {
        self.client.get(path, &[("authorization", bearer)]).await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, bearer: &str, body: &Value) -> Answer {
        self.client.send_json(method, path, &[("authorization", bearer)], body).await.unwrap()
    }

    async fn form(&self, body: String) -> Answer {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.client.call(Method::POST, "/oauth/token", &headers, body.into()).await.unwrap()
    }

    async fn connect(&self) -> Seller {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let path = format!(
            "/authorization?response_type=code&client_id=app&redirect_uri={REDIRECT}&state=s%2F1\
             &code_challenge={challenge}&code_challenge_method=S256"
        );
        let consent = self.client.get(&path, &[("accept", "application/json")]).await.unwrap();
        let consent: Value = consent.json().unwrap();
        assert_eq!(consent["state"], "s/1");
        let code = consent["code"].as_str().unwrap();
        let answer = self
            .form(format!(
                "grant_type=authorization_code&client_id=app&client_secret=secret&code={code}\
                 &redirect_uri={REDIRECT}&code_verifier={VERIFIER}"
            ))
            .await;
        assert_eq!(answer.status.as_u16(), 200, "{:?}", answer.body);
        let pair: Value = answer.json().unwrap();
        Seller {
            id: pair["user_id"].as_u64().unwrap(),
            bearer: format!("Bearer {}", pair["access_token"].as_str().unwrap()),
            refresh_token: pair["refresh_token"].as_str().unwrap().to_owned(),
        }
    }

    async fn ids(&self, seller: &Seller) -> Vec<String> {
        let answer = self.get(&format!("/users/{}/items/search", seller.id), &seller.bearer).await;
        let page: Value = answer.json().unwrap();
        page["results"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }

    async fn fault(&self, rule: Value) {
        let answer = self.client.send_json(Method::POST, "/sim/faults", &[], &rule).await.unwrap();
        assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.body);
    }

    async fn ledger(&self) -> Vec<Value> {
        let answer: Value = self.client.get("/sim/ledger", &[]).await.unwrap().json().unwrap();
        answer["entries"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn consent_sends_the_browser_back_with_code_and_state() {
    let site = Site::open(&Environment::default()).await;
    let path = format!("/authorization?response_type=code&client_id=app&redirect_uri={REDIRECT}&state=s%2F1");
    let answer = site.client.get(&path, &[]).await.unwrap();
    assert_eq!(answer.status.as_u16(), 303);
    let location = answer.headers["location"].to_str().unwrap();
    assert!(location.starts_with("http://127.0.0.1:8080/callback?code=TG-"), "{location}");
    assert!(location.ends_with("&state=s%2F1"), "{location}");
}

#[tokio::test]
async fn a_seller_sees_its_own_items_and_no_others() {
    let site = Site::open(&Environment::of([("SIM_ITEMS", "30")])).await;
    let (ours, theirs) = (site.connect().await, site.connect().await);
    let ids = site.ids(&ours).await;
    assert_eq!(ids.len(), 30);
    let item: Value = site.get(&format!("/items/{}", ids[0]), &ours.bearer).await.json().unwrap();
    assert!(item["available_quantity"].is_u64());
    assert_eq!(site.get(&format!("/items/{}", ids[0]), &theirs.bearer).await.status.as_u16(), 403);
    let public: Value = site.client.get(&format!("/items/{}", ids[0]), &[]).await.unwrap().json().unwrap();
    assert!(public.get("available_quantity").is_none());
    assert_eq!(site.get("/users/me", "Bearer wrong").await.status.as_u16(), 401);
    assert_eq!(
        site.get(&format!("/users/{}/items/search", ours.id), &theirs.bearer).await.status.as_u16(),
        403
    );
    let far = site.get(&format!("/users/{}/items/search?offset=1001", ours.id), &ours.bearer).await;
    assert_eq!(far.status.as_u16(), 400);
}

#[tokio::test]
async fn bulk_keeps_the_order_and_has_its_own_envelope() {
    let site = Site::open(&Environment::default()).await;
    let seller = site.connect().await;
    let ids = site.ids(&seller).await;
    let bulk = |ids: String, rest: &str| format!("/items/bulk?ids={ids}{rest}");
    let asked = format!("{},MLA9,{}", ids[4], ids[1]);
    let entries: Value = site.get(&bulk(asked.clone(), ""), &seller.bearer).await.json().unwrap();
    let codes: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["status_code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [200, 404, 200]);
    assert_eq!((&entries[0]["body"]["id"], &entries[2]["body"]["id"]), (&json!(ids[4]), &json!(ids[1])));
    assert!(entries[1].get("body").is_none());
    let some: Value =
        site.get(&bulk(asked, "&attributes=body.id,body.price"), &seller.bearer).await.json().unwrap();
    assert_eq!(some[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["body"]);
    assert_eq!(some[0]["body"].as_object().unwrap().len(), 2);
    let twice = site.get(&bulk(format!("{0},{0}", ids[0]), ""), &seller.bearer).await;
    assert_eq!(twice.status.as_u16(), 400);
    let many = site.get(&bulk(ids[..21].join(","), ""), &seller.bearer).await;
    assert_eq!(many.status.as_u16(), 400);
    let legacy = site.get(&format!("/items?ids={}", ids[0]), &seller.bearer).await;
    assert_eq!(legacy.status.as_u16(), 410);
}

#[tokio::test]
async fn a_refresh_token_works_once_and_the_ledger_tells_who_presented_it_twice() {
    let site = Site::open(&Environment::default()).await;
    let seller = site.connect().await;
    let form = format!(
        "grant_type=refresh_token&client_id=app&client_secret=secret&refresh_token={}",
        seller.refresh_token
    );
    assert_eq!(site.form(form.clone()).await.status.as_u16(), 200);
    let again = site.form(form).await;
    assert_eq!(again.json::<Value>().unwrap()["error"], "invalid_grant");
    let summary: Value = site.client.get("/sim/ledger/summary", &[]).await.unwrap().json().unwrap();
    assert_eq!(summary["refresh_tokens_presented_twice"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn faults_shape_the_answers_they_are_asked_for() {
    let site = Site::open(&Environment::default()).await;
    let seller = site.connect().await;
    let item = format!("/items/{}", site.ids(&seller).await[0]);
    let cases = [
        (json!({"kind": "rate_limited", "body": "json"}), 429, true),
        (json!({"kind": "rate_limited", "body": "text"}), 429, true),
        (json!({"kind": "rate_limited", "body": "empty"}), 429, false),
        (json!({"kind": "server_error", "status": 503}), 503, true),
        (json!({"kind": "conflict"}), 409, true),
        (json!({"kind": "slow", "delay_ms": 1}), 200, true),
    ];
    for (mut rule, status, has_body) in cases {
        rule["endpoint"] = json!("items.get");
        rule["times"] = json!(1);
        site.fault(rule.clone()).await;
        let answer = site.get(&item, &seller.bearer).await;
        assert_eq!((answer.status.as_u16(), !answer.body.is_empty()), (status, has_body), "{rule}");
    }
    assert_eq!(site.get(&item, &seller.bearer).await.status.as_u16(), 200);
    site.fault(json!({"endpoint": "items.get", "times": 1, "kind": "reset"})).await;
    let broken = site.client.get(&item, &[("authorization", &seller.bearer)]).await;
    assert!(matches!(broken, Err(CallError::Broken { .. })), "{broken:?}");
    site.fault(json!({"endpoint": "items.get", "times": 1, "kind": "hang"})).await;
    let impatient = Client::new(site.running.url().parse().unwrap(), Duration::from_millis(50));
    let hung = impatient.get(&item, &[("authorization", &seller.bearer)]).await;
    assert!(matches!(hung, Err(CallError::Timeout { .. })), "{hung:?}");
    let faults: Vec<Value> =
        site.ledger().await.into_iter().filter(|entry| !entry["fault"].is_null()).collect();
    assert!(faults.len() >= 7, "{faults:?}");
}

#[tokio::test]
async fn an_item_is_created_although_the_answer_is_partial() {
    let site = Site::open(&Environment::of([("SIM_ITEMS", "0")])).await;
    let seller = site.connect().await;
    let draft = json!({
        "title": "Mochila", "category_id": "MLA1161", "price": 10, "currency_id": "ARS", "available_quantity": 1,
        "buying_mode": "buy_it_now", "listing_type_id": "gold_special", "pictures": [{"source": "x"}],
        "attributes": [{"id": "BRAND", "value_name": "A"}, {"id": "ITEM_CONDITION", "value_name": "Nuevo"}],
    });
    site.fault(json!({"endpoint": "items.create", "times": 1, "kind": "content_missing"})).await;
    let answer = site.send(Method::POST, "/items", &seller.bearer, &draft).await;
    assert_eq!((answer.status.as_u16(), answer.headers.contains_key("x-content-missing")), (206, true));
    let id = answer.json::<Value>().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(site.ids(&seller).await, std::slice::from_ref(&id));
    let price = site.send(Method::PUT, &format!("/items/{id}"), &seller.bearer, &json!({"price": 11})).await;
    assert_eq!(price.json::<Value>().unwrap()["price"], 11.0);
    let created: Vec<Value> =
        site.ledger().await.into_iter().filter(|entry| entry["detail"]["created"] == json!(id)).collect();
    assert_eq!(created.len(), 1);
}

#[tokio::test]
async fn a_seller_over_the_minute_limit_gets_an_empty_429() {
    let environment =
        Environment::of([("SIM_RATE_LIMIT_PER_MINUTE", "2"), ("SIM_CLOCK", "2026-01-01T00:00:00Z")]);
    let site = Site::open(&environment).await;
    let seller = site.connect().await;
    for expected in [200, 200, 429] {
        assert_eq!(site.get("/users/me", &seller.bearer).await.status.as_u16(), expected);
    }
    site.client.send_json(Method::POST, "/sim/clock", &[], &json!({"advance_seconds": 60})).await.unwrap();
    assert_eq!(site.get("/users/me", &seller.bearer).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_change_is_notified_over_http() {
    let (sender, mut notified) = tokio::sync::mpsc::channel::<Value>(4);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = format!("http://{}/hook", socket.local_addr().unwrap());
    let receiver = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |axum::Json(body): axum::Json<Value>| {
            let sender = sender.clone();
            async move { sender.send(body).await.unwrap() }
        }),
    );
    tokio::spawn(async move { axum::serve(socket, receiver).await });
    let site = Site::open(&Environment::of([("SIM_NOTIFY_URL", hook.as_str())])).await;
    let seller = site.connect().await;
    let id = site.ids(&seller).await[0].clone();
    site.send(Method::PUT, &format!("/items/{id}"), &seller.bearer, &json!({"price": 11})).await;
    let body = tokio::time::timeout(Duration::from_secs(10), notified.recv()).await.unwrap().unwrap();
    assert_eq!(
        (&body["resource"], &body["topic"], &body["user_id"]),
        (&json!(format!("/items/{id}")), &json!("items"), &json!(seller.id))
    );
    assert!(body["_id"].is_string());
    let feeds = site.get("/missed_feeds?app_id=app&topic=items&site_id=MLA", &seller.bearer).await;
    assert_eq!(feeds.json::<Value>().unwrap()["messages"], json!([]));
    assert_eq!(site.get("/missed_feeds?app_id=app&topic=items", &seller.bearer).await.status.as_u16(), 400);
}
