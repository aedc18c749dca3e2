//! `/auth/register`, `/auth/login`, `/auth/refresh`, `/auth/logout`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use service_kit::ApiError;
use service_kit::extract::Json;

use super::App;
use super::caller::ClientAddress;
use crate::accounts::{Accounts, Registration, SignedIn};

/// Header of the operator token on a registration.
const OPERATOR_HEADER: &str = "x-operator-token";

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RegisterBody {
    #[cfg_attr(test, schemars(email, length(max = 254)))]
    email: String,
    #[cfg_attr(test, schemars(length(min = 8, max = 256)))]
    password: String,
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LoginBody {
    email: String,
    password: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RefreshBody {
    refresh_token: String,
}

pub(super) async fn register(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    Json(body): Json<RegisterBody>,
) -> Result<Response, ApiError> {
    let by_operator =
        app.operator_token.as_ref().is_some_and(|token| token.in_header(&headers, OPERATOR_HEADER));
    let asked = Registration { email: body.email, password: body.password, tenant: body.tenant, by_operator };
    Ok(tokens(StatusCode::CREATED, app.accounts.register(asked, address).await?))
}

pub(super) async fn login(
    State(accounts): State<Arc<Accounts>>,
    ClientAddress(address): ClientAddress,
    Json(body): Json<LoginBody>,
) -> Result<Response, ApiError> {
    Ok(tokens(StatusCode::OK, accounts.login(&body.email, body.password, address).await?))
}

pub(super) async fn refresh(
    State(accounts): State<Arc<Accounts>>,
    Json(body): Json<RefreshBody>,
) -> Result<Response, ApiError> {
    Ok(tokens(StatusCode::OK, accounts.refresh(&body.refresh_token).await?))
}

pub(super) async fn logout(
    State(accounts): State<Arc<Accounts>>,
    Json(body): Json<RefreshBody>,
) -> Result<StatusCode, ApiError> {
    accounts.logout(&body.refresh_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An answer with tokens, which no cache may keep (RFC 6749 section 5.1).
fn tokens(status: StatusCode, signed_in: SignedIn) -> Response {
    let mut response = (status, Json(signed_in)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
