//! Request parts read as typed values, refused in the system's own error form.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

use crate::error::ApiError;

/// How long a client may take to send a whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A JSON body, read or answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Send the body as application/json.",
            ));
        }
        let bytes = body(request.into_body()).await?;
        serde_json::from_slice(&bytes).map(Json).map_err(|error| {
            // The position helps; the text of serde may quote a value, and a value may be a password.
            let place = format!("line {}, column {}", error.line(), error.column());
            match error.classify() {
                serde_json::error::Category::Data => ApiError::unprocessable(
                    "invalid_body",
                    format!("The body lacks a field or has one of the wrong type near {place}."),
                ),
                _ => ApiError::bad_request("invalid_json", format!("The body is not valid JSON at {place}.")),
            }
        })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => ApiError::internal(error).into_response(),
        }
    }
}

/// Parameters of the query, `?name=value`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|_| {
            ApiError::bad_request("invalid_query", "A query parameter is missing or has the wrong form.")
        })
    }
}

/// Parameters of the path, `/products/{id}`. A value of the wrong form is no such thing: 404.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| ApiError::not_found("not_found", "There is nothing at this address."))
    }
}

/// Reads a whole body within the limits that [`crate::Kit`] set on it.
///
/// # Errors
/// 413 when it is too long, 408 when it comes too slowly, 400 when it breaks off.
pub async fn body(body: Body) -> Result<bytes::Bytes, ApiError> {
    let collected = tokio::time::timeout(BODY_TIMEOUT, body.collect()).await.map_err(|_| {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly.")
    })?;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if is_too_long(&error) {
            too_long()
        } else {
            ApiError::bad_request("body_incomplete", "The body broke off before its end.")
        }
    })
}

/// 413 in the system's form.
pub(crate) fn too_long() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is longer than allowed.")
}

/// True when a body error means that the limit set on it was passed.
#[must_use]
pub fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}
