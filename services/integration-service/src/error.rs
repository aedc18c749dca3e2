//! What this service fails with, and what a client is told of it.

use std::time::Duration;

use axum::http::StatusCode;
use service_kit::ApiError;
use service_kit::events::PublishError;

use crate::ml::MlError;
use crate::publish::CatalogError;
use crate::seal::SealError;
use crate::store::StoreError;

/// A request or a piece of work failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user has no MercadoLibre account.
    #[error("use the MercadoLibre account: none is connected")]
    NotConnected,
    /// The account's grant is gone, for this reason.
    #[error("use the MercadoLibre account: it must be connected again ({0})")]
    Reauth(String),
    /// Another process is refreshing the tokens and takes long.
    #[error("refresh the tokens: another process is at it")]
    RefreshBusy,
    /// The MercadoLibre account belongs to another user.
    #[error("link the MercadoLibre account: it belongs to another user")]
    LinkedElsewhere,
    /// The call to MercadoLibre.
    #[error(transparent)]
    Ml(#[from] MlError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A token at rest.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// catalog-service.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The event log.
    #[error("append to the event log")]
    Events(#[source] PublishError),
    /// A listing whose outcome is unknown.
    #[error("list the item: whether MercadoLibre did it is unknown")]
    ListingInDoubt(#[source] Box<Error>),
    /// Of a call that several requests waited for together.
    #[error(transparent)]
    Shared(std::sync::Arc<Error>),
    /// The request itself, with the answer for it.
    #[error(transparent)]
    Request(#[from] ApiError),
}

impl Error {
    /// True when the same may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Ml(error) => error.is_transient(),
            Self::Catalog(error) => error.is_transient(),
            Self::Store(_) | Self::RefreshBusy => true,
            Self::Events(error) => error.is_transient(),
            Self::Shared(error) => error.is_transient(),
            _ => false,
        }
    }

    /// When trying again makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Ml(MlError::BreakerOpen { source, .. }) => Some(source.retry_after),
            Self::Ml(MlError::QuotaDenied(denied)) => Some(denied.retry_after),
            Self::Ml(MlError::RateLimited { retry_after }) => Some(*retry_after),
            Self::Shared(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        if let Error::Request(answer) = error {
            return answer;
        }
        let answer = answer(&error);
        if answer.status().is_server_error() { answer.with_source(error) } else { answer }
    }
}

fn answer(error: &Error) -> ApiError {
    let wait = error.retry_after().unwrap_or(Duration::from_secs(1));
    match error {
        Error::NotConnected => ApiError::conflict(
            "ml_not_connected",
            "No MercadoLibre account is connected; begin with GET /api/auth/ml/connect.",
        ),
        Error::Reauth(_) | Error::Ml(MlError::Unauthorized) => ApiError::conflict(
            "ml_reauth_required",
            "MercadoLibre no longer accepts this connection; connect the account again.",
        ),
        Error::LinkedElsewhere => ApiError::conflict(
            "ml_account_linked_elsewhere",
            "This MercadoLibre account is connected to another user.",
        ),
        Error::RefreshBusy => {
            ApiError::unavailable("ml_busy", "The connection is being renewed; try again.", wait)
        }
        Error::Store(store) if store.busy => {
            ApiError::unavailable("store_busy", "The store is busy; try again.", wait)
        }
        Error::Ml(error) => ml_answer(error, wait),
        Error::Catalog(CatalogError::AccountDeleted) => ApiError::forbidden(
            "account_deleted",
            "The account was deleted; register again to synchronise items.",
        ),
        Error::Catalog(CatalogError::Item(_)) => ApiError::internal("an item cannot be written"),
        Error::Catalog(_) => {
            ApiError::unavailable("catalog_unavailable", "The catalog cannot be reached; try again.", wait)
        }
        Error::ListingInDoubt(_) => ApiError::new(
            StatusCode::BAD_GATEWAY,
            "listing_in_doubt",
            "MercadoLibre did not say whether the item was listed; send the same request again with the same \
             Idempotency-Key.",
        ),
        Error::Shared(error) => answer(error),
        // Only its owner holds it; a shared one is never of this kind.
        Error::Request(_) => ApiError::internal("an answer was shared"),
        Error::Store(_) | Error::Seal(_) | Error::Events(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The request failed on our side; try again later.",
        ),
    }
}

fn ml_answer(error: &MlError, wait: Duration) -> ApiError {
    match error {
        MlError::BreakerOpen { .. } => ApiError::unavailable(
            "ml_unavailable",
            "MercadoLibre is not answering well; try again later.",
            wait,
        ),
        MlError::QuotaDenied(denied) => ApiError::too_many(
            "rate_limited",
            format!(
                "The {} limit of calls to MercadoLibre is used up; try again later.",
                denied.scope.name()
            ),
            wait,
        ),
        MlError::RateLimited { .. } => {
            ApiError::too_many("ml_rate_limited", "MercadoLibre asks to slow down; try again later.", wait)
        }
        MlError::Timeout => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "ml_timeout",
            "MercadoLibre did not answer in time; try again.",
        ),
        MlError::Refused { status: 404, .. } => {
            ApiError::not_found("not_found", "MercadoLibre has no such item.")
        }
        MlError::Refused { status, message, .. } => {
            let answered = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST);
            let refusal = ApiError::new(answered, "ml_refused", format!("MercadoLibre refused: {message}"));
            // Its replicas settle within seconds.
            if *status == 409 { refusal.retry_after(Duration::from_secs(2)) } else { refusal }
        }
        MlError::Unauthorized
        | MlError::Connect(_)
        | MlError::Broken(_)
        | MlError::Server { .. }
        | MlError::Unreadable { .. } => {
            ApiError::new(StatusCode::BAD_GATEWAY, "ml_error", "MercadoLibre could not be asked; try again.")
        }
    }
}
