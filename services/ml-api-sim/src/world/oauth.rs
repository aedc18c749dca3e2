//! Codes and tokens, with MercadoLibre's dialect of OAuth: PKCE S256, refresh tokens that work once, only the newest.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::World;
use crate::error::MlError;

/// Life of an authorization code.
const CODE_MS: i64 = 10 * 60 * 1000;
/// Life of a refresh token: six months.
const REFRESH_MS: i64 = 182 * 24 * 3_600_000;
/// A grant dies after four months without any call.
const IDLE_MS: i64 = 122 * 24 * 3_600_000;

/// A registered application.
#[derive(Clone, Debug)]
pub struct Application {
    /// Its id.
    pub client_id: String,
    /// Its secret; `None` until the first token call, which sets it.
    pub client_secret: Option<String>,
    /// The one redirect address, compared byte for byte.
    pub redirect_uri: String,
}

/// An access token's meaning.
#[derive(Clone, Debug)]
pub struct Token {
    /// The application it was issued to.
    pub client_id: String,
    /// The seller it speaks for.
    pub seller: u64,
    expires_ms: i64,
}

/// What a token call answers.
#[derive(Clone, Debug)]
pub struct TokenPair {
    /// `APP_USR-...`
    pub access_token: String,
    /// `TG-...`, single use.
    pub refresh_token: String,
    /// Life of the access token in seconds.
    pub expires_in: u32,
    /// The seller.
    pub seller: u64,
}

/// The fields of a token call.
#[derive(Clone, Debug, Default)]
pub struct Exchange<'a> {
    /// Application id.
    pub client_id: &'a str,
    /// Application secret.
    pub client_secret: &'a str,
    /// Code, of the authorization_code grant.
    pub code: &'a str,
    /// Redirect address, byte for byte the registered one.
    pub redirect_uri: &'a str,
    /// PKCE verifier.
    pub code_verifier: Option<&'a str>,
}

/// A refresh call's outcome and what the ledger must know of it.
#[derive(Debug)]
pub struct Presented {
    /// Fingerprint of the refresh token, the same for every presentation of it.
    pub fingerprint: String,
    /// The seller, when the token was ever issued.
    pub seller: Option<u64>,
    /// The new pair, or why not.
    pub outcome: Result<TokenPair, MlError>,
}

#[derive(Debug, Default)]
pub(super) struct Grants {
    codes: HashMap<String, Code>,
    access: HashMap<String, Token>,
    refresh: HashMap<String, Refresh>,
    last_call_ms: HashMap<(String, u64), i64>,
}

#[derive(Debug)]
struct Code {
    client_id: String,
    seller: u64,
    challenge: Option<String>,
    expires_ms: i64,
}

#[derive(Debug)]
struct Refresh {
    client_id: String,
    seller: u64,
    expires_ms: i64,
    live: bool,
}

impl World {
    /// The application of this id, if registered.
    pub fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.get(client_id)
    }

    /// Consents for `seller`: a code for the application's redirect address.
    pub fn authorize(
        &mut self,
        client_id: &str,
        redirect_uri: &str,
        challenge: Option<&str>,
        seller: u64,
        now_ms: i64,
    ) -> Result<String, MlError> {
        let known = self.applications.get(client_id).map(|app| app.redirect_uri.clone());
        match known {
            Some(registered) if registered != redirect_uri => {
                return Err(MlError::oauth("invalid_request", "redirect_uri is not the registered one"));
            }
            Some(_) => {}
            None if self.seed.application.is_some() => {
                return Err(MlError::oauth("invalid_client", "client_id is not a registered application"));
            }
            None => {
                let app = Application {
                    client_id: client_id.into(),
                    client_secret: None,
                    redirect_uri: redirect_uri.into(),
                };
                self.applications.insert(client_id.into(), app);
            }
        }
        let code = format!("TG-{}-{seller}", self.random_word(24));
        let challenge = challenge.map(str::to_owned);
        self.oauth.codes.insert(
            code.clone(),
            Code { client_id: client_id.into(), seller, challenge, expires_ms: now_ms + CODE_MS },
        );
        Ok(code)
    }

    /// The authorization_code grant. A code works once, whatever the outcome.
    pub fn exchange_code(&mut self, call: &Exchange<'_>, now_ms: i64) -> Result<TokenPair, MlError> {
        self.check_client(call.client_id, call.client_secret)?;
        let invalid = || MlError::oauth("invalid_grant", "The code is invalid, expired or was used before");
        let code = self.oauth.codes.remove(call.code).ok_or_else(invalid)?;
        if code.client_id != call.client_id || code.expires_ms <= now_ms {
            return Err(invalid());
        }
        let registered = self.applications.get(call.client_id).map(|app| app.redirect_uri.as_str());
        if registered != Some(call.redirect_uri) {
            return Err(MlError::oauth("invalid_grant", "redirect_uri differs from the authorization's"));
        }
        if let Some(challenge) = &code.challenge {
            let Some(verifier) = call.code_verifier else {
                return Err(MlError::oauth("invalid_request", "code_verifier is missing"));
            };
            if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != *challenge {
                return Err(MlError::oauth("invalid_grant", "code_verifier does not match the challenge"));
            }
        }
        Ok(self.issue(call.client_id, code.seller, now_ms))
    }

    /// The refresh_token grant.
    pub fn refresh(&mut self, call: &Exchange<'_>, refresh_token: &str, now_ms: i64) -> Presented {
        let fingerprint = URL_SAFE_NO_PAD.encode(&Sha256::digest(refresh_token)[..12]);
        let seller = self.oauth.refresh.get(refresh_token).map(|token| token.seller);
        let outcome = self.check_client(call.client_id, call.client_secret).and_then(|()| {
            let dead = self.idle(call.client_id, seller, now_ms);
            let token =
                self.oauth.refresh.get_mut(refresh_token).filter(|token| token.client_id == call.client_id);
            let token = token.filter(|token| token.live && token.expires_ms > now_ms && !dead);
            let token = token.ok_or_else(|| {
                MlError::oauth(
                    "invalid_grant",
                    "The refresh token is invalid, expired, revoked or was used before",
                )
            })?;
            token.live = false;
            let seller = token.seller;
            Ok(self.issue(call.client_id, seller, now_ms))
        });
        Presented { fingerprint, seller, outcome }
    }

    /// What an access token means now; counts as a call of the grant.
    pub fn token(&mut self, access_token: &str, now_ms: i64) -> Option<Token> {
        let token = self.oauth.access.get(access_token).filter(|token| token.expires_ms > now_ms)?.clone();
        self.oauth.last_call_ms.insert((token.client_id.clone(), token.seller), now_ms);
        Some(token)
    }

    /// Ends every token of a seller, as a password change or a disconnect does.
    pub fn revoke(&mut self, seller: u64, client_id: Option<&str>) {
        let hit = |own: &str| client_id.is_none_or(|wanted| wanted == own);
        self.oauth.access.retain(|_, token| token.seller != seller || !hit(&token.client_id));
        for token in self.oauth.refresh.values_mut().filter(|token| token.seller == seller) {
            if hit(&token.client_id) {
                token.live = false;
            }
        }
    }

    /// Sellers with a live grant for an application, by id.
    pub fn grants(&self, client_id: &str) -> Vec<u64> {
        let live = self.oauth.refresh.values().filter(|token| token.live && token.client_id == client_id);
        let mut sellers: Vec<u64> = live.map(|token| token.seller).collect();
        sellers.sort_unstable();
        sellers.dedup();
        sellers
    }

    fn check_client(&mut self, client_id: &str, secret: &str) -> Result<(), MlError> {
        let invalid = || MlError::oauth("invalid_client", "client_id or client_secret is wrong");
        let app = self.applications.get_mut(client_id).ok_or_else(invalid)?;
        let expected = app.client_secret.get_or_insert_with(|| secret.to_owned());
        if expected == secret && !secret.is_empty() { Ok(()) } else { Err(invalid()) }
    }

    fn idle(&self, client_id: &str, seller: Option<u64>, now_ms: i64) -> bool {
        let Some(seller) = seller else { return false };
        let last = self.oauth.last_call_ms.get(&(client_id.to_owned(), seller));
        last.is_some_and(|last| now_ms - last > IDLE_MS)
    }

    fn issue(&mut self, client_id: &str, seller: u64, now_ms: i64) -> TokenPair {
        // Only the newest refresh token counts; older access tokens live on until they expire.
        for token in self.oauth.refresh.values_mut() {
            if token.seller == seller && token.client_id == client_id {
                token.live = false;
            }
        }
        let access_token = format!("APP_USR-{client_id}-{}-{seller}", self.random_word(32));
        let refresh_token = format!("TG-{}-{seller}", self.random_word(32));
        let expires_in = self.seed.token_seconds;
        let token =
            Token { client_id: client_id.into(), seller, expires_ms: now_ms + i64::from(expires_in) * 1000 };
        self.oauth.access.insert(access_token.clone(), token);
        let refresh =
            Refresh { client_id: client_id.into(), seller, expires_ms: now_ms + REFRESH_MS, live: true };
        self.oauth.refresh.insert(refresh_token.clone(), refresh);
        self.oauth.last_call_ms.insert((client_id.to_owned(), seller), now_ms);
        TokenPair { access_token, refresh_token, expires_in, seller }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_seed;
    use super::*;

    const REDIRECT: &str = "http://127.0.0.1:8080/api/auth/ml/callback";

    fn call(code: &str) -> Exchange<'_> {
        Exchange {
            client_id: "app",
            client_secret: "secret",
            code,
            redirect_uri: REDIRECT,
            code_verifier: Some("verifier"),
        }
    }

    fn connected() -> (World, TokenPair) {
        let mut world = World::new(test_seed());
        let seller = world.create_seller(0);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest("verifier"));
        let code = world.authorize("app", REDIRECT, Some(&challenge), seller, 0).unwrap();
        let pair = world.exchange_code(&call(&code), 1).unwrap();
        (world, pair)
    }

    #[test]
    fn a_code_is_bound_to_redirect_verifier_and_time_and_works_once() {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest("verifier"));
        type Bend = fn(&mut Exchange<'_>);
        let cases: [(&str, Bend, i64); 5] = [
            ("invalid_request", |call| call.code_verifier = None, 1),
            ("invalid_grant", |call| call.code_verifier = Some("other"), 1),
            ("invalid_grant", |call| call.redirect_uri = "http://127.0.0.1:8080/api/auth/ml/callback/", 1),
            ("invalid_client", |call| call.client_secret = "", 1),
            ("invalid_grant", |_| {}, CODE_MS),
        ];
        for (expected, bend, now_ms) in cases {
            let mut world = World::new(test_seed());
            let seller = world.create_seller(0);
            let code = world.authorize("app", REDIRECT, Some(&challenge), seller, 0).unwrap();
            let mut bent = call(&code);
            bend(&mut bent);
            assert_eq!(world.exchange_code(&bent, now_ms).unwrap_err().error, expected);
        }
        let (mut world, pair) = connected();
        let code = world.authorize("app", REDIRECT, None, pair.seller, 0).unwrap();
        assert!(world.exchange_code(&call(&code), 1).is_ok());
        assert_eq!(world.exchange_code(&call(&code), 1).unwrap_err().error, "invalid_grant");
    }

    #[test]
    fn a_refresh_token_works_once_and_only_the_newest() {
        let (mut world, first) = connected();
        let second = world.refresh(&call(""), &first.refresh_token, 2).outcome.unwrap();
        assert_eq!(
            world.refresh(&call(""), &first.refresh_token, 3).outcome.unwrap_err().error,
            "invalid_grant"
        );
        assert!(world.refresh(&call(""), &second.refresh_token, 4).outcome.is_ok());
    }

    #[test]
    fn tokens_end_by_time_revocation_and_silence() {
        let (mut world, pair) = connected();
        let life = i64::from(pair.expires_in) * 1000;
        assert!(world.token(&pair.access_token, life).is_some());
        assert!(world.token(&pair.access_token, life + 1).is_none());
        let (mut world, pair) = connected();
        world.revoke(pair.seller, Some("app"));
        assert!(world.token(&pair.access_token, 2).is_none());
        assert!(world.refresh(&call(""), &pair.refresh_token, 2).outcome.is_err());
        let (mut world, pair) = connected();
        assert!(world.refresh(&call(""), &pair.refresh_token, IDLE_MS + 10).outcome.is_err());
    }

    #[test]
    fn an_application_is_registered_by_its_first_use_or_by_the_seed() {
        let (mut world, pair) = connected();
        assert_eq!(
            world.authorize("app", "http://127.0.0.1/other", None, pair.seller, 0).unwrap_err().error,
            "invalid_request"
        );
        let app = Application {
            client_id: "app".into(),
            client_secret: Some("right".into()),
            redirect_uri: REDIRECT.into(),
        };
        let mut world = World::new(crate::world::Seed { application: Some(app), ..test_seed() });
        let seller = world.create_seller(0);
        assert_eq!(world.authorize("other", REDIRECT, None, seller, 0).unwrap_err().error, "invalid_client");
        let code = world.authorize("app", REDIRECT, None, seller, 0).unwrap();
        assert_eq!(world.exchange_code(&call(&code), 1).unwrap_err().error, "invalid_client");
    }
}
