//! Who makes a request: the user of its bearer token, the address it came from.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts, OptionalFromRequestParts};
use axum::http::HeaderMap;
use axum::http::header;
use axum::http::request::Parts;
use service_kit::ApiError;

use crate::accounts::Accounts;
use crate::error::UserError;
use crate::token::{Caller, TokenRefused};

/// The verified caller; 401 without one.
pub(super) struct Bearer(pub(super) Caller);

impl<S> FromRequestParts<S> for Bearer
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let token = bearer_token(&parts.headers).ok_or(UserError::Token(TokenRefused))?;
        Ok(Self(Arc::<Accounts>::from_ref(state).caller(token).await?))
    }
}

/// No caller without the header; what is in it must be good, or a callback with an old token would use its state up.
impl<S> OptionalFromRequestParts<S> for Bearer
where
    S: Send + Sync,
    Arc<Accounts>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, ApiError> {
        if !parts.headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The client's address. The gateway is the only way in from outside and overwrites `X-Forwarded-For` with its peer,
/// so its last value is to be believed; without the header the peer itself is the client.
pub(super) struct ClientAddress(pub(super) Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        Ok(Self(forwarded_for(&parts.headers).or(peer)))
    }
}

fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let text = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    text.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_last_forwarded_address_counts() {
        for (lines, want) in [
            (vec![], None),
            (vec!["192.0.2.1"], Some("192.0.2.1")),
            (vec!["203.0.113.9, 192.0.2.1"], Some("192.0.2.1")),
            (vec!["203.0.113.9", "192.0.2.1"], Some("192.0.2.1")),
            (vec!["2001:db8::1"], Some("2001:db8::1")),
            (vec!["unknown"], None),
        ] {
            let pairs: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(forwarded_for(&headers(&pairs)), want.map(|text| text.parse().unwrap()), "{lines:?}");
        }
    }

    #[test]
    fn only_bearer_tokens_are_taken() {
        for (value, want) in
            [("Bearer abc", Some("abc")), ("bearer  abc ", Some("abc")), ("Basic abc", None), ("abc", None)]
        {
            assert_eq!(bearer_token(&headers(&[("authorization", value)])), want, "{value}");
        }
    }
}
