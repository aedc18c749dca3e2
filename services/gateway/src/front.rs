//! What answers a request: the gateway's own few addresses, then the table, then 404.

use std::borrow::Cow;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use service_kit::app::scrape;
use service_kit::auth::SharedToken;
use service_kit::metrics::RouteLabel;
use service_kit::{ApiError, Health, Metrics};

use crate::forward::Forward;
use crate::headers::{is_ambiguous, wants_websocket};
use crate::health::{HEALTH_TIMEOUT, Overview};
use crate::kept::Kept;
use crate::maintenance;
use crate::metrics::GatewayMetrics;
use crate::reload::Routes;
use crate::table::{Lookup, Route, Service};

/// Public paths begin with this; maintenance closes them all to users.
const PUBLIC: &str = "/api/";
/// Holds the operator token where the request carries credentials of its own.
const OPERATOR_HEADER: &str = "x-operator-token";

/// The front; cheap to clone.
#[derive(Clone, Debug)]
pub struct Front {
    routes: Routes,
    operator: Option<SharedToken>,
    registry: Metrics,
    overview: Overview,
    metrics: GatewayMetrics,
    kept: Kept,
}

impl Front {
    pub(crate) fn new(
        routes: Routes,
        operator: Option<SharedToken>,
        registry: Metrics,
        health: Health,
        metrics: GatewayMetrics,
        kept: Kept,
    ) -> Self {
        let overview = Overview::new(health, routes.clone());
        Self { routes, operator, registry, overview, metrics, kept }
    }

    /// `/metrics` for operators, and the table for everything else.
    pub(crate) fn router(&self) -> Router {
        Router::new().route("/metrics", get(own_metrics)).fallback(answer).with_state(self.clone())
    }

    /// `/health`.
    pub(crate) fn health_handler(&self) -> MethodRouter {
        let overview = self.overview.clone();
        get(move || overview.clone().answer())
    }

    async fn through(&self, peer: SocketAddr, request: Request) -> Response {
        let table = self.routes.table();
        let path = request.uri().path().to_owned();
        if is_ambiguous(&path) || !path.starts_with('/') {
            let error =
                ApiError::bad_request("invalid_path", "The path holds segments that cannot be forwarded.");
            return error.into_response();
        }
        if let Some(service) = table.health_of(&path) {
            return labelled(self.service_health(service, peer, request).await, "/api/{service}/health");
        }
        if let Some(maintenance) = &table.maintenance
            && path.starts_with(PUBLIC)
            && !self.is_operator(request.headers())
        {
            return labelled(maintenance::answer(maintenance, request.headers()), "maintenance");
        }
        match table.find(request.method(), &path) {
            Lookup::Found(route) => {
                let response = self.forward(route, &path, peer, request).await;
                labelled(response, &route.path)
            }
            Lookup::MethodNotAllowed(methods) => method_not_allowed(&methods),
            Lookup::NotFound => not_found(),
        }
    }

    /// Says whether the operator asks: whoever mends a system has to see whether it works before users are let in again.
    fn is_operator(&self, headers: &HeaderMap) -> bool {
        self.operator.as_ref().is_some_and(|token| token.in_header(headers, OPERATOR_HEADER))
    }

    async fn forward(&self, route: &Route, path: &str, peer: SocketAddr, request: Request) -> Response {
        if wants_websocket(request.headers()) {
            return ApiError::new(
                StatusCode::NOT_IMPLEMENTED,
                "upgrade_not_supported",
                "WebSocket connections are not supported here.",
            )
            .into_response();
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return method_not_allowed(&[Method::GET, Method::POST, Method::PUT, Method::DELETE]);
        }
        let Some(target) = route.target(path) else { return not_found() };
        let way = Forward {
            upstream: &route.service.upstream,
            path: target,
            peer: peer.ip(),
            timeout: route.timeout,
            metrics: &self.metrics,
            kept: &self.kept,
        };
        way.send(request).await.unwrap_or_else(IntoResponse::into_response)
    }

    /// A service's own word on its health, for anybody; maintenance does not hide it.
    async fn service_health(&self, service: &Service, peer: SocketAddr, request: Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed(&[Method::GET]);
        }
        let (mut parts, _) = request.into_parts();
        parts.headers = only_what_health_needs(&parts.headers);
        let way = Forward {
            upstream: &service.upstream,
            path: service.health_path.clone(),
            peer: peer.ip(),
            timeout: HEALTH_TIMEOUT,
            metrics: &self.metrics,
            kept: &self.kept,
        };
        let question = Request::from_parts(parts, Body::empty());
        way.send(question).await.unwrap_or_else(IntoResponse::into_response)
    }
}

async fn answer(
    State(front): State<Front>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    front.through(peer, request).await
}

async fn own_metrics(State(front): State<Front>, headers: HeaderMap) -> Response {
    match &front.operator {
        Some(token) if token.is_bearer(&headers) => scrape(&front.registry),
        Some(_) => {
            let error =
                ApiError::unauthorized("unauthorized", "Send the operator token as Authorization: Bearer.");
            let mut response = error.into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        None => not_found(),
    }
}

/// A health question carries no credentials and no body, whoever asks.
fn only_what_health_needs(headers: &HeaderMap) -> HeaderMap {
    let kept = [header::ACCEPT, header::HOST, service_kit::app::REQUEST_ID];
    kept.into_iter().filter_map(|name| headers.get(&name).cloned().map(|value| (name, value))).collect()
}

fn labelled(mut response: Response, route: &str) -> Response {
    response.extensions_mut().insert(RouteLabel(Cow::Owned(route.to_owned())));
    response
}

fn not_found() -> Response {
    ApiError::not_found("not_found", "There is nothing at this address.").into_response()
}

fn method_not_allowed(methods: &[Method]) -> Response {
    let error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This address does not answer to that method.",
    );
    let mut response = error.into_response();
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, value);
    }
    response
}
