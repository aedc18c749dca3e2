//! catalog-service as seen from here: it forgets the products of a removed user.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use service_kit::auth::SharedToken;
use service_kit::client::{CallError, Client, HttpUrl};
use uuid::Uuid;

/// One statement on its side.
const TIMEOUT: Duration = Duration::from_secs(5);

/// catalog-service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There was no answer.
    #[error("cannot ask catalog-service to erase a user's products")]
    Unreachable(#[from] CallError),
    /// There was an answer that means nothing good.
    #[error("catalog-service answers {0} when asked to erase a user's products")]
    Failed(StatusCode),
}

/// Calls catalog-service's internal routes.
#[derive(Debug, Clone)]
pub struct CatalogService {
    client: Client,
    token: SharedToken,
}

impl CatalogService {
    /// Makes a client of the service at `url`.
    #[must_use]
    pub fn new(url: HttpUrl, token: SharedToken) -> Self {
        Self { client: Client::new(url, TIMEOUT), token }
    }

    /// Removes a user's products. Repeating it is harmless.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub async fn erase(&self, tenant: &str, user_id: Uuid) -> Result<(), CatalogError> {
        let path = format!("/internal/products/users/{user_id}?tenant={tenant}");
        let headers = [self.token.internal_header()];
        let status = self.client.call(Method::DELETE, &path, &headers, Bytes::new()).await?.status;
        if status.is_success() { Ok(()) } else { Err(CatalogError::Failed(status)) }
    }
}
