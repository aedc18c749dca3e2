//! What can go wrong for a caller, and the answer each gets. Answers never tell whether an account exists, except to
//! somebody who tries to register its e-mail.

use std::time::Duration;

use axum::http::StatusCode;
use service_kit::ApiError;
use service_kit::postgres::PostgresError;
use service_kit::sqlite::SqliteError;

use crate::account::AccountError;
use crate::consent::SealError;
use crate::integration::IntegrationError;
use crate::password::HashError;
use crate::random::NoEntropy;
use crate::store::StoreError;
use crate::token::{SignError, TokenRefused};

/// Why a request of a user is not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A field is not acceptable.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The tenant belongs to the operator.
    #[error("cannot register in a reserved tenant without the operator token")]
    ReservedTenant,
    /// Wrong e-mail or password.
    #[error("cannot sign in: e-mail or password is wrong")]
    BadCredentials,
    /// Too many failures before.
    #[error("cannot sign in for another {} s after repeated failures", wait.as_secs())]
    Throttled {
        /// How long to wait.
        wait: Duration,
    },
    /// The access token is not acceptable, or its user is gone.
    #[error(transparent)]
    Token(#[from] TokenRefused),
    /// The refresh token is unknown, expired, used or revoked.
    #[error("cannot refresh: the token is not valid any more")]
    RefreshRefused,
    /// The state of a callback is unknown, used, late, or of an ended session.
    #[error("cannot connect MercadoLibre: the state is not valid any more")]
    StateRefused,
    /// The callback came from another browser or sign-in than the one that began the connection.
    #[error("cannot connect MercadoLibre: the callback is not from whoever began it")]
    OtherBrowser,
    /// The user declined at MercadoLibre.
    #[error("cannot connect MercadoLibre: consent was declined")]
    ConsentDeclined,
    /// integration-service refused or failed.
    #[error("cannot change the MercadoLibre connection")]
    Integration(#[from] IntegrationError),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A token could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    /// The PKCE verifier cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// When to come back after a full queue: it holds about half a second of work.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

/// When to come back after another service failed.
const SERVICE_RETRY: Duration = Duration::from_secs(5);

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Account(field) => Self::unprocessable(field_code(field), field.to_string()),
            UserError::ReservedTenant => Self::forbidden(
                "reserved_tenant",
                "This tenant is reserved; send the operator token in x-operator-token or name another tenant.",
            ),
            UserError::BadCredentials => {
                Self::unauthorized("invalid_credentials", "The e-mail or the password is wrong.")
            }
            UserError::Throttled { wait } => Self::too_many(
                "too_many_attempts",
                "Too many attempts failed; wait as long as Retry-After says and try again.",
                wait,
            ),
            UserError::Token(_) => Self::unauthorized(
                "invalid_token",
                "The access token is missing, invalid or expired; sign in or refresh it.",
            ),
            UserError::RefreshRefused => Self::unauthorized(
                "invalid_refresh_token",
                "The refresh token is not valid any more; sign in again.",
            ),
            UserError::StateRefused => Self::bad_request(
                "invalid_state",
                "This connection attempt is unknown, expired or was used already; start it again.",
            ),
            UserError::OtherBrowser => Self::forbidden(
                "other_browser",
                "This connection was started in another browser or sign-in; start it again in this one.",
            ),
            UserError::ConsentDeclined => Self::bad_request(
                "consent_declined",
                "MercadoLibre reports that consent was not given; start again to connect the account.",
            ),
            UserError::Integration(error) => integration_answer(error),
            UserError::Store(StoreError::EmailTaken) => Self::conflict(
                "email_taken",
                "An account with this e-mail exists; sign in or register another e-mail.",
            ),
            UserError::Store(StoreError::Database { operation, source }) => {
                let busy = source.downcast_ref::<SqliteError>().is_some_and(SqliteError::is_busy)
                    || source.downcast_ref::<PostgresError>().is_some_and(PostgresError::is_busy);
                Self::of_store(busy, StoreError::Database { operation, source })
            }
            UserError::Hash(error @ HashError::Overloaded { .. }) => Self::unavailable(
                "overloaded",
                "Too many people sign in at once; try again in a moment.",
                QUEUE_RETRY,
            )
            .with_source(error),
            error
            @ (UserError::Hash(_) | UserError::Sign(_) | UserError::Entropy(_) | UserError::Seal(_)) => {
                Self::internal(error)
            }
        }
    }
}

fn field_code(error: AccountError) -> &'static str {
    match error {
        AccountError::Email => "invalid_email",
        AccountError::Password => "invalid_password",
        AccountError::Tenant => "invalid_tenant",
    }
}

fn integration_answer(error: IntegrationError) -> ApiError {
    match error {
        IntegrationError::AccountTaken => ApiError::conflict(
            "ml_account_taken",
            "This MercadoLibre account is connected to another user; disconnect it there first.",
        ),
        IntegrationError::CodeRefused { .. } => ApiError::bad_request(
            "code_refused",
            "MercadoLibre did not accept the code; start the connection again.",
        )
        .with_source(error),
        IntegrationError::Unreachable { .. } => ApiError::unavailable(
            "integration_unavailable",
            "MercadoLibre connections cannot be changed at the moment; try again later.",
            SERVICE_RETRY,
        )
        .with_source(error),
        IntegrationError::Failed { .. } | IntegrationError::Unreadable(_) => ApiError::new(
            StatusCode::BAD_GATEWAY,
            "integration_failed",
            "The MercadoLibre connection could not be changed; try again later.",
        )
        .with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse as _;

    use super::*;
    use crate::token::TokenRefused;

    #[test]
    fn every_refusal_has_its_status_and_code_and_says_when_to_come_back() {
        let throttled = UserError::Throttled { wait: Duration::from_millis(1_500) };
        let database = |source| StoreError::Database { operation: "read a user", source: Box::new(source) };
        let away = database(PostgresError::Exhausted { store: "postgresql", waited: Duration::from_secs(2) });
        let corrupt = database(PostgresError::Corrupt { what: "a time", source: "too late".into() });
        let failed = |status| IntegrationError::Failed { operation: "exchange a code", status };
        for (error, status, code, retry_after) in [
            (UserError::Account(AccountError::Email), 422, "invalid_email", None),
            (UserError::Account(AccountError::Password), 422, "invalid_password", None),
            (UserError::Account(AccountError::Tenant), 422, "invalid_tenant", None),
            (UserError::ReservedTenant, 403, "reserved_tenant", None),
            (UserError::BadCredentials, 401, "invalid_credentials", None),
            (throttled, 429, "too_many_attempts", Some("2")),
            (UserError::Token(TokenRefused), 401, "invalid_token", None),
            (UserError::RefreshRefused, 401, "invalid_refresh_token", None),
            (UserError::StateRefused, 400, "invalid_state", None),
            (UserError::OtherBrowser, 403, "other_browser", None),
            (UserError::ConsentDeclined, 400, "consent_declined", None),
            (UserError::Integration(IntegrationError::AccountTaken), 409, "ml_account_taken", None),
            (UserError::Integration(failed(StatusCode::BAD_GATEWAY)), 502, "integration_failed", None),
            (UserError::Store(StoreError::EmailTaken), 409, "email_taken", None),
            (UserError::Store(away), 503, "store_busy", Some("1")),
            (UserError::Store(corrupt), 500, "internal", None),
            (UserError::Hash(HashError::Overloaded { waiting: 9 }), 503, "overloaded", Some("1")),
            (UserError::Hash(HashError::WorkerLost), 500, "internal", None),
        ] {
            let answer = ApiError::from(error);
            assert_eq!((answer.status().as_u16(), answer.code()), (status, code));
            let response = answer.into_response();
            let seen = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(seen, retry_after, "{code}");
        }
    }
}
