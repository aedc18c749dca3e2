//! `/ml/items`: the caller's own items.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use service_kit::ApiError;
use service_kit::app::RequestId;
use service_kit::auth::Principal;
use service_kit::extract::{Json, Path, Query};
use uuid::Uuid;

use super::App;
use crate::items::{Page, Synced};
use crate::ml::ItemId;

const MAX_OFFSET: u32 = 1_000;
const MAX_LIMIT: u32 = 100;
const DEFAULT_LIMIT: u32 = 50;

fn item_id(text: &str) -> Result<ItemId, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request("invalid_item_id", "An item id looks like MLA123."))
}

/// `GET /ml/items/{id}`; `x-cache` says how the answer was come by.
pub(super) async fn get(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (item, freshness) = app.items.get(&who, &item_id(&id)?).await?;
    Ok(([("x-cache", freshness.name())], Json(item)).into_response())
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Search {
    status: Option<String>,
    seller_sku: Option<String>,
    #[cfg_attr(test, schemars(range(max = MAX_OFFSET)))]
    offset: Option<u32>,
    #[cfg_attr(test, schemars(range(min = 1, max = MAX_LIMIT)))]
    limit: Option<u32>,
}

/// `GET /ml/items?status&seller_sku&offset&limit`: ids only.
pub(super) async fn list(
    State(app): State<App>,
    who: Principal,
    Query(search): Query<Search>,
) -> Result<Json<Value>, ApiError> {
    let page = Page {
        status: search.status.as_deref(),
        seller_sku: search.seller_sku.as_deref(),
        offset: search.offset.unwrap_or(0),
        limit: search.limit.unwrap_or(DEFAULT_LIMIT),
    };
    if page.offset > MAX_OFFSET || page.limit == 0 || page.limit > MAX_LIMIT {
        let text = format!("offset is at most {MAX_OFFSET} and limit is 1 to {MAX_LIMIT}.");
        return Err(ApiError::bad_request("invalid_page", text));
    }
    Ok(Json(app.items.list(&who, page).await?))
}

/// `PUT /ml/items/{id}`: only the fields that are named.
pub(super) async fn put(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<String>,
    Extension(request_id): Extension<RequestId>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(app.items.put(&who, &item_id(&id)?, patch, request_id.as_str()).await?))
}

/// `POST /ml/items`: lists an item, once per `Idempotency-Key`.
pub(super) async fn create(
    State(app): State<App>,
    who: Principal,
    headers: HeaderMap,
    Extension(request_id): Extension<RequestId>,
    Json(draft): Json<Map<String, Value>>,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers)?;
    let listed = app.items.list_new(&who, &key, Value::Object(draft), request_id.as_str()).await?;
    let status = StatusCode::from_u16(listed.status).unwrap_or(StatusCode::CREATED);
    let replayed = if listed.replayed { "true" } else { "false" };
    let headers = [("idempotency-key", key.as_str()), ("idempotency-replayed", replayed)];
    Ok((status, headers, Json(listed.item)).into_response())
}

/// The client's key, or a new one: then a repetition is a new listing.
fn idempotency_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(Uuid::new_v4().to_string()) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > 200 {
        let text = "Idempotency-Key is 1 to 200 visible ASCII characters.";
        return Err(ApiError::bad_request("invalid_idempotency_key", text));
    }
    Ok(text.to_owned())
}

/// `POST /ml/items/sync`.
pub(super) async fn sync(
    State(app): State<App>,
    who: Principal,
    Extension(request_id): Extension<RequestId>,
) -> Result<Json<Synced>, ApiError> {
    Ok(Json(app.items.sync(&who, request_id.as_str()).await?))
}
