//! The seller's own profile and the search over its items.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Caller;
use super::observe::ActiveFault;
use crate::error::MlError;
use crate::fault::Fault;
use crate::simulator::Simulator;
use crate::world::Item;

/// Offsets end here; beyond it only a scan goes on.
const MAX_OFFSET: usize = 1000;
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

/// `GET /users/me`.
pub(super) async fn me(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
) -> Result<Json<Value>, MlError> {
    let world = simulator.world.lock();
    let seller = world.seller(token.seller).ok_or_else(MlError::unauthorized)?;
    Ok(Json(seller.view()))
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Search {
    status: Option<String>,
    sku: Option<String>,
    seller_sku: Option<String>,
    listing_type_id: Option<String>,
    orders: Option<String>,
    offset: Option<usize>,
    limit: Option<usize>,
    search_type: Option<String>,
    scroll_id: Option<String>,
}

impl Search {
    fn matches(&self, item: &Item) -> bool {
        let is = |wanted: &Option<String>, own: Option<&str>| wanted.is_none() || wanted.as_deref() == own;
        is(&self.status, Some(&item.status))
            && is(&self.sku, item.seller_custom_field.as_deref())
            && is(&self.seller_sku, item.seller_sku())
            && is(&self.listing_type_id, Some(&item.listing_type_id))
    }

    fn sorted<'a>(&self, items: impl Iterator<Item = &'a Item>) -> Result<Vec<String>, MlError> {
        let mut items: Vec<&Item> = items.filter(|item| self.matches(item)).collect();
        match self.orders.as_deref() {
            None | Some("start_time_asc") => {}
            Some("start_time_desc") => items.reverse(),
            Some("last_updated_asc") => items.sort_by(|a, b| a.last_updated.cmp(&b.last_updated)),
            Some("last_updated_desc") => items.sort_by(|a, b| b.last_updated.cmp(&a.last_updated)),
            Some("price_asc") => items.sort_by(|a, b| a.price.total_cmp(&b.price)),
            Some("price_desc") => items.sort_by(|a, b| b.price.total_cmp(&a.price)),
            Some(other) => return Err(MlError::bad_request(format!("Invalid orders value {other}"))),
        }
        Ok(items.into_iter().map(|item| item.id.clone()).collect())
    }
}

/// `GET /users/{user_id}/items/search`: ids only.
pub(super) async fn items_search(
    State(simulator): State<Arc<Simulator>>,
    Caller(token): Caller,
    fault: Option<Extension<ActiveFault>>,
    Path(user_id): Path<u64>,
    Query(query): Query<Search>,
) -> Result<Json<Value>, MlError> {
    if token.seller != user_id {
        return Err(MlError::access_denied());
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(MlError::bad_request(format!("limit must be 1 to {MAX_LIMIT}")));
    }
    let mut world = simulator.world.lock();
    if query.search_type.as_deref() == Some("scan") {
        if query.offset.is_some() {
            return Err(MlError::bad_request("A scan has no offset"));
        }
        let dead = || MlError::bad_request("scroll_id is invalid or expired: start the scan again");
        if matches!(fault, Some(Extension(ActiveFault(Fault::DeadScroll)))) {
            return Err(dead());
        }
        let ids;
        let start = match query.scroll_id.as_deref() {
            Some(scroll_id) => Err(scroll_id),
            None => {
                ids = query.sorted(world.items_of(user_id))?;
                Ok(ids)
            }
        };
        let page = world.scan(user_id, start, limit, simulator.clock.now_ms()).ok_or_else(dead)?;
        return Ok(Json(json!({
            "seller_id": user_id.to_string(),
            "results": page.ids,
            "scroll_id": page.scroll_id,
            "paging": { "total": page.total, "limit": limit },
        })));
    }
    let offset = query.offset.unwrap_or(0);
    if offset > MAX_OFFSET {
        return Err(MlError::bad_request(format!("offset stops at {MAX_OFFSET}: use search_type=scan")));
    }
    let ids = query.sorted(world.items_of(user_id))?;
    let results: Vec<&String> = ids.iter().skip(offset).take(limit).collect();
    Ok(Json(json!({
        "seller_id": user_id.to_string(),
        "results": results,
        "paging": { "total": ids.len(), "offset": offset, "limit": limit },
    })))
}
