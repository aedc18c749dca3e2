//! Connecting and disconnecting MercadoLibre accounts.

use std::sync::Arc;

use axum::http::Method;
use secrecy::SecretString;
use service_kit::Clock;
use uuid::Uuid;

use crate::error::Error;
use crate::limiter::Lane;
use crate::ml::{Body, Group, Request, Session};
use crate::owners::Owners;
use crate::publish::{Owner, Publisher};
use crate::store::{Linked, Store};

/// See the module.
pub struct Accounts {
    store: Arc<dyn Store>,
    owners: Arc<Owners>,
    session: Session,
    publisher: Arc<Publisher>,
    clock: Clock,
}

/// An authorization to exchange.
#[derive(Debug)]
pub struct Authorization {
    /// Our user.
    pub user_id: Uuid,
    /// Its tenant.
    pub tenant: String,
    /// MercadoLibre's code.
    pub code: SecretString,
    /// PKCE verifier.
    pub code_verifier: Option<SecretString>,
    /// The redirect address of the authorization.
    pub redirect_uri: String,
}

impl Accounts {
    /// Over these parts.
    pub fn new(
        store: Arc<dyn Store>,
        owners: Arc<Owners>,
        session: Session,
        publisher: Arc<Publisher>,
        clock: Clock,
    ) -> Self {
        Self { store, owners, session, publisher, clock }
    }

    /// Exchanges the code and links the account; MercadoLibre's user id.
    ///
    /// # Errors
    /// What MercadoLibre says of the code; [`Error::LinkedElsewhere`] when the account is another user's.
    pub async fn connect(&self, authorization: Authorization) -> Result<u64, Error> {
        let Authorization { user_id, tenant, code, code_verifier, redirect_uri } = authorization;
        let tokens = self.session.tokens();
        let account = tokens.exchange(user_id, &tenant, code, code_verifier, &redirect_uri).await?;
        let ml_user_id = account.ml_user_id;
        match self.store.link(account.clone(), self.clock.now().as_millisecond()).await? {
            Linked::New | Linked::Replaced => self.owners.forget(user_id).await,
            Linked::Elsewhere(owner) => {
                // Only the newest refresh token of an account counts: the exchange has just ended the owner's. The
                // account is the same, so its owner gets the new pair, and the caller gets nothing.
                let pair = tokens.reseal(&account, &owner.tenant)?;
                self.store.commit_refresh(owner.user_id, owner.version, pair).await?;
                return Err(Error::LinkedElsewhere);
            }
        }
        self.publisher.account(Owner { tenant: &tenant, user_id }, "account.connected", ml_user_id).await?;
        tracing::info!(%user_id, ml_user_id, "account connected");
        Ok(ml_user_id)
    }

    /// Ends the grant at MercadoLibre, as far as it can be reached, and forgets the account. No account is a success.
    ///
    /// # Errors
    /// When the store or the log does not answer.
    pub async fn disconnect(&self, user_id: Uuid) -> Result<(), Error> {
        let Some(account) = self.store.account(user_id).await? else { return Ok(()) };
        if account.reauth_reason.is_none() {
            let client_id = &self.session.client().credentials().client_id;
            let request = Request {
                group: Group::OAuth,
                method: Method::DELETE,
                path: format!("/users/{}/applications/{}", account.ml_user_id, path_segment(client_id)),
                query: Vec::new(),
                body: Body::Empty,
                lane: Lane::Critical,
                user: user_id,
            };
            // The person wants the account gone from here; that MercadoLibre is away must not keep it.
            if let Err(error) = self.session.send(&request).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the grant at MercadoLibre was not ended"
                );
            }
        }
        self.store.unlink(user_id).await?;
        self.owners.forget(user_id).await;
        let owner = Owner { tenant: &account.tenant, user_id };
        self.publisher.account(owner, "account.disconnected", account.ml_user_id).await?;
        tracing::info!(%user_id, ml_user_id = account.ml_user_id, "account disconnected");
        Ok(())
    }
}

/// Application ids are digits; anything else in the configuration must not change the path.
fn path_segment(text: &str) -> String {
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || "-_".contains(*letter)).collect()
}
