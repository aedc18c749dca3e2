//! The MercadoLibre consent as data: where the browser is sent, and what must be known when it comes back.
//!
//! PKCE (RFC 7636) with S256 is always used: MercadoLibre ignores it where the application's switch is off and demands
//! it where it is on. The verifier waits in the store, sealed under the state. The store knows only the state's hash,
//! and the browser's address bar knows only the state, so neither can redeem an intercepted code.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::random::OpaqueToken;

/// How long MercadoLibre may take to send the browser back.
pub const CONSENT_TTL: SignedDuration = SignedDuration::from_mins(10);

/// The verifier could not be sealed, or the sealed one is not of this state and user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot seal or open the PKCE verifier")]
pub struct SealError;

/// MercadoLibre's side of the consent, fixed by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentPage {
    /// `https://auth.mercadolibre.<country>`, without a trailing slash.
    pub base: String,
    /// The application.
    pub client_id: String,
    /// Registered with MercadoLibre, byte for byte.
    pub redirect_uri: String,
}

impl ConsentPage {
    /// The address that asks the user for consent.
    #[must_use]
    pub fn authorize_url(&self, state: &OpaqueToken, verifier: &OpaqueToken) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &challenge(verifier.expose()))
            .append_pair("code_challenge_method", "S256");
        format!("{}/authorization?{}", self.base, query.finish())
    }
}

/// S256 of RFC 7636 section 4.2.
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// Seals a verifier under its state, for one user.
///
/// # Errors
/// [`SealError`].
pub fn seal(verifier: &OpaqueToken, state: &str, user_id: Uuid) -> Result<Vec<u8>, SealError> {
    let mut sealed = verifier.expose().as_bytes().to_vec();
    state_key(state)?
        .seal_in_place_append_tag(nonce(), Aad::from(user_id.into_bytes()), &mut sealed)
        .map_err(|_| SealError)?;
    Ok(sealed)
}

/// Opens what [`seal`] made, given the same state and user.
///
/// # Errors
/// [`SealError`].
pub fn open(sealed: &[u8], state: &str, user_id: Uuid) -> Result<Zeroizing<String>, SealError> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let plain = state_key(state)?
        .open_in_place(nonce(), Aad::from(user_id.into_bytes()), &mut buffer)
        .map_err(|_| SealError)?;
    Ok(Zeroizing::new(String::from_utf8(plain.to_vec()).map_err(|_| SealError)?))
}

/// One key per state: 256 random bits, extracted and bound to their purpose.
fn state_key(state: &str) -> Result<LessSafeKey, SealError> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"user-service").extract(state.as_bytes());
    let expanded = extracted.expand(&[b"pkce verifier"], &AES_256_GCM).map_err(|_| SealError)?;
    Ok(LessSafeKey::new(UnboundKey::from(expanded)))
}

/// A fixed nonce is safe here because each key seals exactly one message.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemEntropy;

    fn token() -> OpaqueToken {
        OpaqueToken::generate(&SystemEntropy).unwrap()
    }

    #[test]
    fn the_challenge_is_the_one_of_the_rfc() {
        // RFC 7636 appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn the_authorize_url_carries_everything_escaped() {
        let page = ConsentPage {
            base: "https://auth.mercadolibre.com.ar".to_owned(),
            client_id: "12 34".to_owned(),
            redirect_uri: "https://api.example.com/api/auth/ml/callback?x=1".to_owned(),
        };
        let (state, verifier) = (token(), token());
        let url = page.authorize_url(&state, &verifier);
        assert!(
            url.starts_with(
                "https://auth.mercadolibre.com.ar/authorization?response_type=code&client_id=12+34&\
             redirect_uri=https%3A%2F%2Fapi.example.com%2Fapi%2Fauth%2Fml%2Fcallback%3Fx%3D1&state="
            ),
            "{url}"
        );
        assert!(url.ends_with("&code_challenge_method=S256"));
        assert!(url.contains(state.expose()) && !url.contains(verifier.expose()));
    }

    #[test]
    fn a_sealed_verifier_opens_only_for_its_state_and_user() {
        let (state, verifier, user) = (token(), token(), Uuid::from_u128(1));
        let sealed = seal(&verifier, state.expose(), user).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains(verifier.expose()));
        assert_eq!(open(&sealed, state.expose(), user).unwrap().as_str(), verifier.expose());
        assert_eq!(open(&sealed, token().expose(), user), Err(SealError));
        assert_eq!(open(&sealed, state.expose(), Uuid::from_u128(2)), Err(SealError));
        assert_eq!(open(&sealed[1..], state.expose(), user), Err(SealError));
        assert_eq!(open(&[], state.expose(), user), Err(SealError));
    }
}
