//! A service's routes with everything around them: request ids, traces, measured answers, body limits, health,
//! metrics.

use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper::body::Body as _;
use tracing::Instrument;
use uuid::Uuid;

use crate::Identity;
use crate::config::Base;
use crate::error::ApiError;
use crate::extract::too_long;
use crate::health::Health;
use crate::listener::Listener;
use crate::metrics::{CONTENT_TYPE, HttpMetrics, Metrics, RouteLabel, method_label};
use crate::serve::{Limits, ServeError, serve};
use crate::shutdown::Shutdown;
use crate::trace::{self, Tracer};

/// Header that carries the id of a request through the system.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Header that names the release which answered.
pub const REVISION: HeaderName = HeaderName::from_static("x-revision");

/// The longest body of a request unless a service says otherwise.
const BODY_LIMIT: usize = 1 << 20;
/// How long the end waits for a collector to take the last spans.
const TRACE_FLUSH: std::time::Duration = std::time::Duration::from_secs(2);
/// Asked every few seconds by whoever watches: not recorded as traces of their own.
const PROBES: [&str; 5] = ["/health", "/livez", "/readyz", "/startupz", "/metrics"];

/// Id of the request at hand, as an extension of the request: forward it on calls made for this request.
#[derive(Clone, Debug)]
pub struct RequestId(pub HeaderValue);

impl RequestId {
    /// The id as text; only ids of visible ASCII are ever accepted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// The parts of a service that are the same everywhere.
#[derive(Clone, Debug)]
pub struct Kit {
    /// Who the service is.
    pub identity: Identity,
    /// Checks of the service.
    pub health: Health,
    /// Registry of the service.
    pub metrics: Metrics,
    /// Opens the spans of the service; workers take a clone.
    pub tracer: Tracer,
    revision: Option<HeaderValue>,
    limits: Limits,
    body_limit: usize,
    http: HttpMetrics,
    health_handler: Option<MethodRouter>,
    openapi: Option<&'static str>,
}

impl Kit {
    /// The parts for one service.
    #[must_use]
    pub fn new(identity: Identity, base: &Base) -> Self {
        let metrics = Metrics::with_process_usage();
        let http = HttpMetrics::new(identity.name, &metrics);
        http.announce("GET", "/health");
        Self {
            identity,
            health: Health::new(identity, base),
            tracer: Tracer::new(identity, &base.traces, &metrics),
            metrics,
            revision: base.revision.as_deref().and_then(|text| HeaderValue::from_str(text).ok()),
            limits: Limits { drain: base.drain, ..Limits::default() },
            body_limit: BODY_LIMIT,
            http,
            health_handler: None,
            openapi: None,
        }
    }

    /// Another limit for request bodies, in bytes.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Other limits of the serve loop; the drain time stays the configured one.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Limits { drain: self.limits.drain, ..limits };
        self
    }

    /// Serves the OpenAPI document of the service, the committed text, at `/openapi.json`. The gateway has no such route.
    #[must_use]
    pub fn openapi(mut self, document: &'static str) -> Self {
        self.openapi = Some(document);
        self
    }

    /// Another answer to `/health` than the service's own state.
    #[must_use]
    pub fn health_handler(mut self, handler: MethodRouter) -> Self {
        self.health_handler = Some(handler);
        self
    }

    /// Creates the latency series of these routes (method, template) at 0.
    #[must_use]
    pub fn announce(self, routes: &[(&str, &str)]) -> Self {
        for (method, route) in routes {
            self.announce_one(method, route);
        }
        self
    }

    /// Creates the latency series of one route at 0; for routes that are only known while running.
    pub fn announce_one(&self, method: &str, route: &str) {
        self.http.announce(method, route);
    }

    /// The routes with everything around them; tests call it without a socket.
    pub fn router(&self, routes: Router) -> Router {
        routes
            .merge(self.health_routes())
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(self.clone(), around))
    }

    /// Serves the routes, and the metrics on their own socket, until the drain is over.
    ///
    /// # Errors
    /// [`ServeError`] when a listening socket breaks.
    pub async fn serve(
        &self,
        routes: Router,
        listener: Listener,
        shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        let Listener { main, metrics: metrics_socket, shared } = listener;
        let address = main.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(address, service = self.identity.name, version = self.identity.version, "listening");
        self.tracer.start();
        // Metrics are answered until the last request is: a scrape during the drain is worth most.
        let (stop_metrics, metrics_shutdown) = Shutdown::channel();
        let metrics_task = metrics_socket.map(|socket| {
            let limits = Limits { connections: 64, drain: std::time::Duration::ZERO, ..self.limits };
            tokio::spawn(serve(self.metrics_router(), socket, false, limits, metrics_shutdown))
        });
        let health = self.health.clone();
        let watched = shutdown.clone();
        let mark = async move {
            watched.draining().await;
            health.drain();
            tracing::info!("draining");
            std::future::pending::<()>().await;
        };
        let served = tokio::select! {
            biased;
            () = mark => Ok(()),
            served = serve(self.router(routes), main, shared, self.limits, shutdown) => served,
        };
        self.tracer.flush(TRACE_FLUSH).await;
        stop_metrics.drain();
        if let Some(Err(error)) = match metrics_task {
            Some(task) => Some(task.await),
            None => None,
        } {
            tracing::warn!(%error, "the metrics listener ended early");
        }
        tracing::info!("drained");
        served
    }

    fn health_routes(&self) -> Router {
        let health = self.health_handler.clone().unwrap_or_else(|| self.health.handler());
        let routes = self.health.routes().route("/health", health);
        match self.openapi {
            Some(document) => {
                let typed = [(header::CONTENT_TYPE, "application/json")];
                routes.route("/openapi.json", get(move || async move { (typed, document) }))
            }
            None => routes,
        }
    }

    /// Health is answered here too: a passed socket is shared, so that its port would answer for any replica.
    fn metrics_router(&self) -> Router {
        let metrics = self.metrics.clone();
        self.health_routes().route("/metrics", get(move || async move { scrape(&metrics) }))
    }
}

/// The scrape answer.
pub fn scrape(metrics: &Metrics) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()).into_response()
}

/// Around every request: its id, its span in the trace it came with or a new one, its body limit, its measure, and the headers that name them.
async fn around(State(kit): State<Kit>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    request.extensions_mut().insert(RequestId(id.clone()));
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut traced = match trace::Context::of_headers(request.headers()) {
        None if route.as_deref().is_some_and(|route| PROBES.contains(&route)) => {
            kit.tracer.open_unrecorded("probe", trace::Kind::Server)
        }
        parent => kit.tracer.open("request", trace::Kind::Server, parent.as_ref()),
    };
    let context = traced.context();
    // What the client sent must not be believed by whoever reads the headers later, a good one neither: it is older.
    context.put(request.headers_mut());
    // At the level of errors, so that the ids are in the log whatever LOG_LEVEL says.
    let span = tracing::error_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = %context.trace,
        span_id = %context.span
    );
    let mut response = match limited(request, kit.body_limit) {
        Ok(request) => traced.scope(next.run(request).instrument(span.clone())).await,
        Err(refusal) => span.in_scope(|| refusal.into_response()),
    };
    let label = response.extensions_mut().remove::<RouteLabel>();
    let route = label.as_ref().map(|label| &*label.0).or(route.as_deref()).unwrap_or("unmatched");
    let took = began.elapsed();
    traced.rename(|| format!("{} {route}", method_label(&method)));
    traced.set("http.request.method", method_label(&method));
    traced.set("http.route", route.to_owned());
    traced.set("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        traced.fail("server_error");
    }
    kit.http.observe(&method, route, response.status(), took);
    span.in_scope(|| {
        let (status, ms) = (response.status().as_u16(), took.as_secs_f64() * 1000.0);
        // A 503 is told once, by the error that made it.
        if status >= 500 && status != 503 {
            tracing::warn!(%method, route, status, ms, "answered");
        } else {
            tracing::debug!(%method, route, status, ms, "answered");
        }
    });
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(revision) = kit.revision {
        response.headers_mut().entry(REVISION).or_insert(revision);
    }
    in_our_form(response)
}

/// The client's id when it is one that a log line and a header can bear, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=128).contains(&bytes.len()) && bytes.iter().all(allowed)
    };
    headers.get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        let made = Uuid::new_v4().to_string();
        HeaderValue::from_str(&made).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// A declared length is refused before a byte of it is read; an undeclared one is cut off at the limit.
fn limited(request: Request, limit: usize) -> Result<Request, ApiError> {
    let declared = request.body().size_hint().lower();
    if declared > limit as u64 {
        return Err(too_long());
    }
    Ok(request.map(|body| Body::new(http_body_util::Limited::new(body, limit))))
}

/// The framework answers unknown paths and methods with an empty body; programs expect ours.
fn in_our_form(response: Response) -> Response {
    let bare = response.headers().get(header::CONTENT_TYPE).is_none()
        && response.body().size_hint().exact() == Some(0);
    let error = match response.status().as_u16() {
        404 if bare => ApiError::not_found("not_found", "There is nothing at this address."),
        405 if bare => ApiError::new(
            response.status(),
            "method_not_allowed",
            "This address does not answer to that method.",
        ),
        _ => return response,
    };
    let (parts, _) = response.into_parts();
    let mut answer = error.into_response();
    for (name, value) in &parts.headers {
        if name != header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
