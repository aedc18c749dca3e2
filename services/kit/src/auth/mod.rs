//! Identity: who signs access tokens, who checks them, and the shared tokens between services.
//!
//! An access token is a JWT signed with Ed25519 by user-service alone; everybody else only holds public keys.

mod internal;
mod keys;
mod principal;
mod signer;
mod verifier;

pub use internal::{INTERNAL_HEADER, Internal, SharedToken};
pub use keys::KeySet;
pub use principal::Principal;
pub use signer::{KeyError, SignError, Signer};
pub use verifier::{AuthError, Verifier};

use serde::{Deserialize, Serialize};

/// `iss` and `aud` of every access token.
pub const ISSUER: &str = "ml-ecosystem";
/// `typ` of an access token (RFC 9068): no other kind of JWT passes for one.
pub const TOKEN_TYPE: &str = "at+jwt";
/// Where user-service publishes its public keys.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// Claims of an access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// Id of the user.
    sub: uuid::Uuid,
    tenant: String,
    /// Seconds since the epoch.
    iat: i64,
    nbf: i64,
    exp: i64,
}
