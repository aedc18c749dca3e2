//! Items: one, many, new, changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::observe::{ActiveFault, Note};
use super::{Caller, MaybeCaller};
use crate::error::MlError;
use crate::fault::Fault;
use crate::simulator::Simulator;
use crate::world::{Draft, Token, World};

/// Most ids of one bulk request.
const BULK_LIMIT: usize = 20;

/// `GET /items/{id}`.
pub(super) async fn get(
    State(simulator): State<Arc<Simulator>>,
    MaybeCaller(caller): MaybeCaller,
    Path(id): Path<String>,
) -> Result<Json<Value>, MlError> {
    let world = simulator.world.lock();
    show(&simulator, &world, caller.as_ref(), &id).map(Json)
}

fn show(simulator: &Simulator, world: &World, caller: Option<&Token>, id: &str) -> Result<Value, MlError> {
    let item = world.item(id).ok_or_else(|| MlError::not_found("Item", id))?;
    match caller {
        Some(token) if token.seller == item.seller_id => Ok(item.view(true)),
        Some(_) if !simulator.switches.foreign_items_public => Err(MlError::access_denied()),
        _ => Ok(item.view(false)),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Ids {
    #[serde(default)]
    ids: String,
    attributes: Option<String>,
}

/// `GET /items/bulk`: entries in the order of the request; a repeated id fails the whole batch.
pub(super) async fn bulk(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Query(query): Query<Ids>,
) -> Result<Json<Value>, MlError> {
    let ids: Vec<&str> = query.ids.split(',').filter(|id| !id.is_empty()).collect();
    if ids.is_empty() || ids.len() > BULK_LIMIT {
        return Err(MlError::bad_request(format!("ids must name 1 to {BULK_LIMIT} items")));
    }
    if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
        return Err(MlError::bad_request("ids names an item twice"));
    }
    let fields: Option<Vec<&str>> = query.attributes.as_deref().map(|fields| fields.split(',').collect());
    let world = simulator.world.lock();
    let entries = ids.iter().map(|id| {
        let mut entry = Map::new();
        match show(&simulator, &world, Some(&token), id) {
            Ok(body) => {
                entry.insert("status_code".into(), json!(200));
                entry.insert("body".into(), body);
            }
            Err(error) => {
                entry.insert("status_code".into(), json!(error.status.as_u16()));
                // The entry of an item that does not exist has no body, only its id.
                if error.status != StatusCode::NOT_FOUND {
                    entry.insert("body".into(), error.body());
                }
            }
        }
        entry.insert("id".into(), json!(id));
        select(entry, fields.as_deref())
    });
    Ok(Json(Value::Array(entries.collect())))
}

/// Keeps the fields that were asked for: `status_code`, `id`, `body.<field>`.
fn select(entry: Map<String, Value>, fields: Option<&[&str]>) -> Value {
    let Some(fields) = fields else { return Value::Object(entry) };
    let mut kept = Map::new();
    for (key, value) in entry {
        if fields.contains(&key.as_str()) {
            kept.insert(key, value);
        } else if key == "body" {
            let Value::Object(body) = value else { continue };
            let asked = |name: &str| fields.iter().any(|field| field.strip_prefix("body.") == Some(name));
            let body: Map<String, Value> = body.into_iter().filter(|(name, _)| asked(name)).collect();
            if !body.is_empty() {
                kept.insert(key, Value::Object(body));
            }
        }
    }
    Value::Object(kept)
}

/// `GET /items?ids=`: shut down since 2026-10-25 unless the switch keeps it.
pub(super) async fn legacy_multiget(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Query(query): Query<Ids>,
) -> Result<Json<Value>, MlError> {
    if !simulator.switches.legacy_multiget {
        return Err(MlError::new(StatusCode::GONE, "gone", "This resource was shut down: use /items/bulk"));
    }
    let ids: BTreeSet<&str> = query.ids.split(',').filter(|id| !id.is_empty()).collect();
    if ids.is_empty() || ids.len() > BULK_LIMIT {
        return Err(MlError::bad_request(format!("ids must name 1 to {BULK_LIMIT} items")));
    }
    let world = simulator.world.lock();
    let entries = ids.iter().map(|id| match show(&simulator, &world, Some(&token), id) {
        Ok(body) => json!({ "code": 200, "body": body }),
        Err(error) => json!({ "code": error.status.as_u16(), "body": error.body() }),
    });
    Ok(Json(Value::Array(entries.collect())))
}

/// `POST /items`.
pub(super) async fn create(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    fault: Option<Extension<ActiveFault>>,
    Json(draft): Json<Draft>,
) -> Result<Response, MlError> {
    let now_ms = simulator.clock.now_ms();
    let (id, view) = {
        let mut world = simulator.world.lock();
        let id = world.create_item(token.seller, draft, now_ms)?;
        let view = world.item(&id).map(|item| item.view(true)).unwrap_or_default();
        (id, view)
    };
    simulator.notifier.item_changed(token.seller, &token.client_id, &id, now_ms);
    let mut response = if matches!(fault, Some(Extension(ActiveFault(Fault::ContentMissing)))) {
        // The item exists although the answer does not show all of it.
        let partial = json!({ "id": id, "seller_id": token.seller });
        (StatusCode::PARTIAL_CONTENT, [("x-content-missing", "item")], Json(partial)).into_response()
    } else {
        (StatusCode::CREATED, Json(view)).into_response()
    };
    response.extensions_mut().insert(Note { detail: json!({ "created": id }), ..Note::default() });
    Ok(response)
}

/// `POST /items/validate`: 204 when the item could be listed.
pub(super) async fn validate(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Json(draft): Json<Draft>,
) -> Result<StatusCode, MlError> {
    simulator.world.lock().check_draft(token.seller, &draft).map(|()| StatusCode::NO_CONTENT)
}

/// `PUT /items/{id}`: only the fields that are named.
pub(super) async fn put(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    Path(id): Path<String>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Json<Value>, MlError> {
    let now_ms = simulator.clock.now_ms();
    let updated = simulator.world.lock().update_item(token.seller, &id, &patch, now_ms)?;
    simulator.notifier.item_changed(token.seller, &token.client_id, &id, now_ms);
    Ok(Json(updated.view))
}
