//! The document of one service.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use service_kit::Identity;

use crate::operation::Operation;
use crate::parts::{BEARER, Handler, INTERNAL};
use crate::schemas::Schemas;

/// What every service answers to.
const COMMON: [&str; 5] = ["/health", "/livez", "/readyz", "/startupz", "/openapi.json"];

/// A document in the making.
#[derive(Debug)]
pub struct Document {
    identity: Identity,
    description: &'static str,
    schemas: Schemas,
    paths: Map<String, Value>,
}

impl Document {
    /// The document of a service, with what every service answers.
    #[must_use]
    pub fn of(identity: Identity, description: &'static str) -> Self {
        let mut document = Self { identity, description, schemas: Schemas::new(), paths: Map::new() };
        document.health();
        document
    }

    /// One method of one path: `handler` says what it can, `more` the rest.
    pub fn operation<H: Handler<A>, A>(
        &mut self,
        method: &str,
        path: &'static str,
        summary: &str,
        _handler: H,
        more: impl FnOnce(&mut Operation<'_>),
    ) {
        self.plain(method, path, summary, |operation| {
            H::describe(operation);
            more(operation);
        });
    }

    /// One method of one path whose handler is no function of ours.
    ///
    /// # Panics
    /// When the path has that method already.
    pub fn plain(
        &mut self,
        method: &str,
        path: &'static str,
        summary: &str,
        more: impl FnOnce(&mut Operation<'_>),
    ) {
        let mut operation = Operation::new(&mut self.schemas, path, summary);
        more(&mut operation);
        let written = operation.write(&id(method, path));
        let entry = self.paths.entry(path).or_insert_with(|| json!({}));
        let methods = entry.as_object_mut().map(|methods| methods.insert(method.to_lowercase(), written));
        assert_eq!(methods, Some(None), "{method} {path} is described twice");
    }

    /// Method and path of every operation.
    #[must_use]
    pub fn routes(&self) -> BTreeSet<(String, String)> {
        let of_path = |(path, methods): (&String, &Value)| {
            let methods: Vec<String> = methods
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .map(|method| method.to_uppercase())
                .collect();
            methods.into_iter().map(|method| (method, path.clone())).collect::<Vec<_>>()
        };
        self.paths.iter().flat_map(of_path).collect()
    }

    /// Takes back what every service answers, for one that does not.
    pub fn without(&mut self, path: &str) {
        self.paths.shift_remove(path);
    }

    /// Every route is described, and nothing else is.
    ///
    /// # Panics
    /// When one is missing or too much.
    pub fn covers(&self, routes: &[(&str, &str)]) {
        let mut expected: BTreeSet<(String, String)> =
            routes.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        let common = COMMON.iter().filter(|path| self.paths.contains_key(**path));
        expected.extend(common.map(|path| ("GET".to_owned(), (*path).to_owned())));
        assert_eq!(self.routes(), expected, "described on the left, served on the right");
    }

    /// The whole as text, the same from run to run.
    #[must_use]
    pub fn write(self) -> String {
        let mut paths = self.paths;
        paths.sort_keys();
        let mut schemas = self.schemas.named();
        schemas.insert("Error".to_owned(), error());
        schemas.insert("Health".to_owned(), health_report());
        schemas.sort_keys();
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": self.identity.name,
                "version": self.identity.version,
                "description": self.description,
                "license": { "name": "MIT OR Apache-2.0" },
            },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    BEARER: {
                        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                        "description": "An access token of user-service.",
                    },
                    INTERNAL: {
                        "type": "apiKey", "in": "header", "name": "x-internal-token",
                        "description": "The token that the system's services share; never taken by the gateway.",
                    },
                },
            },
        });
        format!("{document:#}\n")
    }

    fn health(&mut self) {
        let report = json!({ "$ref": "#/components/schemas/Health" });
        for (path, summary) in [
            ("/health", "How the service is, with every check."),
            ("/readyz", "Whether requests may come."),
            ("/startupz", "Whether the start is over."),
        ] {
            self.plain("GET", path, summary, |operation| {
                operation.answers_with(200, report.clone()).answers_with(503, report.clone());
            });
        }
        self.plain("GET", "/livez", "Whether the process lives.", |operation| {
            operation.answers_text(200);
        });
        self.plain("GET", "/openapi.json", "This document.", |operation| {
            operation.answers_with(200, json!({ "type": "object" }));
        });
    }
}

/// `get_products_id` for `GET /products/{id}`.
fn id(method: &str, path: &str) -> String {
    let words =
        path.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method.to_lowercase()).chain(words.map(str::to_owned)).collect::<Vec<_>>().join("_")
}

/// Body of every refusal and failure.
fn error() -> Value {
    json!({
        "type": "object",
        "description": "Why a request was refused or failed.",
        "properties": {
            "error": { "type": "string", "description": "For programs, in snake case.", "pattern": "^[a-z][a-z0-9_]*$" },
            "message": { "type": "string", "description": "For people.", "minLength": 1 },
        },
        "required": ["error", "message"],
        "additionalProperties": false,
    })
}

fn health_report() -> Value {
    json!({
        "type": "object",
        "properties": {
            "status": { "enum": ["ok", "draining", "failing"] },
            "service": { "type": "string" },
            "version": { "type": "string" },
            "revision": { "type": ["string", "null"] },
            "checks": { "type": "object", "additionalProperties": {
                "type": "object",
                "properties": { "status": { "enum": ["ok", "failing"] }, "detail": { "type": "string" } },
                "required": ["status", "detail"],
            } },
        },
        "required": ["status", "service", "version", "revision", "checks"],
        "additionalProperties": false,
    })
}
