//! Tokens that services and operators share: compared in constant time.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::error::ApiError;

/// Header of calls between services.
pub const INTERNAL_HEADER: &str = "x-internal-token";

/// A secret that both sides know; cheap to clone.
#[derive(Clone)]
pub struct SharedToken(Arc<SecretString>);

impl SharedToken {
    /// Wraps the secret.
    #[must_use]
    pub fn new(secret: SecretString) -> Self {
        Self(Arc::new(secret))
    }

    /// The header that proves a call is internal.
    #[must_use]
    pub fn internal_header(&self) -> (&'static str, &str) {
        (INTERNAL_HEADER, self.0.expose_secret())
    }

    /// True when `offered` is the token; takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, offered: &str) -> bool {
        self.0.expose_secret().as_bytes().ct_eq(offered.as_bytes()).into()
    }

    /// True when this header holds the token.
    #[must_use]
    pub fn in_header(&self, headers: &HeaderMap, name: &str) -> bool {
        headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|offered| self.matches(offered))
    }

    /// True when `Authorization: Bearer` holds the token.
    #[must_use]
    pub fn is_bearer(&self, headers: &HeaderMap) -> bool {
        let offered = headers.get(axum::http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = offered.and_then(|text| text.split_once(' '));
        token.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && self.matches(token.trim())
        })
    }
}

impl fmt::Debug for SharedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedToken(***)")
    }
}

/// Extractor for `/internal/*` routes: the caller holds the internal token, else 401.
#[derive(Clone, Copy, Debug)]
pub struct Internal;

impl<S> FromRequestParts<S> for Internal
where
    S: Send + Sync,
    SharedToken: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if SharedToken::from_ref(state).in_header(&parts.headers, INTERNAL_HEADER) {
            Ok(Self)
        } else {
            Err(ApiError::unauthorized(
                "unauthorized",
                "This address answers to services of the system only.",
            ))
        }
    }
}
