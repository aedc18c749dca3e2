//! Tokens of connected accounts: sealed at rest, refreshed by one process at a time.
//!
//! A refresh token works once. So: a claim in the database before it is sent, the new pair committed before anybody
//! uses it, and where the outcome is unknown no second try: the person is asked to connect again. The refresh runs in
//! a task of its own, because a client that goes away must not break it off between answer and commit.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use secrecy::SecretString;
use serde::Deserialize;
use service_kit::Clock;
use tokio::sync::RwLock;
use uuid::Uuid;

use super::client::{Body, MlClient, Request};
use super::{Group, MlError};
use crate::error::Error;
use crate::limiter::Lane;
use crate::metrics::Metrics;
use crate::seal::{Place, Sealer};
use crate::store::{Account, Millis, RefreshClaim, SealedTokens, Store};

/// Refreshed when less is left, or less than a fifth of a shorter life.
const REFRESH_BEFORE_MS: Millis = 10 * 60 * 1000;
/// A claim older than this belongs to a process that died; longer than any call to MercadoLibre with its retries.
const LEASE_MS: Millis = 60_000;
/// How long a caller waits for somebody else's refresh, and how often it looks.
const WAIT: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);

/// A usable access token.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose.
    pub account: Account,
    /// The token.
    pub token: SecretString,
}

/// What `/oauth/token` answers.
#[derive(Deserialize)]
struct Pair {
    access_token: SecretString,
    refresh_token: SecretString,
    expires_in: u32,
    user_id: u64,
}

/// See the module.
pub struct Tokens {
    store: Arc<dyn Store>,
    sealer: Sealer,
    client: Arc<MlClient>,
    clock: Clock,
    metrics: Metrics,
    /// Held for reading while a refresh runs, so that the end of the process waits for it.
    running: Arc<RwLock<()>>,
}

impl Tokens {
    /// Over this store and client.
    pub fn new(
        store: Arc<dyn Store>,
        sealer: Sealer,
        client: Arc<MlClient>,
        clock: Clock,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self { store, sealer, client, clock, metrics, running: Arc::default() })
    }

    /// Exchanges an authorization code; the account it gives, with sealed tokens, not stored yet.
    ///
    /// # Errors
    /// What MercadoLibre says of the code.
    pub async fn exchange(
        &self,
        user_id: Uuid,
        tenant: &str,
        code: SecretString,
        verifier: Option<SecretString>,
        redirect_uri: &str,
    ) -> Result<Account, Error> {
        let mut fields = vec![("grant_type", "authorization_code".to_owned().into()), ("code", code)];
        fields.push(("redirect_uri", redirect_uri.to_owned().into()));
        if let Some(verifier) = verifier {
            fields.push(("code_verifier", verifier));
        }
        let pair = self.ask(user_id, fields).await?;
        let tokens = self.seal(tenant, &pair)?;
        Ok(Account {
            user_id,
            tenant: tenant.to_owned(),
            ml_user_id: pair.user_id,
            tokens,
            version: 1,
            reauth_reason: None,
        })
    }

    /// Seals the pair of `account` anew for another owner of the same MercadoLibre account.
    ///
    /// # Errors
    /// When the pair does not open.
    pub fn reseal(&self, account: &Account, tenant: &str) -> Result<SealedTokens, Error> {
        let from = |column| Place { tenant: &account.tenant, ml_user_id: account.ml_user_id, column };
        let to = |column| Place { tenant, ml_user_id: account.ml_user_id, column };
        let access = self.sealer.open(from("access_token"), &account.tokens.access)?;
        let refresh = self.sealer.open(from("refresh_token"), &account.tokens.refresh)?;
        Ok(SealedTokens {
            access: self.sealer.seal(to("access_token"), &access)?,
            refresh: self.sealer.seal(to("refresh_token"), &refresh)?,
            ..account.tokens
        })
    }

    /// A token of the user's account that lives for some minutes yet.
    ///
    /// # Errors
    /// [`Error::NotConnected`], [`Error::Reauth`], or why the refresh failed.
    pub async fn access(self: &Arc<Self>, user_id: Uuid) -> Result<Access, Error> {
        let account = self.store.account(user_id).await?.ok_or(Error::NotConnected)?;
        let now = self.now();
        let life = account.tokens.expires_at - account.tokens.issued_at;
        let left = account.tokens.expires_at - now;
        if left > REFRESH_BEFORE_MS.min(life / 5) {
            return self.open(account);
        }
        match self.renew(account.clone()).await {
            Ok(access) => Ok(access),
            // The old one still works: a refresh that failed early is nobody's trouble yet.
            Err(_) if left > 0 => self.open(account),
            Err(error) => Err(error),
        }
    }

    /// A token newer than the one of `stale`, which MercadoLibre did not accept.
    ///
    /// # Errors
    /// As [`Tokens::access`].
    pub async fn renew(self: &Arc<Self>, stale: Account) -> Result<Access, Error> {
        let deadline = tokio::time::Instant::now() + WAIT;
        loop {
            if let Some(reason) = &stale.reauth_reason {
                return Err(Error::Reauth(reason.clone()));
            }
            let now = self.now();
            let (user_id, version) = (stale.user_id, stale.version);
            match self.store.claim_refresh(user_id, version, now, now + LEASE_MS).await? {
                RefreshClaim::Claimed(account) => return self.refresh(*account).await,
                RefreshClaim::Gone => return Err(Error::NotConnected),
                RefreshClaim::Interrupted => {
                    self.store.require_reauth(user_id, version, "refresh_interrupted").await?;
                    self.metrics.refreshes.inc(&["reauth_required"]);
                    return Err(Error::Reauth("refresh_interrupted".into()));
                }
                RefreshClaim::Moved => {
                    let account = self.store.account(user_id).await?.ok_or(Error::NotConnected)?;
                    return match account.reauth_reason.clone() {
                        Some(reason) => Err(Error::Reauth(reason)),
                        None => self.open(account),
                    };
                }
                RefreshClaim::Busy if tokio::time::Instant::now() >= deadline => {
                    return Err(Error::RefreshBusy);
                }
                RefreshClaim::Busy => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Waits until no refresh is under way; called when the process ends.
    pub async fn settled(&self) {
        drop(self.running.write().await);
    }

    async fn refresh(self: &Arc<Self>, account: Account) -> Result<Access, Error> {
        let this = Arc::clone(self);
        let guard = Arc::clone(&self.running).read_owned().await;
        let task = tokio::spawn(async move {
            let result = this.refresh_claimed(account).await;
            drop(guard);
            result
        });
        task.await.unwrap_or(Err(Error::RefreshBusy))
    }

    async fn refresh_claimed(&self, account: Account) -> Result<Access, Error> {
        let (user_id, version) = (account.user_id, account.version);
        let place =
            Place { tenant: &account.tenant, ml_user_id: account.ml_user_id, column: "refresh_token" };
        let refresh_token = match self.sealer.open(place, &account.tokens.refresh) {
            Ok(token) => token,
            Err(error) => {
                self.store.release_refresh(user_id, version).await?;
                return Err(error.into());
            }
        };
        let fields =
            vec![("grant_type", "refresh_token".to_owned().into()), ("refresh_token", refresh_token)];
        let pair = match self.ask(user_id, fields).await {
            Ok(pair) => pair,
            Err(error) => return Err(self.refresh_failed(user_id, version, error).await),
        };
        let tokens = self.seal(&account.tenant, &pair)?;
        if !self.store.commit_refresh(user_id, version, tokens.clone()).await? {
            // Connected anew meanwhile: that newer grant is the one that counts.
            let account = self.store.account(user_id).await?.ok_or(Error::NotConnected)?;
            return self.open(account);
        }
        self.metrics.refreshes.inc(&["ok"]);
        Ok(Access { account: Account { tokens, version: version + 1, ..account }, token: pair.access_token })
    }

    async fn refresh_failed(&self, user_id: Uuid, version: u64, error: Error) -> Error {
        let reason = match &error {
            // Dead for good.
            Error::Ml(MlError::Refused { error, .. }) if error == "invalid_grant" => Some("invalid_grant"),
            // Whether the token was spent is unknown, and presenting it twice is what must never happen.
            Error::Ml(ml) if ml.may_have_happened() && !matches!(ml, MlError::Server { .. }) => {
                Some("refresh_outcome_unknown")
            }
            // Answered without a grant, or never sent: the token is unspent.
            _ => None,
        };
        let stored = match reason {
            Some(reason) => self.store.require_reauth(user_id, version, reason).await,
            None => self.store.release_refresh(user_id, version).await,
        };
        if let Err(store_error) = stored {
            tracing::error!(
                error = &store_error as &dyn std::error::Error,
                "the end of a refresh was not stored"
            );
        }
        self.metrics.refreshes.inc(&[if reason.is_some() { "reauth_required" } else { "failed" }]);
        match reason {
            Some(reason) => {
                tracing::warn!(%user_id, reason, "a MercadoLibre account must be connected again");
                Error::Reauth(reason.to_owned())
            }
            None => error,
        }
    }

    async fn ask(&self, user: Uuid, mut fields: Vec<(&'static str, SecretString)>) -> Result<Pair, Error> {
        let credentials = self.client.credentials();
        fields.push(("client_id", credentials.client_id.clone().into()));
        fields.push(("client_secret", credentials.client_secret.clone()));
        let request = Request {
            group: Group::OAuth,
            method: Method::POST,
            path: "/oauth/token".into(),
            query: Vec::new(),
            body: Body::Form(fields),
            lane: Lane::Critical,
            user,
        };
        let answer = self.client.send(&request, None).await?;
        // serde's text could quote a token; it is left out.
        let pair = serde_json::from_value(answer.body);
        Ok(pair
            .map_err(|_| MlError::Unreadable { expected: "a pair of tokens with expires_in and user_id" })?)
    }

    fn seal(&self, tenant: &str, pair: &Pair) -> Result<SealedTokens, Error> {
        let place = |column| Place { tenant, ml_user_id: pair.user_id, column };
        let issued_at = self.now();
        Ok(SealedTokens {
            access: self.sealer.seal(place("access_token"), &pair.access_token)?,
            refresh: self.sealer.seal(place("refresh_token"), &pair.refresh_token)?,
            issued_at,
            expires_at: issued_at + Millis::from(pair.expires_in) * 1000,
        })
    }

    fn open(&self, account: Account) -> Result<Access, Error> {
        let place = Place { tenant: &account.tenant, ml_user_id: account.ml_user_id, column: "access_token" };
        let token = self.sealer.open(place, &account.tokens.access)?;
        Ok(Access { account, token })
    }

    fn now(&self) -> Millis {
        self.clock.now().as_millisecond()
    }
}
