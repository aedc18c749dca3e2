//! The HTTP surface: requests in, use cases called, answers out. The gateway maps `/api/auth` to `/auth` and
//! `/api/users` to `/users`.

mod auth;
mod caller;
mod connection;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use service_kit::auth::{JWKS_PATH, SharedToken};
use service_kit::extract::Json;

use crate::accounts::Accounts;
use crate::connections::Connections;

/// Every route as method and template, for their latency series.
pub const ROUTES: [(&str, &str); 10] = [
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/logout"),
    ("GET", "/auth/ml/connect"),
    ("GET", "/auth/ml/callback"),
    ("POST", "/auth/ml/disconnect"),
    ("GET", "/users/me"),
    ("DELETE", "/users/me"),
    ("GET", JWKS_PATH),
];

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// Registering, signing in and out.
    pub accounts: Arc<Accounts>,
    /// Connecting MercadoLibre.
    pub connections: Arc<Connections>,
    /// Who may register users of the operator's tenants.
    pub operator_token: Option<SharedToken>,
}

impl FromRef<App> for Arc<Accounts> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.accounts)
    }
}

impl FromRef<App> for Arc<Connections> {
    fn from_ref(app: &App) -> Self {
        Self::clone(&app.connections)
    }
}

/// The routes of this service, without what the kit puts around them.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/auth/register", post(auth::register))
        .route("/auth/login", post(auth::login))
        .route("/auth/refresh", post(auth::refresh))
        .route("/auth/logout", post(auth::logout))
        .route("/auth/ml/connect", get(connection::connect))
        .route("/auth/ml/callback", get(connection::callback))
        .route("/auth/ml/disconnect", post(connection::disconnect))
        .route("/users/me", get(users::me).delete(users::leave))
        .route(JWKS_PATH, get(public_keys))
        .with_state(app)
}

/// The keys that verify access tokens. Cached for a minute: a key is published well before it signs.
async fn public_keys(State(accounts): State<Arc<Accounts>>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=60")], Json(accounts.keyring.public_keys())).into_response()
}
