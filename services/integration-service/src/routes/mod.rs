//! The HTTP face. Routes under `/internal` answer to services of the system only; the gateway has none of them.

mod accounts;
mod health;
mod items;
mod notifications;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{delete, get, post};
use service_kit::auth::{SharedToken, Verifier};

use crate::accounts::Accounts;
use crate::items::Items;
use crate::ml::MlClient;
use crate::store::Store;
use crate::webhook::Inbox;

/// Routes whose latency series exist from the start.
pub(crate) const ANNOUNCED: &[(&str, &str)] = &[
    ("POST", "/internal/ml/accounts"),
    ("DELETE", "/internal/ml/accounts/{user_id}"),
    ("GET", "/ml/health"),
    ("GET", "/ml/items"),
    ("POST", "/ml/items"),
    ("POST", "/ml/items/sync"),
    ("GET", "/ml/items/{id}"),
    ("PUT", "/ml/items/{id}"),
    ("POST", "/ml/notifications/{secret}"),
];

/// What the routes need.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) verifier: Verifier,
    pub(crate) internal: SharedToken,
    pub(crate) webhook_secret: SharedToken,
    pub(crate) redirect_uri: Option<Arc<str>>,
    pub(crate) items: Arc<Items>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) client: Arc<MlClient>,
    pub(crate) store: Arc<dyn Store>,
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

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/internal/ml/accounts", post(accounts::connect))
        .route("/internal/ml/accounts/{user_id}", delete(accounts::disconnect))
        .route("/internal/ml/breakers/{group}", post(health::hold))
        .route("/ml/health", get(health::health))
        .route("/ml/items", get(items::list).post(items::create))
        .route("/ml/items/sync", post(items::sync))
        .route("/ml/items/{id}", get(items::get).put(items::put))
        .route("/ml/notifications/{secret}", post(notifications::receive))
        .with_state(app)
}
