//! What users do: read, list, change, create and synchronise, on whichever process answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::fleet::{Fleet, REDIRECT};

/// Workers of each user: more than its quota lets through.
const WORKERS: usize = 3;
/// The first users do nothing but synchronise.
const SYNCHRONISERS: usize = 2;
/// Pause between two requests of a worker, and after one that was turned away.
const PAUSE: Duration = Duration::from_millis(20);
/// A listing is repeated until it is answered for good.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) seller: u64,
    pub(crate) items: Vec<String>,
    bearer: String,
}

/// A new item that a user asked for once, however often it had to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) seller: u64,
    pub(crate) sku: String,
    /// What the last answer said.
    pub(crate) id: Option<String>,
}

pub(crate) struct Traffic {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) users: Vec<User>,
    pub(crate) stopped: AtomicBool,
    pub(crate) quiet: AtomicBool,
    pub(crate) listings: Mutex<Vec<Listing>>,
    answers: Mutex<BTreeMap<(&'static str, u16, String), u64>>,
    slowest: Mutex<(Duration, &'static str)>,
    dice: AtomicU64,
    begun: Instant,
}

/// Draws numbers that look random and come again in every run.
pub(crate) fn draw(dice: &AtomicU64, below: usize) -> usize {
    let mut mixed = dice.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
}

impl Traffic {
    /// Users with an account each.
    pub(crate) async fn connect(fleet: &Arc<Fleet>, count: usize) -> Arc<Self> {
        let mut users = Vec::new();
        for _ in 0..count {
            let id = Uuid::new_v4();
            let bearer = fleet.identity.bearer(id, "default").unwrap();
            let redirect = REDIRECT.replace(':', "%3A").replace('/', "%2F");
            let path =
                format!("/authorization?response_type=code&client_id=app&redirect_uri={redirect}&state=s");
            let consent: Value =
                fleet.sim.get(&path, &[("accept", "application/json")]).await.unwrap().json().unwrap();
            let body = json!({
                "user_id": id, "tenant": "default", "code": consent["code"], "redirect_uri": REDIRECT,
            });
            let internal = [("x-internal-token", "internal")];
            let answer = fleet.processes[0]
                .send_json(Method::POST, "/internal/ml/accounts", &internal, &body)
                .await
                .unwrap();
            assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.body);
            let page: Value = loop {
                let asked =
                    fleet.processes[0].get("/ml/items?limit=100", &[("authorization", &bearer)]).await;
                let asked = asked.unwrap();
                if asked.status.as_u16() == 200 {
                    break asked.json().unwrap();
                }
                tokio::time::sleep(PAUSE).await;
            };
            let items = page["results"].as_array().unwrap().iter();
            let items = items.map(|id| id.as_str().unwrap().to_owned()).collect();
            users.push(User { id, seller: consent["user_id"].as_u64().unwrap(), items, bearer });
        }
        Arc::new(Self {
            fleet: Arc::clone(fleet),
            users,
            stopped: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            listings: Mutex::default(),
            answers: Mutex::default(),
            slowest: Mutex::default(),
            dice: AtomicU64::new(7),
            begun: Instant::now(),
        })
    }

    pub(crate) fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        let workers = (0..self.users.len() * WORKERS).map(|worker| {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.work(worker % this.users.len()).await })
        });
        workers.collect()
    }

    async fn work(&self, user: usize) {
        while !self.stopped.load(Ordering::SeqCst) {
            tokio::time::sleep(PAUSE).await;
            if self.quiet.load(Ordering::SeqCst) {
                continue;
            }
            let items = &self.users[user].items;
            let item = format!("/ml/items/{}", items[draw(&self.dice, items.len())]);
            // A synchronisation needs several calls at once, which bulk work gets only of a quota that is not used up.
            if user < SYNCHRONISERS {
                self.ask("sync", user, Method::POST, "/ml/items/sync", Some(&json!({})), &[]).await;
                tokio::time::sleep(25 * PAUSE).await;
                continue;
            }
            // Neither does it get one where the API's own limit is used up: every few seconds there is less to do.
            if self.begun.elapsed().as_secs() % 8 < 3 {
                tokio::time::sleep(15 * PAUSE).await;
            }
            let status = match draw(&self.dice, 100) {
                0..40 => self.ask("list", user, Method::GET, "/ml/items?limit=5", None, &[]).await.0,
                40..70 => self.ask("read", user, Method::GET, &item, None, &[]).await.0,
                70..88 => {
                    let price = json!({ "price": 100 + draw(&self.dice, 100_000) });
                    self.ask("change", user, Method::PUT, &item, Some(&price), &[]).await.0
                }
                88..92 => {
                    self.ask("sync", user, Method::POST, "/ml/items/sync", Some(&json!({})), &[]).await.0
                }
                92..97 => self.ask("read", user, Method::GET, "/ml/items/MLA1", None, &[]).await.0,
                _ => self.list_new(user).await,
            };
            if status >= 400 {
                tokio::time::sleep(2 * PAUSE).await;
            }
        }
    }

    /// Lists a new item: the same request until there is an answer that settles it.
    async fn list_new(&self, user: usize) -> u16 {
        let sku = Uuid::new_v4().to_string();
        let draft = json!({
            "title": "Mochila", "category_id": "MLA1161", "price": 10, "currency_id": "ARS",
            "available_quantity": 1, "buying_mode": "buy_it_now", "listing_type_id": "gold_special",
            "pictures": [{ "source": "x" }],
            "attributes": [
                { "id": "BRAND", "value_name": "A" },
                { "id": "ITEM_CONDITION", "value_name": "Nuevo" },
                { "id": "SELLER_SKU", "value_name": sku },
            ],
        });
        let until = Instant::now() + PATIENCE;
        loop {
            let headers = [("idempotency-key", sku.as_str())];
            let (status, body) =
                self.ask("create", user, Method::POST, "/ml/items", Some(&draft), &headers).await;
            let id = body["id"].as_str().map(str::to_owned);
            let settled = matches!(status, 200..300);
            if settled || Instant::now() > until {
                assert!(settled, "{sku} was never answered: {status} {body}");
                self.listings.lock().push(Listing { seller: self.users[user].seller, sku, id });
                return status;
            }
            let pause = 3 + draw(&self.dice, 20);
            tokio::time::sleep(PAUSE * u32::try_from(pause).unwrap()).await;
        }
    }

    pub(crate) async fn ask(
        &self,
        what: &'static str,
        user: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let process = draw(&self.dice, self.fleet.processes.len());
        self.ask_of(process, what, user, method, path, body, headers).await
    }

    #[expect(clippy::too_many_arguments, reason = "a request has as many parts")]
    pub(crate) async fn ask_of(
        &self,
        process: usize,
        what: &'static str,
        user: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let process = &self.fleet.processes[process];
        let mut all = vec![("authorization", self.users[user].bearer.as_str())];
        all.extend_from_slice(headers);
        let begun = Instant::now();
        let answer = match body {
            None => process.get(path, &all).await,
            Some(body) => process.send_json(method, path, &all, body).await,
        };
        let took = begun.elapsed();
        let answer = answer.unwrap_or_else(|error| panic!("{what}: a request was dropped: {error:?}"));
        let status = answer.status.as_u16();
        let body = answer.json::<Value>().unwrap_or_default();
        let error = if status >= 400 { body["error"].as_str().unwrap_or("?") } else { "" };
        *self.answers.lock().entry((what, status, error.to_owned())).or_default() += 1;
        let mut slowest = self.slowest.lock();
        if took > slowest.0 {
            *slowest = (took, what);
        }
        drop(slowest);
        (status, body)
    }

    pub(crate) fn told(&self) {
        for ((what, status, error), count) in &*self.answers.lock() {
            println!("    | {what:<7} {status} {error:<22} {count}");
        }
        println!("    | slowest answer {:?}", self.slowest.lock());
    }

    /// A store that is away is nobody's failed request: what is turned away is turned away by a quota, by a fault that
    /// MercadoLibre was told to have, or by a doubt that such a fault left.
    pub(crate) fn answers_are_as_they_should_be(&self) {
        let answers = self.answers.lock();
        for ((what, status, error), count) in &*answers {
            let fits = match *status {
                200..300 => true,
                // Items that are not the user's.
                403 | 404 => *what == "read",
                429 => error == "rate_limited" || error == "ml_rate_limited",
                409 => *what == "create" && error == "in_flight",
                502 => error == "listing_in_doubt" || error == "ml_error" || error.starts_with("ml_"),
                _ => false,
            };
            assert!(fits, "{what} {status} {error}: {count}");
        }
        for what in ["list", "read", "change", "sync", "create"] {
            let good = answers.iter().filter(|((other, status, _), _)| *other == what && *status < 300);
            assert!(good.map(|(_, count)| count).sum::<u64>() > 0, "no {what} went well");
        }
        assert!(answers.keys().any(|(_, status, _)| *status == 429), "the quotas were never reached");
    }
}
