//! What a client is told when a query is refused or fails.

use std::time::Duration;

use service_kit::ApiError;

use crate::query::RangeError;
use crate::store::StoreError;

impl From<RangeError> for ApiError {
    fn from(error: RangeError) -> Self {
        Self::bad_request("invalid_range", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } | StoreError::NotMigrated { .. } => {
                let message = "The analytics are not available; try again.";
                Self::unavailable("store_unavailable", message, Duration::from_secs(1)).with_source(error)
            }
            StoreError::Failed { .. } => Self::internal(error),
        }
    }
}
