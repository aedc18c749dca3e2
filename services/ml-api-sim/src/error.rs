//! MercadoLibre's error body: message, error, status and a list of causes.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// One entry of an error's `cause` list.
#[derive(Clone, Debug, Serialize)]
pub struct Cause {
    /// The team whose rule was broken, e.g. `items`.
    pub department: &'static str,
    /// MercadoLibre's number of the rule.
    pub cause_id: u32,
    /// `error` or `warning`; a list of warnings alone is no failure for `/items/validate`.
    #[serde(rename = "type")]
    pub severity: &'static str,
    /// The rule's dotted name, e.g. `item.price.invalid`.
    pub code: &'static str,
    /// The fields that broke it.
    pub references: Vec<String>,
    /// A sentence for people.
    pub message: String,
}

impl Cause {
    /// A cause that refuses the request.
    pub fn error(cause_id: u32, code: &'static str, field: &str, message: impl Into<String>) -> Self {
        let references = vec![field.to_owned()];
        Self { department: "items", cause_id, severity: "error", code, references, message: message.into() }
    }
}

/// An answer of the simulated API that is not a success.
#[derive(Clone, Debug)]
pub struct MlError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The machine word, e.g. `access_denied`.
    pub error: &'static str,
    /// A sentence for people.
    pub message: String,
    /// Which rules were broken.
    pub cause: Vec<Cause>,
    /// True where MercadoLibre uses OAuth's `error_description` instead of `message`.
    oauth: bool,
}

impl MlError {
    /// A resource error.
    pub fn new(status: StatusCode, error: &'static str, message: impl Into<String>) -> Self {
        Self { status, error, message: message.into(), cause: Vec::new(), oauth: false }
    }

    /// An error of `/oauth/token`.
    pub fn oauth(error: &'static str, message: impl Into<String>) -> Self {
        let status =
            if error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        Self { oauth: true, ..Self::new(status, error, message) }
    }

    /// 400 `validation_error` with its causes.
    pub fn validation(cause: Vec<Cause>) -> Self {
        let mut error = Self::bad_request("Validation error");
        error.error = "validation_error";
        error.cause = cause;
        error
    }

    /// 400 `bad_request`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 401: the token is missing, expired or revoked.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "invalid access token")
    }

    /// 403: the resource belongs to another seller.
    pub fn access_denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, "access_denied", "Invalid caller.id")
    }

    /// 404 of a resource.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("{what} with id {id} not found"))
    }

    /// 409: a write overtook another.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// The body as MercadoLibre sends it.
    pub fn body(&self) -> Value {
        let status = self.status.as_u16();
        let text = if self.oauth { "error_description" } else { "message" };
        json!({ text: self.message, "error": self.error, "status": status, "cause": self.cause })
    }
}

impl IntoResponse for MlError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
