//! The answer to a request that fails: a status, a code for programs, a sentence for people, nothing internal.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::postgres::PostgresError;
use crate::sqlite::SqliteError;

/// A failed request. The cause, when there is one, goes to the log and never into the answer.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ApiError {
    /// An answer with this status, code (snake case) and sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), retry_after: None, source: None }
    }

    /// 400: the request cannot be read.
    pub fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A store's failure: 503 when it is `busy` and asking again may help, else 500.
    pub fn of_store(busy: bool, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        if busy {
            Self::unavailable("store_busy", "The store is busy; try again.", Duration::from_secs(1))
                .with_source(source)
        } else {
            Self::internal(source)
        }
    }

    /// 401: no valid credentials.
    pub fn unauthorized(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// 403: known, and not allowed.
    pub fn forbidden(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404: no such thing, or not yours.
    pub fn not_found(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 409: the request clashes with what is there.
    pub fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 422: readable, but its content is not acceptable.
    pub fn unprocessable(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// 429 with `Retry-After`.
    pub fn too_many(
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        retry_after: Duration,
    ) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, code, message).retry_after(retry_after)
    }

    /// 503 with `Retry-After`: a bounded queue is full or something we need is away.
    pub fn unavailable(
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
        retry_after: Duration,
    ) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(retry_after)
    }

    /// 500 for a cause that the client can do nothing about.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The request failed on our side; try again later.",
        )
        .with_source(source)
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds `Retry-After`, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Code of the answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.message)
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<SqliteError> for ApiError {
    fn from(error: SqliteError) -> Self {
        Self::of_store(error.is_busy(), error)
    }
}

impl From<PostgresError> for ApiError {
    fn from(error: PostgresError) -> Self {
        Self::of_store(error.is_busy(), error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (code, status) = (self.code, self.status.as_u16());
        let cause = || self.source.as_deref().map(|source| chain(source));
        // A 503 is a decision (a full queue, an open breaker, a store that is away and shown by /health), and it comes
        // in floods: no fault of the code, so no error in the log.
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::info!(code, status, cause = cause(), "request turned away");
        } else if self.status.is_server_error() {
            tracing::error!(code, status, cause = cause(), "request failed");
        } else {
            tracing::debug!(code, status, "request refused");
        }
        let body = json!({"error": self.code, "message": self.message}).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// An error and its causes in one line, for logs.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Once;

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Metadata};

    use super::*;

    thread_local! {
        static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
    }

    /// Notes the level of every event, for the thread it is told on.
    struct Levels;

    /// Watches the whole process, before anything is told: a place in the code that is first reached while nobody
    /// watches may be taken for one that nobody wants to hear of.
    fn watch() {
        static WATCHED: Once = Once::new();
        WATCHED.call_once(|| tracing::subscriber::set_global_default(Levels).unwrap());
    }

    impl tracing::Subscriber for Levels {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            LEVELS.with_borrow_mut(|levels| levels.push(*event.metadata().level()));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn only_faults_of_ours_are_errors_in_the_log() {
        watch();
        for (error, level) in [
            (ApiError::internal("broken"), Level::ERROR),
            (ApiError::new(StatusCode::BAD_GATEWAY, "ml_error", "No answer."), Level::ERROR),
            (ApiError::unavailable("overloaded", "Too many.", Duration::from_secs(1)), Level::INFO),
            (ApiError::bad_request("invalid", "No."), Level::DEBUG),
        ] {
            let code = error.code();
            drop(error.into_response());
            assert_eq!(LEVELS.take(), [level], "{code}");
        }
    }

    #[tokio::test]
    async fn the_answer_holds_code_and_sentence_and_no_cause() {
        watch();
        let error = ApiError::unavailable("queue_full", "Too many at once.", Duration::from_millis(1200))
            .with_source("password=hunter2");
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(&body[..], br#"{"error":"queue_full","message":"Too many at once."}"#);
    }
}
