//! The routes of the catalog.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::auth::{Internal, Principal, SharedToken, Verifier};
use service_kit::extract::{Json, Path, Query};
use service_kit::{ApiError, Routes};
use uuid::Uuid;

use crate::catalog::{Catalog, ItemResult, Key, Page};
use crate::metrics::Outcome;
use crate::product::{Change, Draft, ListingStatus, Owner, Product, Source};
use crate::search::SearchParams;

/// Every route as (method, template), for the metric's series.
pub const ROUTES: &[(&str, &str)] = &[
    ("GET", "/products"),
    ("POST", "/products"),
    ("GET", "/products/{id}"),
    ("PUT", "/products/{id}"),
    ("DELETE", "/products/{id}"),
    ("GET", "/products/{id}/stock"),
    ("POST", "/internal/products/upsert"),
    ("DELETE", "/internal/products/users/{user_id}"),
];

/// Header of `POST /products` by which a repeated request makes its product once.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Header of an answer that was given before.
const IDEMPOTENCY_REPLAYED: &str = "idempotent-replayed";
/// Most items of one hand-over.
const ITEMS_MAX: usize = 1_000;

/// What the routes work with.
#[derive(Clone)]
pub struct App {
    /// The operations.
    pub catalog: Arc<Catalog>,
    /// Checks the clients' tokens.
    pub verifier: Verifier,
    /// Checks the other services' token.
    pub internal: SharedToken,
}

impl FromRef<App> for Arc<Catalog> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.catalog)
    }
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

impl FromRef<App> for SharedToken {
    fn from_ref(app: &App) -> Self {
        app.internal.clone()
    }
}

/// The routes over `app`.
pub fn router(app: App) -> Router {
    routes().over(app)
}

fn routes() -> Routes<App> {
    Routes::new()
        .get("/products", search)
        .post("/products", create)
        .get("/products/{id}", read)
        .put("/products/{id}", update)
        .delete("/products/{id}", delete)
        .get("/products/{id}/stock", stock)
        .post("/internal/products/upsert", upsert)
        .delete("/internal/products/users/{user_id}", erase)
}

fn owner(principal: Principal) -> Owner {
    Owner { tenant: principal.tenant, user_id: principal.user_id }
}

/// Reads a body whose faults may be named: nothing in a product is secret, and the client needs the field.
fn typed<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(|error| {
        ApiError::unprocessable("invalid_product", format!("the product is refused: {error}"))
    })
}

async fn search(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    Query(params): Query<SearchParams>,
) -> Result<Json<Page>, ApiError> {
    Ok(Json(catalog.search(&owner(principal), params.check()?).await?))
}

async fn create(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<(StatusCode, HeaderMap, Json<Product>), ApiError> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|value| Key::read(value.as_bytes())).transpose()?;
    let made = catalog.create(&owner(principal), typed::<Draft>(body)?, key).await?;
    let mut headers = HeaderMap::new();
    if made.replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok((StatusCode::CREATED, headers, Json(made.product)))
}

async fn read(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    Path(id): Path<Uuid>,
) -> Result<Json<Product>, ApiError> {
    Ok(Json(catalog.get(&owner(principal), id).await?))
}

async fn update(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    Path(id): Path<Uuid>,
    Json(body): Json<Value>,
) -> Result<Json<Product>, ApiError> {
    Ok(Json(catalog.update(&owner(principal), id, typed::<Change>(body)?).await?))
}

/// Query string of `DELETE /products/{id}`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct DeleteParams {
    /// Delete only this version.
    version: Option<u64>,
}

async fn delete(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    Path(id): Path<Uuid>,
    Query(params): Query<DeleteParams>,
) -> Result<StatusCode, ApiError> {
    catalog.delete(&owner(principal), id, params.version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answer of `GET /products/{id}/stock`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Stock {
    product_id: Uuid,
    ml_item_id: Option<String>,
    available_quantity: u32,
    status: ListingStatus,
    version: u64,
    updated_at: Timestamp,
}

async fn stock(
    State(catalog): State<Arc<Catalog>>,
    principal: Principal,
    Path(id): Path<Uuid>,
) -> Result<Json<Stock>, ApiError> {
    let product = catalog.get(&owner(principal), id).await?;
    Ok(Json(Stock {
        product_id: product.id,
        ml_item_id: product.ml_item_id,
        available_quantity: product.details.available_quantity,
        status: product.details.status,
        version: product.version,
        updated_at: product.updated_at,
    }))
}

/// Body of `POST /internal/products/upsert`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HandOver {
    tenant: String,
    user_id: Uuid,
    source: Source,
    items: Vec<Value>,
}

/// Answer of `POST /internal/products/upsert`.
#[derive(Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Report {
    created: usize,
    updated: usize,
    deleted: usize,
    unchanged: usize,
    stale: usize,
    conflict: usize,
    invalid: usize,
    /// One result per item, in the order sent.
    results: Vec<ItemResult>,
}

impl Report {
    fn of(results: Vec<ItemResult>) -> Self {
        let count = |outcome| results.iter().filter(|result| result.outcome == outcome).count();
        Self {
            created: count(Outcome::Created),
            updated: count(Outcome::Updated),
            deleted: count(Outcome::Deleted),
            unchanged: count(Outcome::Unchanged),
            stale: count(Outcome::Stale),
            conflict: count(Outcome::Conflict),
            invalid: count(Outcome::Invalid),
            results,
        }
    }
}

async fn upsert(
    State(catalog): State<Arc<Catalog>>,
    _: Internal,
    Json(body): Json<HandOver>,
) -> Result<Json<Report>, ApiError> {
    if !matches!(body.source, Source::Sync | Source::Webhook) {
        return Err(ApiError::unprocessable("invalid_source", "source must be sync or webhook"));
    }
    if body.items.len() > ITEMS_MAX {
        let message =
            format!("at most {ITEMS_MAX} items are taken at once: send the rest in another request");
        return Err(ApiError::unprocessable("too_many_items", message));
    }
    let owner = Owner { tenant: body.tenant, user_id: body.user_id };
    let results = catalog.take_items(&owner, body.source, body.items).await?;
    Ok(Json(Report::of(results)))
}

/// Query string of `DELETE /internal/products/users/{user_id}`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct EraseParams {
    /// Tenant of the user.
    tenant: String,
}

async fn erase(
    State(catalog): State<Arc<Catalog>>,
    _: Internal,
    Path(user_id): Path<Uuid>,
    Query(params): Query<EraseParams>,
) -> Result<StatusCode, ApiError> {
    catalog.erase(&Owner { tenant: params.tenant, user_id }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use service_openapi::{Document, committed};

    use super::*;

    #[test]
    fn the_document_is_what_the_handlers_say() {
        let mut document =
            Document::of(crate::IDENTITY, "Products: made, changed, searched, and their stock.");
        let page = "The caller's products, newest first, a page at a time.";
        document.operation("GET", "/products", page, search, |_| {});
        document.operation("POST", "/products", "Makes a product.", create, |operation| {
            operation.reads::<Draft>().status(201).refuses(&[403]);
        });
        document.operation("GET", "/products/{id}", "One product.", read, |_| {});
        let changed = "Changes the fields that are named, at the version that the caller has seen.";
        document.operation("PUT", "/products/{id}", changed, update, |operation| {
            operation.reads::<Change>().refuses(&[409]);
        });
        let deleted = "Deletes a product; with a version, only that one.";
        document.operation("DELETE", "/products/{id}", deleted, delete, |operation| {
            operation.refuses(&[409]);
        });
        document.operation("GET", "/products/{id}/stock", "How many are left.", stock, |_| {});
        let taken = "Takes items of MercadoLibre over; each has a result of its own.";
        document.operation("POST", "/internal/products/upsert", taken, upsert, |operation| {
            operation.refuses(&[403, 503]);
        });
        let erased = "Removes everything of a user.";
        document.operation("DELETE", "/internal/products/users/{user_id}", erased, erase, |operation| {
            operation.refuses(&[503]);
        });
        assert_eq!(routes().list(), ROUTES);
        document.covers(ROUTES);
        committed::check(env!("CARGO_MANIFEST_DIR"), document);
    }
}
