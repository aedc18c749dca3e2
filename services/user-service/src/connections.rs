//! Connecting a MercadoLibre account: send the browser away with a state, recognise it when it comes back, hand the
//! code on.
//!
//! The state is 256 random bits, stored as a hash, bound to the user and the sign-in that started it, valid for ten
//! minutes and for one use. It says which connection a callback belongs to, not who sent it: that is shown by the
//! cookie of the browser that started it, or by a bearer token of the same sign-in.

use std::sync::Arc;

use serde::Serialize;
use service_kit::Clock;

use crate::accounts::after;
use crate::consent::{self, CONSENT_TTL, ConsentPage};
use crate::error::UserError;
use crate::integration::{CodeExchange, IntegrationError, IntegrationService};
use crate::metrics::{ConnectionOutcome, Metrics};
use crate::random::{Entropy, OpaqueToken, TokenHash};
use crate::store::{AccountStore, PendingConnection};
use crate::token::{Caller, TokenRefused};

/// Where to send the user's browser.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionStart {
    /// MercadoLibre's consent page for this attempt.
    pub authorize_url: String,
    /// The state in that address, for clients that want to compare.
    pub state: String,
    /// For the browser's cookie; no part of the body.
    #[serde(skip)]
    pub browser: OpaqueToken,
}

/// What a callback shows of who sent it.
#[derive(Debug, Default)]
pub struct Sender<'a> {
    /// Values of the cookie that the start set.
    pub cookies: Vec<&'a str>,
    /// The user of its bearer token.
    pub caller: Option<Caller>,
}

impl Sender<'_> {
    /// Whether this is who began the connection.
    fn began(&self, pending: &PendingConnection) -> bool {
        let same_browser = self.cookies.iter().any(|cookie| pending.browser == Some(TokenHash::of(cookie)));
        let same_sign_in = self.caller.as_ref().is_some_and(|caller| {
            (caller.user_id, caller.session_id) == (pending.user_id, pending.session_id)
        });
        same_browser || same_sign_in
    }
}

/// A connected account.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionResult {
    /// Always true: anything else is an error.
    pub connected: bool,
    /// MercadoLibre's id of the account.
    pub ml_user_id: i64,
}

/// The use cases, over ports.
pub struct Connections {
    /// Pending consents.
    pub store: Arc<dyn AccountStore>,
    /// Exchanges codes and keeps tokens.
    pub integration: Arc<IntegrationService>,
    /// MercadoLibre's side.
    pub page: ConsentPage,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Counters.
    pub metrics: Metrics,
}

impl Connections {
    /// Begins a connection for the caller.
    ///
    /// # Errors
    /// [`UserError::Token`] if the caller's sign-in has ended.
    pub async fn start(&self, caller: &Caller) -> Result<ConnectionStart, UserError> {
        if !self.store.session_is_live(caller.session_id).await? {
            return Err(UserError::Token(TokenRefused));
        }
        let state = OpaqueToken::generate(&*self.entropy)?;
        let verifier = OpaqueToken::generate(&*self.entropy)?;
        let browser = OpaqueToken::generate(&*self.entropy)?;
        let pending = PendingConnection {
            state: state.hash(),
            user_id: caller.user_id,
            session_id: caller.session_id,
            browser: Some(browser.hash()),
            sealed_verifier: consent::seal(&verifier, state.expose(), caller.user_id)?,
            expires_at: after(self.clock.now(), CONSENT_TTL),
        };
        self.store.save_connection(pending).await?;
        if !caller.tenant.is_probe() {
            self.metrics.connection(ConnectionOutcome::Started);
        }
        Ok(ConnectionStart {
            authorize_url: self.page.authorize_url(&state, &verifier),
            state: state.expose().to_owned(),
            browser,
        })
    }

    /// Finishes a connection when the browser is back with a code; without one, the user declined.
    ///
    /// # Errors
    /// [`UserError`]; the state is used up in any case.
    pub async fn finish(
        &self,
        state: &str,
        code: Option<&str>,
        sender: &Sender<'_>,
        request_id: &str,
    ) -> Result<ConnectionResult, UserError> {
        let taken = self.store.take_connection(TokenHash::of(state), self.clock.now()).await?;
        let Some((pending, tenant)) = taken else {
            self.metrics.connection(ConnectionOutcome::InvalidState);
            return Err(UserError::StateRefused);
        };
        if !sender.began(&pending) {
            self.metrics.connection(ConnectionOutcome::InvalidState);
            tracing::warn!(user_id = %pending.user_id, "a MercadoLibre callback came from somebody else than who began it");
            return Err(UserError::OtherBrowser);
        }
        let result = match code.filter(|code| !code.is_empty()) {
            Some(code) => self.exchange(&pending, tenant.as_str(), state, code, request_id).await,
            None => Err(UserError::ConsentDeclined),
        };
        if !tenant.is_probe() {
            self.metrics.connection(connection_outcome(&result));
        }
        result
    }

    async fn exchange(
        &self,
        pending: &PendingConnection,
        tenant: &str,
        state: &str,
        code: &str,
        request_id: &str,
    ) -> Result<ConnectionResult, UserError> {
        let verifier = consent::open(&pending.sealed_verifier, state, pending.user_id)?;
        let exchange = CodeExchange {
            user_id: pending.user_id,
            tenant,
            code,
            code_verifier: &verifier,
            redirect_uri: &self.page.redirect_uri,
        };
        let ml_user_id = self.integration.connect(&exchange, request_id).await?;
        self.store.set_ml_user(pending.user_id, Some(ml_user_id)).await?;
        tracing::info!(user_id = %pending.user_id, "a MercadoLibre account is connected");
        Ok(ConnectionResult { connected: true, ml_user_id })
    }

    /// Drops the caller's MercadoLibre account. None connected is fine.
    ///
    /// # Errors
    /// [`UserError::Integration`] if integration-service could not be told; nothing has changed then.
    pub async fn disconnect(&self, caller: &Caller) -> Result<(), UserError> {
        self.integration.disconnect(caller.user_id).await?;
        self.store.set_ml_user(caller.user_id, None).await?;
        if !caller.tenant.is_probe() {
            self.metrics.connection(ConnectionOutcome::Disconnected);
        }
        Ok(())
    }
}

fn connection_outcome(result: &Result<ConnectionResult, UserError>) -> ConnectionOutcome {
    match result {
        Ok(_) => ConnectionOutcome::Connected,
        Err(UserError::ConsentDeclined) => ConnectionOutcome::Denied,
        Err(UserError::Integration(
            IntegrationError::AccountTaken | IntegrationError::CodeRefused { .. },
        )) => ConnectionOutcome::Refused,
        Err(_) => ConnectionOutcome::Failed,
    }
}
