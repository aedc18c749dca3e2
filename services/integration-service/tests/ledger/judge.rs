//! The verdicts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use axum::http::Method;
use serde_json::Value;

use crate::fleet::{Fleet, REDIRECT};
use crate::traffic::Traffic;
use crate::{GLOBAL, ML_API, USER, WINDOW};

/// Most calls within any half-open window, by the ledger's clock.
fn busiest(mut times: Vec<i64>, window: Duration) -> (usize, i64) {
    times.sort_unstable();
    let window = i64::try_from(window.as_millis()).unwrap();
    let (mut open, mut most) = (VecDeque::new(), (0, 0));
    for at in times {
        open.push_back(at);
        while open.front().is_some_and(|first| at - first >= window) {
            open.pop_front();
        }
        most = most.max((open.len(), at));
    }
    most
}

/// Our calls: not the browser's consent, and not what MercadoLibre sent.
fn calls(entries: &[Value]) -> impl Iterator<Item = &Value> {
    let ours =
        |entry: &&Value| entry["endpoint"] != "notification" && entry["endpoint"] != "oauth.authorization";
    entries.iter().filter(ours)
}

fn time(entry: &Value) -> i64 {
    entry["at_ms"].as_i64().unwrap()
}

/// No window over a quota. A call is granted when it leaves and written down when it arrives: so much later the first
/// of a window's calls may be than it was granted, and so much shorter is the window that must hold no more.
pub(crate) fn quotas(entries: &[Value], tolerance: Duration) {
    assert!(tolerance <= WINDOW / 4, "{tolerance:?} for a round trip: this machine is too busy to judge");
    let all: Vec<i64> = calls(entries).map(time).collect();
    let mut of_sellers = BTreeMap::<u64, Vec<i64>>::new();
    for entry in calls(entries) {
        if let Some(seller) = entry["seller"].as_u64() {
            of_sellers.entry(seller).or_default().push(time(entry));
        }
    }
    let window = WINDOW - tolerance;
    let most = busiest(all.clone(), window);
    let seller = of_sellers.values().map(|times| busiest(times.clone(), window)).max().unwrap();
    let seller_strictly = of_sellers.values().map(|times| busiest(times.clone(), WINDOW).0).max().unwrap();
    let strictly = busiest(all.clone(), WINDOW).0;
    println!(
        "    | {} calls, {} sellers; fullest window {} ({strictly} without tolerance) of {ML_API}, of a seller {} ({seller_strictly}) of {USER}; tolerance {tolerance:?}",
        all.len(),
        of_sellers.len(),
        most.0,
        seller.0
    );
    assert!(most.0 <= ML_API.min(GLOBAL), "{} calls in the window that ends at {}", most.0, most.1);
    assert!(seller.0 <= USER, "{} calls of a seller in the window that ends at {}", seller.0, seller.1);
    // The proof is worth something only where the quota was asked for.
    assert!(most.0 * 10 > ML_API * 6, "the traffic did not come near the quota");
    assert!(seller.0 * 10 > USER * 6, "no seller came near its quota");
}

/// Tokens were refreshed all the time, and none was presented twice.
pub(crate) async fn tokens(fleet: &Fleet, entries: &[Value]) {
    let summary: Value = fleet.sim.get("/sim/ledger/summary", &[]).await.unwrap().json().unwrap();
    assert_eq!(summary["refresh_tokens_presented_twice"], serde_json::json!([]));
    let refreshed = entries.iter().filter(|entry| entry["detail"]["granted"] == true).count();
    let refused: Vec<&Value> = entries.iter().filter(|entry| entry["detail"]["granted"] == false).collect();
    println!("    | {refreshed} tokens refreshed");
    assert!(refreshed > 30, "{refreshed} tokens refreshed");
    assert!(refused.is_empty(), "{refused:?}");
}

/// Notifications without an attempt that was acknowledged in time.
pub(crate) fn unacknowledged(entries: &[Value]) -> BTreeSet<String> {
    let of = |acknowledged: bool| -> BTreeSet<String> {
        let sent = entries.iter().filter(|entry| entry["endpoint"] == "notification");
        let sent = sent.filter(|entry| !acknowledged || entry["detail"]["acknowledged"] == true);
        sent.map(|entry| entry["detail"]["id"].as_str().unwrap().to_owned()).collect()
    };
    &of(false) - &of(true)
}

/// Every notification was acknowledged within MercadoLibre's half second, or sent again until it was.
pub(crate) fn notifications(entries: &[Value]) {
    let sent: Vec<&Value> = entries.iter().filter(|entry| entry["endpoint"] == "notification").collect();
    let again = sent.iter().filter(|entry| entry["detail"]["attempt"].as_u64() > Some(1)).count();
    let mut times: Vec<u64> = sent.iter().map(|entry| entry["detail"]["ack_ms"].as_u64().unwrap()).collect();
    times.sort_unstable();
    println!(
        "    | {} notifications sent, {again} of them again; acknowledged in {} ms at the median, {} ms at 99 %, {} ms at most",
        sent.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1]
    );
    assert!(sent.len() > 50, "{} notifications", sent.len());
    assert_eq!(unacknowledged(entries), BTreeSet::new());
}

/// After a quiet time longer than a process's own copies live, every process shows what the catalog was told last.
pub(crate) async fn caches(fleet: &Fleet, traffic: &Traffic) {
    tokio::time::sleep(Duration::from_secs(11)).await;
    let mut seen = 0;
    for (number, user) in traffic.users.iter().enumerate() {
        for id in user.items.iter().take(6) {
            let Some(newest) = fleet.noted.lock().get(id).cloned() else { continue };
            for process in 0..fleet.processes.len() {
                let item = loop {
                    let path = format!("/ml/items/{id}");
                    let asked = traffic.ask_of(process, "check", number, Method::GET, &path, None, &[]).await;
                    match asked {
                        (200, item) => break item,
                        (429, _) => tokio::time::sleep(Duration::from_millis(50)).await,
                        (status, body) => panic!("{id}: {status} {body}"),
                    }
                };
                assert_eq!(item["last_updated"], newest["last_updated"], "{id} on process {process}");
                seen += 1;
            }
        }
    }
    println!("    | {seen} cached items looked at");
    assert!(seen > 50);
}

/// What MercadoLibre has is what the catalog was told, and every new item is there exactly once.
pub(crate) async fn nothing_is_lost_or_doubled(fleet: &Fleet, traffic: &Traffic, entries: &[Value]) {
    let mut changed = BTreeMap::<u64, BTreeSet<String>>::new();
    for entry in entries.iter().filter(|entry| entry["endpoint"] == "notification") {
        let id = entry["path"].as_str().unwrap().trim_start_matches("/items/").to_owned();
        changed.entry(entry["seller"].as_u64().unwrap()).or_default().insert(id);
    }
    let listings = traffic.listings.lock().clone();
    let mut compared = 0;
    for user in &traffic.users {
        let token = token_of(fleet, user.seller).await;
        let bearer = format!("Bearer {token}");
        let read = async |path: String| -> Value {
            fleet.sim.get(&path, &[("authorization", &bearer)]).await.unwrap().json().unwrap()
        };
        for id in changed.remove(&user.seller).unwrap_or_default() {
            let truth = read(format!("/items/{id}")).await;
            let noted = fleet.noted.lock().get(&id).cloned().unwrap_or_default();
            let parts = |item: &Value| (item["last_updated"].clone(), item["price"].as_f64());
            assert_eq!(parts(&truth), parts(&noted), "{id} of {}", user.id);
            compared += 1;
        }
        for listing in listings.iter().filter(|listing| listing.seller == user.seller) {
            let path = format!("/users/{}/items/search?seller_sku={}", user.seller, listing.sku);
            let found = read(path).await["results"].clone();
            assert_eq!(found.as_array().map(Vec::len), Some(1), "{listing:?}: {found}");
            assert_eq!(found[0].as_str(), listing.id.as_deref(), "{listing:?}");
        }
    }
    println!("    | {compared} changed items compared, {} new ones found once each", listings.len());
    assert!(compared > 50 && listings.len() > 10);
}

/// A token of the judge's own. It ends the service's, so it comes last.
async fn token_of(fleet: &Fleet, seller: u64) -> String {
    let redirect = REDIRECT.replace(':', "%3A").replace('/', "%2F");
    let path = format!(
        "/authorization?response_type=code&client_id=app&redirect_uri={redirect}&state=s&sim_seller={seller}"
    );
    let consent: Value =
        fleet.sim.get(&path, &[("accept", "application/json")]).await.unwrap().json().unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("client_secret", "secret"),
        ("code", consent["code"].as_str().unwrap()),
        ("redirect_uri", REDIRECT),
    ];
    let url = format!("{}/oauth/token", fleet.sim_url);
    let answer = reqwest::Client::new().post(url).form(&form).send().await.unwrap();
    let pair: Value = answer.json().await.unwrap();
    pair["access_token"].as_str().unwrap_or_else(|| panic!("{pair}")).to_owned()
}
