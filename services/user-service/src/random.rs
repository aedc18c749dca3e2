//! Randomness as a port, and the opaque tokens made of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The system had no randomness to give; nothing secret can be made without.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("cannot read randomness from the operating system")]
pub struct NoEntropy;

/// A source of unpredictable bytes. Tests inject a counting one.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`NoEntropy`].
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy>;
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        aws_lc_rs::rand::fill(bytes).map_err(|_| NoEntropy)
    }
}

/// Makes a random (version 4) identity.
///
/// # Errors
/// [`NoEntropy`].
pub fn uuid(entropy: &dyn Entropy) -> Result<Uuid, NoEntropy> {
    let mut bytes = [0; 16];
    entropy.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// What a store keeps of an [`OpaqueToken`]. A fast hash will do: the token has 256 bits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hash of a token as presented by a client; any text will do, an unknown one is simply not found.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// A hash read back from the store.
    #[must_use]
    pub const fn stored(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A secret of 256 random bits that means something only to the store that knows its hash.
#[derive(Clone)]
pub struct OpaqueToken(Zeroizing<String>);

impl OpaqueToken {
    /// Makes a new token: 43 characters of unpadded base64url.
    ///
    /// # Errors
    /// [`NoEntropy`].
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, NoEntropy> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice())?;
        Ok(Self(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// The text for the client. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What to store and look up.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl std::fmt::Debug for OpaqueToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpaqueToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_hide() {
        let one = OpaqueToken::generate(&SystemEntropy).unwrap();
        let two = OpaqueToken::generate(&SystemEntropy).unwrap();
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 43);
        assert_eq!(one.hash(), TokenHash::of(one.expose()));
        assert_eq!(format!("{one:?}"), "OpaqueToken(***)");
    }
}
