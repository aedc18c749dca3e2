//! What a client is told when an operation is refused or fails.

use std::time::Duration;

use service_kit::ApiError;

use crate::catalog::{CatalogError, KeyError};
use crate::search::SearchError;
use crate::store::StoreError;

/// When a client may try again after the store or the event log was away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        let message = error.to_string();
        match error {
            CatalogError::NotFound(_) => Self::not_found("product_not_found", message),
            CatalogError::VersionConflict { .. } => Self::conflict("version_conflict", message),
            CatalogError::Invalid(_) => Self::unprocessable("invalid_product", message),
            CatalogError::OwnerErased => Self::forbidden("account_deleted", message),
            CatalogError::KeyReused => Self::unprocessable("idempotency_key_reused", message),
            CatalogError::KeyInFlight => {
                Self::conflict("idempotency_key_in_flight", message).retry_after(RETRY_AFTER)
            }
            CatalogError::Contended(_) => Self::unavailable("contended", message, RETRY_AFTER),
            CatalogError::Store(source) => source.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::unavailable(
                "store_unavailable",
                "The catalog is not available; try again.",
                RETRY_AFTER,
            )
            .with_source(error),
            StoreError::Backlog { .. } => {
                let message = "Too many changes of this product wait to be published; try again later.";
                Self::unavailable("events_waiting", message, RETRY_AFTER).with_source(error)
            }
            StoreError::Failed { .. } => Self::internal(error),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        Self::bad_request("invalid_idempotency_key", error.to_string())
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        Self::bad_request("invalid_query", error.to_string())
    }
}
