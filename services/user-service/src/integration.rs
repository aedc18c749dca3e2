//! integration-service as seen from here: it alone exchanges codes and keeps MercadoLibre tokens.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use service_kit::auth::SharedToken;
use service_kit::client::{Answer, CallError, Client, HttpUrl};
use uuid::Uuid;

/// A code exchange goes on to MercadoLibre and back.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Waits between attempts to connect. A refused connection sent nothing, so any call may be repeated.
const CONNECT_WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// integration-service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum IntegrationError {
    /// The MercadoLibre account is connected to somebody else.
    #[error("integration-service says that the MercadoLibre account is connected to another user")]
    AccountTaken,
    /// The code was not accepted: used, late, or of another application.
    #[error("integration-service answers {status} to the code exchange")]
    CodeRefused {
        /// A 4xx status.
        status: StatusCode,
    },
    /// There was no answer.
    #[error("cannot ask integration-service to {operation}")]
    Unreachable {
        /// What was attempted.
        operation: &'static str,
        /// Why not.
        source: CallError,
    },
    /// There was an answer that means nothing good.
    #[error("integration-service answers {status} when asked to {operation}")]
    Failed {
        /// What was attempted.
        operation: &'static str,
        /// What came back.
        status: StatusCode,
    },
    /// The answer is not the agreed one.
    #[error("cannot read the answer of integration-service to the code exchange")]
    Unreadable(#[source] serde_json::Error),
}

/// A consent to be turned into a connected account.
#[derive(Debug, Serialize)]
pub struct CodeExchange<'a> {
    /// Who consented.
    pub user_id: Uuid,
    /// Their tenant.
    pub tenant: &'a str,
    /// The code that MercadoLibre sent along with the browser.
    pub code: &'a str,
    /// The PKCE verifier.
    pub code_verifier: &'a str,
    /// The address the code was sent to.
    pub redirect_uri: &'a str,
}

#[derive(Deserialize)]
struct Connected {
    ml_user_id: MlUserId,
}

/// MercadoLibre's ids are numbers; a service that keeps them as text is understood too.
#[derive(Deserialize)]
#[serde(untagged)]
enum MlUserId {
    Number(i64),
    Text(String),
}

/// Calls integration-service's internal routes.
#[derive(Debug, Clone)]
pub struct IntegrationService {
    client: Client,
    token: SharedToken,
}

impl IntegrationService {
    /// Makes a client of the service at `url`.
    #[must_use]
    pub fn new(url: HttpUrl, token: SharedToken) -> Self {
        Self { client: Client::new(url, TIMEOUT), token }
    }

    /// Exchanges a code; returns the id of the MercadoLibre account that is now connected.
    ///
    /// # Errors
    /// [`IntegrationError`].
    pub async fn connect(
        &self,
        exchange: &CodeExchange<'_>,
        request_id: &str,
    ) -> Result<i64, IntegrationError> {
        const OPERATION: &str = "exchange a code";
        let body = serde_json::to_vec(exchange).map_err(IntegrationError::Unreadable)?;
        let answer = self
            .call(OPERATION, Method::POST, "/internal/ml/accounts", body.into(), Some(request_id))
            .await?;
        match answer.status {
            status if status.is_success() => {
                let connected: Connected = answer.json().map_err(IntegrationError::Unreadable)?;
                match connected.ml_user_id {
                    MlUserId::Number(id) => Ok(id),
                    MlUserId::Text(text) => text.parse().map_err(|error| {
                        IntegrationError::Unreadable(serde::de::Error::custom(format!("ml_user_id: {error}")))
                    }),
                }
            }
            StatusCode::CONFLICT => Err(IntegrationError::AccountTaken),
            // Ours to fix, or to try again later: not the user's fault.
            status @ (StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS) => {
                Err(IntegrationError::Failed { operation: OPERATION, status })
            }
            status if status.is_client_error() => Err(IntegrationError::CodeRefused { status }),
            status => Err(IntegrationError::Failed { operation: OPERATION, status }),
        }
    }

    /// Drops a user's MercadoLibre account and tokens. None connected is fine.
    ///
    /// # Errors
    /// [`IntegrationError`].
    pub async fn disconnect(&self, user_id: Uuid) -> Result<(), IntegrationError> {
        const OPERATION: &str = "disconnect a MercadoLibre account";
        let path = format!("/internal/ml/accounts/{user_id}");
        let answer = self.call(OPERATION, Method::DELETE, &path, Bytes::new(), None).await?;
        match answer.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            status => Err(IntegrationError::Failed { operation: OPERATION, status }),
        }
    }

    async fn call(
        &self,
        operation: &'static str,
        method: Method,
        path: &str,
        body: Bytes,
        request_id: Option<&str>,
    ) -> Result<Answer, IntegrationError> {
        let mut headers = vec![self.token.internal_header()];
        if !body.is_empty() {
            headers.push(("content-type", "application/json"));
        }
        headers.extend(request_id.map(|id| ("x-request-id", id)));
        let mut waits = CONNECT_WAITS.into_iter();
        loop {
            match self.client.call(method.clone(), path, &headers, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(source @ CallError::Connect { .. }) => match waits.next() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(IntegrationError::Unreachable { operation, source }),
                },
                Err(source) => return Err(IntegrationError::Unreachable { operation, source }),
            }
        }
    }
}
