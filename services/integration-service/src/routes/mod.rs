//! The HTTP face. Routes under `/internal` answer to services of the system only; the gateway has none of them.

mod accounts;
mod health;
mod items;
mod notifications;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use service_kit::Routes;
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
    ("POST", "/internal/ml/breakers/{group}"),
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
    routes().over(app)
}

fn routes() -> Routes<App> {
    Routes::new()
        .post("/internal/ml/accounts", accounts::connect)
        .delete("/internal/ml/accounts/{user_id}", accounts::disconnect)
        .post("/internal/ml/breakers/{group}", health::hold)
        .get("/ml/health", health::health)
        .get("/ml/items", items::list)
        .post("/ml/items", items::create)
        .post("/ml/items/sync", items::sync)
        .get("/ml/items/{id}", items::get)
        .put("/ml/items/{id}", items::put)
        .post("/ml/notifications/{secret}", notifications::receive)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use service_openapi::{Document, committed};

    use super::*;
    use crate::ml::Group;

    /// What a call to MercadoLibre may end in: 401 is ours to mend, so it is a 409 here.
    const ML: &[u16] = &[400, 403, 404, 409, 422, 429, 502, 503, 504];

    fn item_id() -> Value {
        json!({ "type": "string", "pattern": "^ML[A-Z][0-9]{1,19}$" })
    }

    /// MercadoLibre's own form, of which only the id is relied on.
    fn item() -> Value {
        json!({
            "type": "object", "description": "An item as MercadoLibre shows it to its owner.",
            "properties": { "id": item_id() },
            "required": ["id"],
        })
    }

    fn state() -> Value {
        let usage = json!({
            "type": ["object", "null"], "required": ["utilization", "remaining"],
            "properties": {
                "utilization": { "type": "number", "minimum": 0 },
                "remaining": { "type": "integer", "minimum": 0 },
            },
        });
        json!({
            "type": "object",
            "properties": {
                "status": { "enum": ["ok", "degraded"] },
                "mode": { "enum": ["normal", "conservative"] },
                "breaker_enabled": { "type": "boolean" },
                "breaker": {
                    "type": "object", "additionalProperties": { "enum": ["closed", "half_open", "open"] },
                },
                "limits": { "type": "object", "additionalProperties": usage },
                "notifications_waiting": { "type": ["integer", "null"], "minimum": 0 },
            },
            "required": ["status", "mode", "breaker_enabled", "breaker", "limits", "notifications_waiting"],
        })
    }

    #[test]
    fn the_document_is_what_the_handlers_say() {
        let about = "The only caller of the MercadoLibre API and keeper of its tokens.";
        let mut document = Document::of(crate::IDENTITY, about);
        let connected = "Exchanges a code for tokens and keeps them.";
        document.operation("POST", "/internal/ml/accounts", connected, accounts::connect, |operation| {
            let made = json!({
                "type": "object", "required": ["ml_user_id"],
                "properties": { "ml_user_id": { "type": "integer", "minimum": 1 } },
            });
            operation.status(201).answers_with(201, made).refuses(ML);
        });
        let forgotten = "Forgets a user's account and tokens.";
        let path = "/internal/ml/accounts/{user_id}";
        document.operation("DELETE", path, forgotten, accounts::disconnect, |operation| {
            operation.refuses(&[503]);
        });
        let held = "Holds a circuit breaker of this replica open or closed, or lets it decide.";
        document.operation("POST", "/internal/ml/breakers/{group}", held, health::hold, |operation| {
            let groups = Group::ALL.map(Group::name);
            operation.narrowed("group", json!({ "enum": groups }));
        });
        let stands = "How it stands with MercadoLibre.";
        document.operation("GET", "/ml/health", stands, health::health, |operation| {
            operation.answers_with(200, state());
        });
        let listed = "Ids of the caller's items, a page at a time.";
        document.operation("GET", "/ml/items", listed, items::list, |operation| {
            let page = json!({
                "type": "object", "required": ["results", "paging"],
                "properties": {
                    "results": { "type": "array", "items": item_id() },
                    "paging": { "type": "object" },
                },
            });
            operation.answers_with(200, page).refuses(ML);
        });
        let made = "Lists an item at MercadoLibre, once per Idempotency-Key.";
        document.operation("POST", "/ml/items", made, items::create, |operation| {
            operation
                .header(
                    "idempotency-key",
                    "The same key is the same listing; without one each request is a new one.",
                )
                .answers_with(200, item())
                .answers_with(201, item())
                .answers_with(206, item())
                .refuses(ML);
        });
        let synced = "Hands every item of the caller's on to the catalog.";
        document.operation("POST", "/ml/items/sync", synced, items::sync, |operation| {
            operation.refuses(ML);
        });
        document.operation(
            "GET",
            "/ml/items/{id}",
            "One item, through the cache.",
            items::get,
            |operation| {
                operation.narrowed("id", item_id()).answers_with(200, item()).refuses(ML);
            },
        );
        let changed = "Changes the fields that are named.";
        document.operation("PUT", "/ml/items/{id}", changed, items::put, |operation| {
            operation.narrowed("id", item_id()).answers_with(200, item()).refuses(ML);
        });
        let told = "MercadoLibre tells of a change.";
        let path = "/ml/notifications/{secret}";
        document.operation("POST", path, told, notifications::receive, |operation| {
            operation
                .reads_with(json!({
                    "type": "object", "required": ["_id", "resource", "user_id", "topic", "application_id"],
                    "properties": {
                        "_id": { "type": "string" }, "resource": { "type": "string" },
                        "user_id": { "type": "integer", "minimum": 0 }, "topic": { "type": "string" },
                        "application_id": { "type": ["integer", "string"] },
                    },
                }))
                .status(200)
                .refuses(&[400, 408, 413, 503]);
        });
        assert_eq!(routes().list(), ANNOUNCED);
        document.covers(ANNOUNCED);
        committed::check(env!("CARGO_MANIFEST_DIR"), document);
    }
}
