//! `/auth/ml/connect`, `/auth/ml/callback`, `/auth/ml/disconnect`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;
use service_kit::ApiError;
use service_kit::app::RequestId;
use service_kit::extract::{Json, Query};

use super::caller::Bearer;
use crate::browser;
use crate::connections::{ConnectionResult, ConnectionStart, Connections, Sender};

/// Headers of an answer.
type Headers = [(HeaderName, &'static str); 2];
/// A connection that begins, with the cookie of the browser it begins in.
type Started = (Headers, [(HeaderName, HeaderValue); 1], Json<ConnectionStart>);

/// State and code must neither be kept by a cache nor told to another site.
const PRIVATE: Headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];

/// What MercadoLibre sends the browser back with: a code, or `error` instead.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Callback {
    state: String,
    code: Option<String>,
}

pub(super) async fn connect(
    State(connections): State<Arc<Connections>>,
    Bearer(caller): Bearer,
) -> Result<Started, ApiError> {
    let start = connections.start(&caller).await?;
    let mut cookie = HeaderValue::try_from(browser::cookie(&connections.page, &start.browser))
        .map_err(ApiError::internal)?;
    cookie.set_sensitive(true);
    Ok((PRIVATE, [(header::SET_COOKIE, cookie)], Json(start)))
}

pub(super) async fn callback(
    State(connections): State<Arc<Connections>>,
    Extension(request_id): Extension<RequestId>,
    caller: Option<Bearer>,
    headers: HeaderMap,
    Query(callback): Query<Callback>,
) -> Result<(Headers, Json<ConnectionResult>), ApiError> {
    let sender = Sender {
        cookies: browser::presented(&headers).collect(),
        caller: caller.map(|Bearer(caller)| caller),
    };
    let (state, code) = (&callback.state, callback.code.as_deref());
    let result = connections.finish(state, code, &sender, request_id.as_str()).await?;
    Ok((PRIVATE, Json(result)))
}

pub(super) async fn disconnect(
    State(connections): State<Arc<Connections>>,
    Bearer(caller): Bearer,
) -> Result<StatusCode, ApiError> {
    connections.disconnect(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
