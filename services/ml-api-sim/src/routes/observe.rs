//! What surrounds every marketplace request: the ledger, the faults, the per-minute limit.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::Value;

use super::MaybeCaller;
use crate::error::MlError;
use crate::fault::{Fault, LimitBody};
use crate::ledger::Entry;
use crate::simulator::Simulator;

/// Answers larger than this are not cut by the reset fault.
const RESET_BODY_LIMIT: usize = 4 * 1024 * 1024;

/// What a handler tells the ledger beyond what the request shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Note {
    pub(super) client_id: Option<String>,
    pub(super) seller: Option<u64>,
    pub(super) detail: Value,
}

/// The fault of this request, for handlers that carry it out themselves.
#[derive(Clone, Debug)]
pub(super) struct ActiveFault(pub(super) Fault);

/// The name under which the ledger and the fault rules know an endpoint.
fn endpoint(method: &str, route: &str) -> String {
    let name = match route {
        "/authorization" => "oauth.authorization",
        "/oauth/token" => "oauth.token",
        "/applications/{id}" => "applications.get",
        "/applications/{id}/grants" => "applications.grants",
        "/users/{user_id}/applications/{id}" => "applications.disconnect",
        "/users/me" => "users.me",
        "/users/{user_id}/items/search" => "items.search",
        "/items/bulk" => "items.bulk",
        "/items/validate" => "items.validate",
        "/items" if method == "POST" => "items.create",
        "/items" => "items.multiget",
        "/items/{id}" if method == "PUT" => "items.put",
        "/items/{id}" => "items.get",
        "/user-products/{id}/stock" => "stock.get",
        "/user-products/{id}/stock/type/seller_warehouse" => "stock.put",
        "/missed_feeds" => "feeds.missed",
        _ => "sites",
    };
    name.to_owned()
}

/// Writes an entry when it is dropped, so that a request whose client went away is in the ledger too.
struct Recorder {
    simulator: Arc<Simulator>,
    entry: Option<Entry>,
}

impl Recorder {
    fn note(&mut self, status: u16, note: Option<&Note>) {
        let Some(entry) = &mut self.entry else { return };
        entry.status = status;
        if let Some(note) = note {
            entry.client_id = note.client_id.clone().or(entry.client_id.take());
            entry.seller = note.seller.or(entry.seller);
            entry.detail = note.detail.clone();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.simulator.ledger.push(entry);
        }
    }
}

/// The middleware; see the module.
pub(super) async fn observe(
    State(simulator): State<Arc<Simulator>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller =
        MaybeCaller::from_request_parts(&mut parts, &simulator).await.ok().and_then(|caller| caller.0);
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let endpoint = endpoint(parts.method.as_str(), route);
    let seller = caller.as_ref().map(|token| token.seller);
    let fault = simulator.faults.take(&endpoint, seller);
    let now_ms = simulator.clock.now_ms();
    let entry = Entry {
        seq: 0,
        at_ms: now_ms,
        endpoint,
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        client_id: caller.map(|token| token.client_id),
        seller,
        status: 0,
        fault: fault.as_ref().map(|fault| fault.name().to_owned()),
        detail: Value::Null,
    };
    let mut recorder = Recorder { simulator: Arc::clone(&simulator), entry: Some(entry) };

    if let Some(response) = refusal(fault.as_ref()).await {
        recorder.note(response.status().as_u16(), None);
        return response;
    }
    if seller.is_some_and(|seller| !simulator.world.lock().within_rate(seller, now_ms)) {
        // The one 429 that was observed had no body.
        recorder.note(429, None);
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    if let Some(fault) = fault.clone() {
        parts.extensions.insert(ActiveFault(fault));
    }
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let note = response.extensions_mut().remove::<Note>();
    recorder.note(response.status().as_u16(), note.as_ref());
    if fault == Some(Fault::Reset) {
        recorder.note(0, note.as_ref());
        return cut(response).await;
    }
    response
}

/// Faults that keep the request from being carried out, and the wait of the slow one.
async fn refusal(fault: Option<&Fault>) -> Option<Response> {
    match fault? {
        Fault::RateLimited { body, retry_after } => {
            let mut headers = HeaderMap::new();
            if let Some(seconds) = retry_after {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            let limited =
                MlError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests");
            Some(match body {
                LimitBody::Json => (headers, limited).into_response(),
                LimitBody::Text => {
                    (StatusCode::TOO_MANY_REQUESTS, headers, "local_rate_limited").into_response()
                }
                LimitBody::Empty => (StatusCode::TOO_MANY_REQUESTS, headers).into_response(),
            })
        }
        Fault::ServerError { status } => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Some(MlError::new(status, "internal_error", "Something went wrong").into_response())
        }
        Fault::Slow { delay_ms } => {
            tokio::time::sleep(Duration::from_millis(*delay_ms)).await;
            None
        }
        Fault::Hang => {
            std::future::pending::<Infallible>().await;
            None
        }
        Fault::Conflict => Some(MlError::conflict("Optimistic locking failed, retry").into_response()),
        Fault::Reset | Fault::ContentMissing | Fault::DeadScroll => None,
    }
}

/// The same answer, broken off in the middle of its body.
async fn cut(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let whole = to_bytes(body, RESET_BODY_LIMIT).await.unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = futures::stream::iter([Ok::<Bytes, std::io::Error>(whole.slice(..whole.len() / 2))]);
    let broken = futures::stream::once(async { Err(std::io::ErrorKind::ConnectionReset.into()) });
    Response::from_parts(parts, Body::from_stream(half.chain(broken)))
}
