//! The way of a request to an upstream and back: timeouts, retries, and what a failure is called.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::Response;
use hyper::body::Body as _;
use service_kit::ApiError;
use service_kit::extract::is_too_long;
use service_kit::trace::{self, Kind, Span};

use crate::headers;
use crate::kept::Kept;
use crate::metrics::GatewayMetrics;
use crate::upstream::{Failure, Sent, Upstream, exchange};

/// How often a request is sent again at most.
const RETRIES: u32 = 4;
/// Wait before the first retry; it doubles with each one (25, 50, 100, 200 ms).
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// One request's way to an upstream.
pub(crate) struct Forward<'a> {
    /// `HOST:PORT`.
    pub(crate) upstream: &'a str,
    /// Path on the upstream.
    pub(crate) path: String,
    /// Address of the client as we see it.
    pub(crate) peer: IpAddr,
    /// How long until the answer's head, and then between parts of its body.
    pub(crate) timeout: Duration,
    pub(crate) metrics: &'a GatewayMetrics,
    /// Connections to upstreams that are kept.
    pub(crate) kept: &'a Kept,
}

impl Forward<'_> {
    /// Sends the request and answers with what came back.
    pub(crate) async fn send(self, request: Request<Body>) -> Result<Response, ApiError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.uri(&parts.uri)?;
        parts.extensions.clear();
        headers::for_upstream(&mut parts.headers, self.peer, self.upstream);
        let (body, complete) = Sent::watch(body);
        let attempts = self.attempts(Request::from_parts(parts, body));
        let Ok(answered) = tokio::time::timeout(self.timeout, attempts).await else {
            return Err(if complete.load(Ordering::Acquire) {
                ApiError::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "upstream_timeout",
                    "The service did not answer in time; try again.",
                )
            } else {
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly.")
            });
        };
        let mut response = answered?;
        headers::remove_hop_by_hop(response.headers_mut());
        Ok(response)
    }

    /// The path of the upstream with the query of the client, in origin form.
    fn uri(&self, from: &Uri) -> Result<Uri, ApiError> {
        let text = match from.query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        };
        text.parse().map_err(|error: axum::http::uri::InvalidUri| {
            ApiError::bad_request("invalid_path", "The path cannot be forwarded.").with_source(error)
        })
    }

    /// The span of one attempt, which the service behind is told to be the cause of its own.
    fn span(&self, request: &mut Request<Body>, attempt: u32) -> Option<Span> {
        let mut span = trace::open("forward", Kind::Client)?;
        span.context().put(request.headers_mut());
        span.set("server.address", self.upstream.to_owned());
        if attempt > 0 {
            span.set("http.request.resend_count", attempt as usize);
        }
        Some(span)
    }

    /// What was never sent may be sent again whatever its method; what may have arrived, only when doing it twice is
    /// doing it once, and only while we still have the body: one without a body.
    async fn attempts(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let again = is_idempotent(request.method()) && request.body().size_hint().exact() == Some(0);
        let mut spare = again.then(|| copy(&request));
        let mut request = request;
        let mut wait = FIRST_WAIT;
        let upstream = Upstream { address: self.upstream, silence: self.timeout, kept: self.kept };
        for attempt in 0.. {
            let last = attempt >= RETRIES;
            // A kept connection may end just as we use it. Only what may be sent twice takes that chance, and only once.
            let reuse = again && attempt == 0;
            let mut span = self.span(&mut request, attempt);
            let answered = exchange(&upstream, request, reuse).await;
            note(span.as_mut(), &answered);
            let (reason, next) = match answered {
                Ok(response) => return Ok(response),
                Err(Failure::Connect(_, error)) if last => {
                    return Err(unreachable_upstream(self.upstream, &error));
                }
                Err(Failure::Connect(untouched, _)) => ("connect", untouched),
                Err(Failure::Unsent(_)) if last => {
                    return Err(broken_off("the connection closed before use"));
                }
                Err(Failure::Unsent(untouched)) => ("unsent", untouched),
                Err(Failure::Broken(error)) => match spare.take().filter(|_| !last) {
                    // Once: a request that breaks its service must not be carried to every replica.
                    Some(copied) => ("broken", copied),
                    None if is_too_long(&error) => return Err(too_long()),
                    None => return Err(broken_off(error)),
                },
            };
            self.metrics.retried(reason);
            request = next;
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(broken_off("no attempt was left"))
    }
}

/// What became of one attempt, for its span.
fn note(span: Option<&mut Span>, answered: &Result<Response, Failure>) {
    let Some(span) = span else { return };
    match answered {
        Ok(response) => span.set("http.response.status_code", response.status().as_u16()),
        Err(Failure::Connect(..)) => span.fail("connect"),
        Err(Failure::Unsent(_)) => span.fail("unsent"),
        Err(Failure::Broken(_)) => span.fail("broken"),
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// A request without a body, once more.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copied = Request::new(Body::empty());
    *copied.method_mut() = request.method().clone();
    *copied.uri_mut() = request.uri().clone();
    *copied.headers_mut() = request.headers().clone();
    copied
}

fn unreachable_upstream(address: &str, error: &std::io::Error) -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "upstream_unreachable",
        "The service cannot be reached at the moment; try again.",
    )
    .retry_after(Duration::from_secs(1))
    .with_source(format!("cannot connect to {address}: {error}"))
}

fn broken_off(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "upstream_broken",
        "The service broke off; whether it acted on the request is unknown.",
    )
    .with_source(source)
}

fn too_long() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is longer than allowed.")
}
