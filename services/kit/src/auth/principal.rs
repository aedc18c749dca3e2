//! The user on whose behalf a request is made.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header;
use axum::http::request::Parts;
use uuid::Uuid;

use super::Verifier;
use crate::error::ApiError;

/// An authenticated user. As an extractor it needs `Authorization: Bearer` and answers 401 without.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Id of the user.
    pub user_id: Uuid,
    /// Tenant of the user.
    pub tenant: String,
}

impl Principal {
    /// True for verification traffic, which is left out of business metrics and events.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.tenant == crate::PROBE_TENANT
    }
}

impl<S> FromRequestParts<S> for Principal
where
    S: Send + Sync,
    Verifier: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let token = bearer(parts).ok_or_else(|| {
            ApiError::unauthorized("unauthorized", "Send an access token as Authorization: Bearer.")
        })?;
        Ok(Verifier::from_ref(state).verify(token).await?)
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(parts: &Parts) -> Option<&str> {
    let text = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.trim())
}
