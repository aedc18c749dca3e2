//! `/users/me`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use service_kit::ApiError;
use service_kit::extract::Json;

use super::caller::Bearer;
use crate::account::User;
use crate::accounts::Accounts;

pub(super) async fn me(
    State(accounts): State<Arc<Accounts>>,
    Bearer(caller): Bearer,
) -> Result<Json<User>, ApiError> {
    Ok(Json(accounts.me(&caller).await?))
}

pub(super) async fn leave(
    State(accounts): State<Arc<Accounts>>,
    Bearer(caller): Bearer,
) -> Result<StatusCode, ApiError> {
    accounts.leave(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
