//! The signing side of access tokens: user-service, and tests of the others.

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::keys::{KeySet, PublicKey};
use super::{Claims, ISSUER, Principal, TOKEN_TYPE};

/// How many characters of the public key's hash name a key.
const KEY_ID_LENGTH: usize = 16;

/// The keys cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No PEM block in the text.
    #[error("expected one or more PKCS#8 PEM private keys (BEGIN PRIVATE KEY)")]
    Empty,
    /// A PEM block is no Ed25519 private key.
    #[error("private key {position} is not an Ed25519 key in PKCS#8 PEM form")]
    Unusable {
        /// Which key of the text, from 1.
        position: usize,
        /// What the cryptography says.
        source: jsonwebtoken::errors::Error,
    },
    /// The random generator failed.
    #[error("cannot generate an Ed25519 key")]
    Generate,
}

/// A token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign an access token")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// The system's claims with those of one issuer beside them.
#[derive(Serialize)]
struct Extended<'a, E> {
    #[serde(flatten)]
    claims: Claims,
    #[serde(flatten)]
    extra: &'a E,
}

#[derive(Serialize)]
struct NoClaims {}

/// Signs access tokens.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    key_id: Option<String>,
    keys: KeySet,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?}, {:?})", self.algorithm, self.keys.ids())
    }
}

impl Signer {
    /// A signer from one or more PKCS#8 PEM private keys: the first signs, all of them verify.
    ///
    /// # Errors
    /// [`KeyError`] that names the unusable key by its position, never by its content.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const END: &str = "-----END PRIVATE KEY-----";
        let mut signing = None;
        let mut keys = KeySet::default();
        for (index, block) in text.split_inclusive(END).filter(|block| block.contains("BEGIN")).enumerate() {
            let unusable = |source| KeyError::Unusable { position: index + 1, source };
            let key = EncodingKey::from_ed_pem(block.trim().as_bytes()).map_err(unusable)?;
            let public = public_key(&key).map_err(unusable)?;
            signing.get_or_insert((key, public.kid.clone()));
            keys.keys.push(public);
        }
        let (key, key_id) = signing.ok_or(KeyError::Empty)?;
        Ok(Self { algorithm: Algorithm::EdDSA, key, key_id: Some(key_id), keys })
    }

    /// A signer with a shared secret (HS256): every holder of the secret can forge tokens, so prefer keys.
    #[must_use]
    pub fn from_secret(secret: &SecretString) -> Self {
        let key = EncodingKey::from_secret(secret.expose_secret().as_bytes());
        Self { algorithm: Algorithm::HS256, key, key_id: None, keys: KeySet::default() }
    }

    /// A new private key in PKCS#8 PEM form.
    ///
    /// # Errors
    /// [`KeyError::Generate`] when the system gives no randomness.
    pub fn generate_pem() -> Result<SecretString, KeyError> {
        // The short form without the public key: it is what every reader of Ed25519 PEM files accepts.
        let document = Ed25519KeyPair::generate()
            .and_then(|pair| {
                use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
                AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)
            })
            .map_err(|_| KeyError::Generate)?;
        let body = STANDARD.encode(document.as_ref());
        Ok(SecretString::from(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")))
    }

    /// The public keys, for `/.well-known/jwks.json`; empty with a shared secret.
    #[must_use]
    pub fn key_set(&self) -> &KeySet {
        &self.keys
    }

    /// An access token for a user, valid from `now` for `lifetime`.
    ///
    /// # Errors
    /// [`SignError`] when the cryptography fails.
    pub fn sign(&self, who: &Principal, now: Timestamp, lifetime: Duration) -> Result<String, SignError> {
        self.sign_with(who, &NoClaims {}, now, lifetime)
    }

    /// The same with claims of the caller's own beside the system's, as fields of `extra`.
    ///
    /// # Errors
    /// [`SignError`] when the cryptography fails or `extra` is no object.
    pub fn sign_with<E: Serialize>(
        &self,
        who: &Principal,
        extra: &E,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, SignError> {
        let mut header = Header::new(self.algorithm);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid.clone_from(&self.key_id);
        let now = now.as_second();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: who.user_id,
            tenant: who.tenant.clone(),
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime),
        };
        Ok(jsonwebtoken::encode(&header, &Extended { claims, extra }, &self.key)?)
    }
}

fn public_key(key: &EncodingKey) -> Result<PublicKey, jsonwebtoken::errors::Error> {
    let jwk = Jwk::from_encoding_key(key, Algorithm::EdDSA)?;
    let AlgorithmParameters::OctetKeyPair(pair) = jwk.algorithm else {
        return Err(jsonwebtoken::errors::ErrorKind::InvalidKeyFormat.into());
    };
    let bytes = URL_SAFE_NO_PAD.decode(&pair.x).unwrap_or_default();
    let mut kid = URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
    kid.truncate(KEY_ID_LENGTH);
    Ok(PublicKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: pair.x,
        kid,
        alg: "EdDSA".to_owned(),
        purpose: "sig".to_owned(),
    })
}
