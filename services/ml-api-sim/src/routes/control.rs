//! The simulator's own knobs; MercadoLibre has none of these.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::client::HttpUrl;

use crate::clock;
use crate::error::MlError;
use crate::fault::Rule;
use crate::notify::Manner;
use crate::simulator::Simulator;

const HOUR_MS: i64 = 3_600_000;
/// Entries of one answer of the ledger.
const LEDGER_PAGE: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct LedgerPage {
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

/// `GET /sim/ledger?since&limit`: entries, and where to go on.
pub(super) async fn ledger(
    State(simulator): State<Arc<Simulator>>,
    Query(query): Query<LedgerPage>,
) -> Json<Value> {
    let limit = query.limit.unwrap_or(LEDGER_PAGE).min(LEDGER_PAGE);
    let entries = simulator.ledger.read(query.since, limit);
    let next = entries.last().map_or_else(|| simulator.ledger.next(), |entry| entry.seq + 1);
    Json(json!({ "entries": entries, "next": next }))
}

/// `GET /sim/ledger/summary`: what a client must not do, counted.
pub(super) async fn summary(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    let sellers: Vec<u64> = simulator.world.lock().sellers().map(|seller| seller.id).collect();
    let busiest = |seller| simulator.ledger.busiest_window(HOUR_MS, seller);
    let fullest = sellers.iter().map(|seller| busiest(Some(*seller))).max();
    Json(json!({
        "requests": simulator.ledger.next(),
        "busiest_hour": busiest(None),
        "busiest_hour_of_a_seller": fullest.unwrap_or(0),
        "refresh_tokens_presented_twice": simulator.ledger.refresh_tokens_presented_twice(),
    }))
}

/// `GET /sim/faults`.
pub(super) async fn faults(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    Json(json!({ "faults": simulator.faults.list() }))
}

/// `POST /sim/faults`: one rule.
pub(super) async fn add_fault(
    State(simulator): State<Arc<Simulator>>,
    Json(rule): Json<Rule>,
) -> (StatusCode, Json<Rule>) {
    simulator.faults.add(rule.clone());
    (StatusCode::CREATED, Json(rule))
}

/// `DELETE /sim/faults`.
pub(super) async fn clear_faults(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.faults.clear();
    StatusCode::NO_CONTENT
}

/// `POST /sim/reset`.
pub(super) async fn reset(State(simulator): State<Arc<Simulator>>) -> StatusCode {
    simulator.reset();
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
pub(super) struct Advance {
    advance_seconds: u64,
}

/// `POST /sim/clock {advance_seconds}`.
pub(super) async fn clock(State(simulator): State<Arc<Simulator>>, Json(body): Json<Advance>) -> Json<Value> {
    simulator.clock.advance(Duration::from_secs(body.advance_seconds));
    Json(json!({ "now": clock::text(simulator.clock.now_ms()) }))
}

/// `GET /sim/sellers`.
pub(super) async fn sellers(State(simulator): State<Arc<Simulator>>) -> Json<Value> {
    let world = simulator.world.lock();
    let list = world.sellers().map(|seller| {
        json!({ "id": seller.id, "nickname": seller.nickname, "tags": seller.tags, "items": world.items_of(seller.id).count() })
    });
    Json(json!({ "sellers": list.collect::<Vec<_>>() }))
}

/// `POST /sim/sellers`: a new test seller with its items.
pub(super) async fn create_seller(State(simulator): State<Arc<Simulator>>) -> (StatusCode, Json<Value>) {
    let id = simulator.world.lock().create_seller(simulator.clock.now_ms());
    (StatusCode::CREATED, Json(json!({ "id": id })))
}

/// `POST /sim/sellers/{id}/revoke`: every token of the seller dies, as after a password change.
pub(super) async fn revoke(State(simulator): State<Arc<Simulator>>, Path(id): Path<u64>) -> StatusCode {
    simulator.world.lock().revoke(id, None);
    StatusCode::NO_CONTENT
}

/// `PUT /sim/sellers/{id}/tags ["user_product_seller"]`.
pub(super) async fn tags(
    State(simulator): State<Arc<Simulator>>,
    Path(id): Path<u64>,
    Json(tags): Json<Vec<String>>,
) -> Result<StatusCode, MlError> {
    let mut world = simulator.world.lock();
    let seller = world.seller_mut(id).ok_or_else(|| MlError::not_found("Seller", &id.to_string()))?;
    seller.tags = tags;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /sim/notifications`: the manner of sending, whole; absent fields take their defaults.
pub(super) async fn notifications(
    State(simulator): State<Arc<Simulator>>,
    Json(manner): Json<Manner>,
) -> Result<Json<Manner>, MlError> {
    if manner.callback_url.as_deref().is_some_and(|url| url.parse::<HttpUrl>().is_err()) {
        return Err(MlError::bad_request("callback_url must be http://HOST:PORT/PATH"));
    }
    simulator.notifier.set_manner(manner);
    Ok(Json(simulator.notifier.manner()))
}
