//! Tokens at rest: AES-256-GCM with the key outside the database.
//!
//! A sealed value is bound to its tenant, its MercadoLibre account and its column, so that a row copied onto another
//! does not open. The key's id stands in the text: several keys may be configured, the first seals, all open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const VERSION: &str = "v1";
const KEY_LEN: usize = 32;

/// Sealing or opening failed. Never says what was inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key text is not what it must be.
    #[error("expected one or more keys of 32 bytes in base64, separated by commas")]
    Key,
    /// The value cannot be sealed.
    #[error("sealing a token failed")]
    Seal,
    /// The text is not a sealed value.
    #[error("opening a token failed: it is not a sealed value")]
    Form,
    /// The value was sealed with a key that is not configured.
    #[error("opening a token failed: its key is not among the configured ones")]
    UnknownKey,
    /// The value was changed or belongs elsewhere.
    #[error("opening a token failed: it was changed or belongs to another account")]
    Mismatch,
}

/// What a sealed value belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Tenant of the account.
    pub tenant: &'a str,
    /// MercadoLibre's user id.
    pub ml_user_id: u64,
    /// Column, e.g. `refresh_token`.
    pub column: &'a str,
}

impl Place<'_> {
    /// Each part with its length before it, so that no two places read the same.
    fn bytes(&self) -> Vec<u8> {
        let id = self.ml_user_id.to_string();
        let mut bytes = Vec::new();
        for part in [self.tenant, &id, self.column] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// The configured keys.
pub struct Sealer {
    keys: Vec<(String, RandomizedNonceKey)>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Sealer {
    /// Reads `TOKEN_ENCRYPTION_KEY`: keys in base64, separated by commas, the newest first.
    ///
    /// # Errors
    /// [`SealError::Key`] when the text is anything else.
    pub fn from_text(text: &str) -> Result<Self, SealError> {
        let mut keys = Vec::new();
        for part in text.split(',') {
            let bytes = Zeroizing::new(STANDARD.decode(part.trim()).map_err(|_| SealError::Key)?);
            if bytes.len() != KEY_LEN {
                return Err(SealError::Key);
            }
            let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(&*bytes)[..6]);
            keys.push((id, RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::Key)?));
        }
        Ok(Self { keys })
    }

    /// Seals a token for its place, as text.
    ///
    /// # Errors
    /// [`SealError::Seal`] when the cipher refuses.
    pub fn seal(&self, place: Place<'_>, token: &SecretString) -> Result<String, SealError> {
        let (id, key) = self.keys.first().ok_or(SealError::Key)?;
        let mut buffer = token.expose_secret().as_bytes().to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(place.bytes()), &mut buffer)
            .map_err(|_| SealError::Seal)?;
        let mut blob = nonce.as_ref().to_vec();
        blob.append(&mut buffer);
        Ok(format!("{VERSION}.{id}.{}", URL_SAFE_NO_PAD.encode(blob)))
    }

    /// Opens a sealed token of this place.
    ///
    /// # Errors
    /// Why it does not open.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Result<SecretString, SealError> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(VERSION), Some(id), Some(blob)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealError::Form);
        };
        let (_, key) = self.keys.iter().find(|(own, _)| own == id).ok_or(SealError::UnknownKey)?;
        let blob = URL_SAFE_NO_PAD.decode(blob).map_err(|_| SealError::Form)?;
        let (nonce, text) = blob.split_at_checked(NONCE_LEN).ok_or(SealError::Form)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
        let mut buffer = Zeroizing::new(text.to_vec());
        let opened = key
            .open_in_place(nonce, Aad::from(place.bytes()), &mut buffer)
            .map_err(|_| SealError::Mismatch)?;
        let token = std::str::from_utf8(opened).map_err(|_| SealError::Mismatch)?;
        Ok(SecretString::from(token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { tenant: "default", ml_user_id: 7, column: "access_token" };

    fn key(byte: u8) -> String {
        STANDARD.encode([byte; KEY_LEN])
    }

    fn sealer(text: &str) -> Sealer {
        Sealer::from_text(text).unwrap()
    }

    fn token() -> SecretString {
        SecretString::from("APP_USR-secret".to_owned())
    }

    #[test]
    fn a_sealed_token_opens_in_its_place_only() {
        let sealer = sealer(&key(1));
        let sealed = sealer.seal(PLACE, &token()).unwrap();
        assert!(!sealed.contains("APP_USR"));
        assert_eq!(sealer.open(PLACE, &sealed).unwrap().expose_secret(), "APP_USR-secret");
        let elsewhere = [
            Place { tenant: "other", ..PLACE },
            Place { ml_user_id: 8, ..PLACE },
            Place { column: "refresh_token", ..PLACE },
        ];
        for place in elsewhere {
            assert_eq!(sealer.open(place, &sealed).unwrap_err(), SealError::Mismatch, "{place:?}");
        }
    }

    #[test]
    fn the_same_token_never_seals_to_the_same_text() {
        let sealer = sealer(&key(1));
        assert_ne!(sealer.seal(PLACE, &token()).unwrap(), sealer.seal(PLACE, &token()).unwrap());
    }

    #[test]
    fn during_a_rotation_the_new_key_seals_and_both_open() {
        let old = sealer(&key(1)).seal(PLACE, &token()).unwrap();
        let both = sealer(&format!("{},{}", key(2), key(1)));
        assert!(both.open(PLACE, &old).is_ok());
        let new = both.seal(PLACE, &token()).unwrap();
        assert!(sealer(&key(2)).open(PLACE, &new).is_ok());
        assert_eq!(sealer(&key(2)).open(PLACE, &old).unwrap_err(), SealError::UnknownKey);
    }

    #[test]
    fn changed_text_and_wrong_keys_are_refused() {
        let sealer = sealer(&key(1));
        let sealed = sealer.seal(PLACE, &token()).unwrap();
        let mut bytes = sealed.into_bytes();
        let last = bytes.len() - 4;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert_eq!(sealer.open(PLACE, &changed).unwrap_err(), SealError::Mismatch);
        assert_eq!(sealer.open(PLACE, "APP_USR-plain").unwrap_err(), SealError::Form);
        for text in ["", "short", &STANDARD.encode([0; 31]), "not base64!"] {
            assert_eq!(Sealer::from_text(text).unwrap_err(), SealError::Key, "{text:?}");
        }
    }
}
