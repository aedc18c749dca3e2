//! Making a product, and making it once: a client that repeats a request under the same `Idempotency-Key` gets the
//! answer of the first one.
//!
//! The key is claimed before the product is stored, and the claim holds the product's identity. So a request that takes
//! over from one that died in between makes the same product or finds it made, and two that meet in spite of the claim
//! still make one.

use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Catalog, CatalogError, PROBE_LIFE, after};
use crate::metrics::Outcome;
use crate::product::{Details, Draft, Owner, Product, Source};
use crate::store::{Claim, Claimed, StoreError};

/// Longest key.
const KEY_MAX: usize = 255;
/// How long a key is remembered.
const KEY_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// A request that left no answer for so long is dead: its deadlines end long before.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(30);

/// A client's `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// What a client sent is no [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to {KEY_MAX} visible ASCII characters")]
pub struct KeyError;

impl Key {
    /// Reads the value of the header.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, too long or holds another character.
    pub fn read(value: &[u8]) -> Result<Self, KeyError> {
        let key = std::str::from_utf8(value).map_err(|_| KeyError)?;
        let good = (1..=KEY_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if good { Ok(Self(key.to_owned())) } else { Err(KeyError) }
    }
}

/// A product that was made.
#[derive(Debug)]
pub struct Made {
    /// The product, as it was then.
    pub product: Product,
    /// It was made and answered before.
    pub replayed: bool,
}

impl Catalog {
    /// Makes a product; with a key, once.
    ///
    /// # Errors
    /// [`CatalogError::Invalid`], [`CatalogError::OwnerErased`], [`CatalogError::KeyReused`],
    /// [`CatalogError::KeyInFlight`] or the store's failure.
    pub async fn create(&self, owner: &Owner, draft: Draft, key: Option<Key>) -> Result<Made, CatalogError> {
        let result = self.try_create(owner, draft, key).await;
        self.count(owner, Source::Api, &result, |made| {
            if made.replayed { Outcome::Unchanged } else { Outcome::Created }
        });
        result
    }

    async fn try_create(&self, owner: &Owner, draft: Draft, key: Option<Key>) -> Result<Made, CatalogError> {
        let details = draft.into_details().map_err(CatalogError::Invalid)?;
        let id = (self.new_id)();
        let Some(key) = key else { return self.make(owner, id, details).await };
        match self.store.claim(owner, &self.claim(owner, &key, id, &details)?).await? {
            Claimed::OtherRequest => Err(CatalogError::KeyReused),
            Claimed::InFlight => Err(CatalogError::KeyInFlight),
            Claimed::Answered(product) => Ok(Made { product: *product, replayed: true }),
            Claimed::Granted(id) => {
                let made = self.make(owner, id, details).await;
                let noted = match &made {
                    Ok(made) => self.store.answer(owner, &key.0, &made.product).await,
                    Err(_) => self.store.give_back(owner, &key.0, self.now()).await,
                };
                // The product is made or not, whatever became of the note; a repetition finds out which.
                if let Err(error) = noted {
                    tracing::warn!(
                        cause = %service_kit::error::chain(&error),
                        "the answer under an idempotency key could not be kept"
                    );
                }
                made
            }
        }
    }

    async fn make(&self, owner: &Owner, id: Uuid, details: Details) -> Result<Made, CatalogError> {
        let product = self.insert(owner, id, details, Source::Api, None).await?;
        // Without an item there is nothing that another product could hold; only a deleted one is not found again.
        let product = product.ok_or_else(|| CatalogError::Contended("new".to_owned()))?;
        Ok(Made { product, replayed: false })
    }

    fn claim(&self, owner: &Owner, key: &Key, id: Uuid, details: &Details) -> Result<Claim, CatalogError> {
        let request = serde_json::to_vec(details).map_err(|error| {
            CatalogError::Store(StoreError::Failed { operation: "read a request", source: error.into() })
        })?;
        let digest = Sha256::digest(&request);
        let request = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let now = self.now();
        let life = if owner.is_probe() { PROBE_LIFE } else { KEY_LIFE };
        Ok(Claim {
            key: key.0.clone(),
            request,
            product: id,
            now,
            until: after(now, IN_FLIGHT),
            forget_at: after(now, life),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_text_of_bounded_length() {
        assert!(Key::read(b"0b2f-4c").is_ok());
        assert!(Key::read(&[b'k'; KEY_MAX]).is_ok());
        for bad in [&b""[..], b"two words", b"tab\t", "ñ".as_bytes(), &[0xff], &[b'k'; KEY_MAX + 1]] {
            assert_eq!(Key::read(bad), Err(KeyError), "{bad:?}");
        }
    }
}
