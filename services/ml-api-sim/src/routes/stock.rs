//! Multi-origin stock of a user product.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::Caller;
use crate::error::MlError;
use crate::simulator::Simulator;

const VERSION: &str = "x-version";

/// `GET /user-products/{id}/stock`, with the version that a write must send.
pub(super) async fn get(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path(id): Path<String>,
) -> Result<Response, MlError> {
    let world = simulator.world.lock();
    let (item, version) = world.stock(token.seller, &id)?;
    Ok(([(VERSION, version.to_string())], Json(item.stock_view())).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Quantity {
    quantity: u32,
}

/// `PUT /user-products/{id}/stock/type/seller_warehouse`.
pub(super) async fn put(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Quantity>,
) -> Result<Response, MlError> {
    let version = headers.get(VERSION).and_then(|value| value.to_str().ok()?.parse().ok());
    let now_ms = simulator.clock.now_ms();
    let (item, next) = simulator.world.lock().set_stock(token.seller, &id, version, body.quantity, now_ms)?;
    simulator.notifier.item_changed(token.seller, &token.client_id, &item, now_ms);
    Ok((StatusCode::NO_CONTENT, [(VERSION, next.to_string())]).into_response())
}
