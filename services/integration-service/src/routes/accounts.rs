//! `/internal/ml/accounts`: user-service hands over what MercadoLibre sent to its callback.

use axum::extract::State;
use axum::http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use service_kit::ApiError;
use service_kit::auth::Internal;
use service_kit::extract::{Json, Path};
use uuid::Uuid;

use super::App;
use crate::accounts::Authorization;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Connect {
    user_id: Uuid,
    tenant: String,
    #[cfg_attr(test, schemars(with = "String"))]
    code: SecretString,
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    code_verifier: Option<SecretString>,
    redirect_uri: String,
}

/// `POST /internal/ml/accounts`.
pub(super) async fn connect(
    State(app): State<App>,
    _: Internal,
    Json(body): Json<Connect>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if app.redirect_uri.as_deref().is_some_and(|registered| registered != body.redirect_uri) {
        return Err(ApiError::unprocessable(
            "invalid_redirect_uri",
            "redirect_uri is not the registered one.",
        ));
    }
    let authorization = Authorization {
        user_id: body.user_id,
        tenant: body.tenant,
        code: body.code,
        code_verifier: body.code_verifier,
        redirect_uri: body.redirect_uri,
    };
    let ml_user_id = app.accounts.connect(authorization).await?;
    Ok((StatusCode::CREATED, Json(json!({ "ml_user_id": ml_user_id }))))
}

/// `DELETE /internal/ml/accounts/{user_id}`.
pub(super) async fn disconnect(
    State(app): State<App>,
    _: Internal,
    Path(user_id): Path<Uuid>,
) -> Result<StatusCode, ApiError> {
    app.accounts.disconnect(user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
