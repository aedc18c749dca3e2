//! Calls on behalf of a user: with its token, and once more with a fresh one when MercadoLibre does not accept it.

use std::sync::Arc;

use uuid::Uuid;

use super::MlError;
use super::client::{Answer, MlClient, Request};
use super::tokens::{Access, Tokens};
use crate::error::Error;

/// Client and tokens together; cheap to clone.
#[derive(Clone)]
pub struct Session {
    client: Arc<MlClient>,
    tokens: Arc<Tokens>,
}

impl Session {
    /// Of these two.
    pub fn new(client: Arc<MlClient>, tokens: Arc<Tokens>) -> Self {
        Self { client, tokens }
    }

    /// The client.
    pub fn client(&self) -> &Arc<MlClient> {
        &self.client
    }

    /// The tokens.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// A token of the user's account.
    ///
    /// # Errors
    /// As [`Tokens::access`].
    pub async fn access(&self, user_id: Uuid) -> Result<Access, Error> {
        self.tokens.access(user_id).await
    }

    /// Makes a call with the user's token.
    ///
    /// # Errors
    /// Why there is no token, or what became of the call.
    pub async fn send(&self, request: &Request) -> Result<Answer, Error> {
        let access = self.access(request.user).await?;
        match self.client.send(request, Some(&access.token)).await {
            Err(MlError::Unauthorized) => {
                let renewed = self.tokens.renew(access.account).await?;
                Ok(self.client.send(request, Some(&renewed.token)).await?)
            }
            result => Ok(result?),
        }
    }
}
