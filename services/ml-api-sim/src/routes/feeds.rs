//! `/missed_feeds`: notifications that nobody acknowledged.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Caller;
use crate::error::MlError;
use crate::simulator::Simulator;

#[derive(Debug, Deserialize)]
pub(super) struct Feeds {
    #[serde(default)]
    app_id: String,
    topic: Option<String>,
    site_id: Option<String>,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

/// `GET /missed_feeds?app_id&topic&offset&limit`; topic `items` needs `site_id`.
pub(super) async fn missed(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Query(query): Query<Feeds>,
) -> Result<Json<Value>, MlError> {
    if query.app_id != token.client_id {
        return Err(MlError::access_denied());
    }
    if query.topic.as_deref() == Some("items") && query.site_id.is_none() {
        return Err(MlError::bad_request("The topic items needs site_id"));
    }
    let missed = simulator.notifier.missed(&query.app_id, query.topic.as_deref(), simulator.clock.now_ms());
    let page: Vec<_> = missed.into_iter().skip(query.offset).take(query.limit.unwrap_or(10)).collect();
    Ok(Json(json!({ "messages": page })))
}
