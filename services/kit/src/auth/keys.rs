//! Public keys of access tokens, as user-service publishes them.

use std::collections::HashMap;

use jsonwebtoken::DecodingKey;
use serde::{Deserialize, Serialize};

/// A JSON Web Key Set of Ed25519 keys (RFC 8037); keys of other kinds in it are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    pub(super) keys: Vec<PublicKey>,
}

/// One key of the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PublicKey {
    pub(super) kty: String,
    #[serde(default)]
    pub(super) crv: String,
    #[serde(default)]
    pub(super) x: String,
    #[serde(default)]
    pub(super) kid: String,
    #[serde(default)]
    pub(super) alg: String,
    #[serde(default, rename = "use")]
    pub(super) purpose: String,
}

impl KeySet {
    /// The keys that can verify, by id.
    pub(super) fn decoding_keys(&self) -> HashMap<String, DecodingKey> {
        self.keys
            .iter()
            .filter(|key| key.kty == "OKP" && key.crv == "Ed25519" && !key.kid.is_empty())
            .filter_map(|key| Some((key.kid.clone(), DecodingKey::from_ed_components(&key.x).ok()?)))
            .collect()
    }

    /// Ids of the keys, the signing one first.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        self.keys.iter().map(|key| key.kid.as_str()).collect()
    }
}
