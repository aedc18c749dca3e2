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
use service_kit::Routes;
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
    routes().over(app)
}

fn routes() -> Routes<App> {
    Routes::new()
        .post("/auth/register", auth::register)
        .post("/auth/login", auth::login)
        .post("/auth/refresh", auth::refresh)
        .post("/auth/logout", auth::logout)
        .get("/auth/ml/connect", connection::connect)
        .get("/auth/ml/callback", connection::callback)
        .post("/auth/ml/disconnect", connection::disconnect)
        .get("/users/me", users::me)
        .delete("/users/me", users::leave)
        .get(JWKS_PATH, public_keys)
}

/// The keys that verify access tokens. Cached for a minute: a key is published well before it signs.
async fn public_keys(State(accounts): State<Arc<Accounts>>) -> Response {
    ([(header::CACHE_CONTROL, "public, max-age=60")], Json(accounts.keyring.public_keys())).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use service_openapi::operation::Operation;
    use service_openapi::parts::BEARER;
    use service_openapi::{Document, Part, committed};

    use super::*;
    use crate::accounts::SignedIn;

    impl Part for caller::Bearer {
        fn describe(operation: &mut Operation<'_>) {
            operation.secured(BEARER);
            operation.refuses(&[401, 503]);
        }
    }

    impl Part for caller::ClientAddress {
        fn describe(_: &mut Operation<'_>) {}
    }

    #[test]
    fn the_document_is_what_the_handlers_say() {
        let about = "People: registered, signed in, connected to MercadoLibre, gone.";
        let mut document = Document::of(crate::IDENTITY, about);
        document.operation(
            "POST",
            "/auth/register",
            "Registers and signs in.",
            auth::register,
            |operation| {
                let header = "The operator's token, for a tenant that is the operator's.";
                operation
                    .header("x-operator-token", header)
                    .answers::<SignedIn>(201)
                    .refuses(&[403, 409, 429, 503]);
            },
        );
        document.operation("POST", "/auth/login", "Signs in.", auth::login, |operation| {
            operation.answers::<SignedIn>(200).refuses(&[401, 429, 503]);
        });
        let fresh = "Exchanges a refresh token for a new pair; it works once.";
        document.operation("POST", "/auth/refresh", fresh, auth::refresh, |operation| {
            operation.answers::<SignedIn>(200).refuses(&[401, 503]);
        });
        let end = "Ends the session of a refresh token, whether there is one or not.";
        document.operation("POST", "/auth/logout", end, auth::logout, |operation| {
            operation.refuses(&[503]);
        });
        let begin = "Begins a connection to MercadoLibre: where to send the browser.";
        document.operation("GET", "/auth/ml/connect", begin, connection::connect, |_| {});
        let back = "Where MercadoLibre sends the browser back to.";
        document.operation("GET", "/auth/ml/callback", back, connection::callback, |operation| {
            operation.refuses(&[403, 409, 502, 503]);
        });
        let disconnected = "Disconnects the caller's MercadoLibre account.";
        document.operation(
            "POST",
            "/auth/ml/disconnect",
            disconnected,
            connection::disconnect,
            |operation| {
                operation.refuses(&[502]);
            },
        );
        document.operation("GET", "/users/me", "The caller.", users::me, |_| {});
        document.operation("DELETE", "/users/me", "Removes the caller's account.", users::leave, |_| {});
        document.operation(
            "GET",
            JWKS_PATH,
            "The keys that verify access tokens.",
            public_keys,
            |operation| {
                let key = json!({
                    "type": "object", "required": ["kty", "kid"],
                    "properties": { "kty": { "type": "string" }, "kid": { "type": "string" } },
                });
                let keys = json!({
                    "type": "object", "required": ["keys"],
                    "properties": { "keys": { "type": "array", "items": key } },
                });
                operation.answers_with(200, keys);
            },
        );
        assert_eq!(routes().list(), ROUTES);
        document.covers(&ROUTES);
        committed::check(env!("CARGO_MANIFEST_DIR"), document);
    }
}
