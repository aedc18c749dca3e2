//! `POST /ml/notifications/{secret}`: MercadoLibre tells of changes and wants its 200 within half a second.

use axum::extract::State;
use axum::http::{Request, StatusCode};
use service_kit::ApiError;
use service_kit::extract::{Path, body};

use super::App;

/// Stored, then 200. A wrong secret is an address where nothing is; a store that fails is a 5xx, so that
/// MercadoLibre sends the notification again.
pub(super) async fn receive(
    State(app): State<App>,
    Path(secret): Path<String>,
    request: Request<axum::body::Body>,
) -> Result<StatusCode, ApiError> {
    if !app.webhook_secret.matches(&secret) {
        return Err(ApiError::not_found("not_found", "There is nothing at this address."));
    }
    let bytes = body(request.into_body()).await?;
    if let Err(refusal) = app.inbox.receive(&bytes).await? {
        tracing::info!(?refusal, "a notification was not taken");
    }
    Ok(StatusCode::OK)
}
