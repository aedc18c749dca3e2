//! The site's categories, and the public search that integrations may no longer use.

use axum::Json;
use axum::extract::{Path, Query};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::MlError;
use crate::world;

/// Static resources say how long they may be kept.
const STATIC: &str = "max-age=3600, stale-while-revalidate=600, stale-if-error=86400";

fn fixed(value: Value) -> Response {
    ([(header::CACHE_CONTROL, STATIC)], Json(value)).into_response()
}

fn only_mla(site: &str) -> Result<(), MlError> {
    if site == "MLA" { Ok(()) } else { Err(MlError::not_found("Site", site)) }
}

/// `GET /sites/{site}/categories`.
pub(super) async fn categories(Path(site): Path<String>) -> Result<Response, MlError> {
    only_mla(&site)?;
    let list = world::CATEGORIES.iter().map(|category| json!({ "id": category.id, "name": category.name }));
    Ok(fixed(Value::Array(list.collect())))
}

/// `GET /categories/{id}`.
pub(super) async fn category(Path(id): Path<String>) -> Result<Response, MlError> {
    let category = world::category(&id).ok_or_else(|| MlError::not_found("Category", &id))?;
    Ok(fixed(category.view()))
}

/// `GET /categories/{id}/attributes`.
pub(super) async fn attributes(Path(id): Path<String>) -> Result<Response, MlError> {
    let category = world::category(&id).ok_or_else(|| MlError::not_found("Category", &id))?;
    Ok(fixed(category.attributes()))
}

#[derive(Debug, Deserialize)]
pub(super) struct Words {
    #[serde(default)]
    q: String,
}

/// `GET /sites/{site}/domain_discovery/search`.
pub(super) async fn domain_discovery(
    Path(site): Path<String>,
    Query(query): Query<Words>,
) -> Result<Json<Value>, MlError> {
    only_mla(&site)?;
    let wanted = query.q.to_lowercase();
    let found =
        world::CATEGORIES.iter().filter(|category| category.words.iter().any(|word| wanted.contains(word)));
    let list = found.map(|category| json!({ "domain_id": category.domain, "category_id": category.id, "category_name": category.name }));
    Ok(Json(Value::Array(list.collect())))
}

/// `GET /sites/{site}/search`: answers 403 to every integration.
pub(super) async fn public_search(Path(site): Path<String>) -> MlError {
    MlError::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("The search of {site} is not open to integrations"),
    )
}
