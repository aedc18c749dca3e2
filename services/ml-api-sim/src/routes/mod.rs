//! The HTTP face: MercadoLibre's paths behind the observer, and the simulator's own knobs under `/sim`.

mod control;
mod feeds;
mod items;
mod oauth;
mod observe;
mod sites;
mod stock;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware;
use axum::routing::{delete, get, post, put};

use crate::error::MlError;
use crate::simulator::Simulator;
use crate::world::Token;

/// Routes whose latency series exist from the start.
pub(crate) const ANNOUNCED: &[(&str, &str)] = &[
    ("GET", "/authorization"),
    ("POST", "/oauth/token"),
    ("GET", "/users/me"),
    ("GET", "/users/{user_id}/items/search"),
    ("GET", "/items/bulk"),
    ("GET", "/items/{id}"),
    ("PUT", "/items/{id}"),
    ("POST", "/items"),
];

/// All routes of the simulator.
pub fn router(simulator: Arc<Simulator>) -> Router {
    let marketplace = Router::new()
        .route("/authorization", get(oauth::authorization))
        .route("/oauth/token", post(oauth::token))
        .route("/applications/{id}", get(oauth::application))
        .route("/applications/{id}/grants", get(oauth::grants))
        .route("/users/{user_id}/applications/{id}", delete(oauth::disconnect))
        .route("/users/me", get(users::me))
        .route("/users/{user_id}/items/search", get(users::items_search))
        .route("/items", get(items::legacy_multiget).post(items::create))
        .route("/items/validate", post(items::validate))
        .route("/items/bulk", get(items::bulk))
        .route("/items/{id}", get(items::get).put(items::put))
        .route("/user-products/{id}/stock", get(stock::get))
        .route("/user-products/{id}/stock/type/seller_warehouse", put(stock::put))
        .route("/sites/{site}/categories", get(sites::categories))
        .route("/sites/{site}/search", get(sites::public_search))
        .route("/sites/{site}/domain_discovery/search", get(sites::domain_discovery))
        .route("/categories/{id}", get(sites::category))
        .route("/categories/{id}/attributes", get(sites::attributes))
        .route("/missed_feeds", get(feeds::missed))
        // A route layer, so that the observer sees which route matched.
        .route_layer(middleware::from_fn_with_state(Arc::clone(&simulator), observe::observe));
    let knobs = Router::new()
        .route("/sim/ledger", get(control::ledger))
        .route("/sim/ledger/summary", get(control::summary))
        .route("/sim/faults", get(control::faults).post(control::add_fault).delete(control::clear_faults))
        .route("/sim/reset", post(control::reset))
        .route("/sim/clock", post(control::clock))
        .route("/sim/sellers", get(control::sellers).post(control::create_seller))
        .route("/sim/sellers/{id}/revoke", post(control::revoke))
        .route("/sim/sellers/{id}/tags", put(control::tags))
        .route("/sim/notifications", post(control::notifications));
    marketplace.merge(knobs).with_state(simulator)
}

/// The seller and application whose access token came with the request.
pub(crate) struct Caller(pub(crate) Token);

/// As [`Caller`], where a request without a token is welcome too.
pub(crate) struct MaybeCaller(pub(crate) Option<Token>);

impl FromRequestParts<Arc<Simulator>> for Caller {
    type Rejection = MlError;

    async fn from_request_parts(parts: &mut Parts, simulator: &Arc<Simulator>) -> Result<Self, MlError> {
        token_of(parts, simulator).map(Caller).ok_or_else(MlError::unauthorized)
    }
}

impl FromRequestParts<Arc<Simulator>> for MaybeCaller {
    type Rejection = MlError;

    async fn from_request_parts(parts: &mut Parts, simulator: &Arc<Simulator>) -> Result<Self, MlError> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Ok(Self(None));
        }
        // A token that is there but dead is refused, as MercadoLibre does.
        token_of(parts, simulator).map(|token| Self(Some(token))).ok_or_else(MlError::unauthorized)
    }
}

fn token_of(parts: &Parts, simulator: &Simulator) -> Option<Token> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let token = header.strip_prefix("Bearer ")?;
    simulator.world.lock().token(token, simulator.clock.now_ms())
}
