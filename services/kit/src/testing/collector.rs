//! A collector of traces on a free port: takes OTLP JSON as the protocol has it, and refuses what is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::{Failure, Running, eventually};
use crate::extract::Json;
use crate::{Base, Identity, Kit, ServeError};

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSpan {
    /// `service.name` of its resource.
    pub service: String,
    /// Name of the span.
    pub name: String,
    /// The trace, as 32 hexadecimal digits.
    pub trace: String,
    /// The span, as 16.
    pub id: String,
    /// The parent's, empty at the beginning of a trace.
    pub parent: String,
    /// 1 internal, 2 server, 3 client, 5 consumer.
    pub kind: u8,
    /// Attributes, numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each link.
    pub links: Vec<(String, String)>,
    /// Whether the work failed.
    pub failed: bool,
    /// `tracestate`.
    pub state: String,
}

/// A running collector.
pub struct Collector {
    running: Running<ServeError>,
    shared: Arc<Shared>,
}

struct Shared {
    spans: Mutex<Vec<SeenSpan>>,
    /// Everything that was ever posted, as text.
    bodies: Mutex<String>,
    status: AtomicU16,
}

impl Collector {
    /// Starts one.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self, Failure> {
        let shared = Arc::new(Shared {
            spans: Mutex::default(),
            bodies: Mutex::default(),
            status: AtomicU16::new(200),
        });
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        let identity = Identity::new("collector", "0.0.0", 4318);
        let running = Running::start(move |listener, shutdown| async move {
            let kit = Kit::new(identity, &Base::new(identity)).body_limit(16 << 20);
            kit.serve(routes, listener, shutdown).await
        });
        Ok(Self { running: running.await?, shared })
    }

    /// Its address as configuration.
    #[must_use]
    pub fn url(&self) -> String {
        self.running.url()
    }

    /// Answers with another status from now on and keeps nothing unless it is 200.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Release);
    }

    /// The spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<SeenSpan> {
        self.shared.spans.lock().clone()
    }

    /// Everything that was posted so far, as text.
    #[must_use]
    pub fn text(&self) -> String {
        self.shared.bodies.lock().clone()
    }

    /// Waits for a span of a service with this name.
    pub async fn span(&self, service: &str, name: &str) -> SeenSpan {
        eventually(&format!("the span {name} of {service}"), || async {
            self.spans().into_iter().find(|span| span.service == service && span.name == name)
        })
        .await
    }
}

async fn take(State(shared): State<Arc<Shared>>, Json(body): Json<serde_json::Value>) -> Response {
    shared.bodies.lock().push_str(&body.to_string());
    let status = shared.status.load(Ordering::Acquire);
    if status != 200 {
        return StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT).into_response();
    }
    match serde_json::from_value::<Request>(body).map_err(|error| error.to_string()).and_then(Request::read) {
        Ok(spans) => {
            shared.spans.lock().extend(spans);
            Json(json!({})).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    #[serde(rename = "scope")]
    _scope: serde_json::Map<String, serde_json::Value>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    #[serde(default)]
    trace_state: String,
    name: String,
    kind: u8,
    flags: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(default)]
    links: Vec<Link>,
    status: Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    #[serde(default)]
    code: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Link {
    trace_id: String,
    span_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: String,
    value: AnyValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

impl Request {
    fn read(self) -> Result<Vec<SeenSpan>, String> {
        let mut seen = Vec::new();
        for ResourceSpans { resource, scope_spans } in self.resource_spans {
            let resource = attributes(resource.attributes)?;
            let service = resource.get("service.name").ok_or("a resource without service.name")?;
            for span in scope_spans.into_iter().flat_map(|scope| scope.spans) {
                seen.push(span.read(service)?);
            }
        }
        Ok(seen)
    }
}

impl Span {
    fn read(self, service: &str) -> Result<SeenSpan, String> {
        id(&self.trace_id, 32)?;
        id(&self.span_id, 16)?;
        if !self.parent_span_id.is_empty() {
            id(&self.parent_span_id, 16)?;
        }
        let time = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is no time"));
        let (began, ended) = (time(&self.start_time_unix_nano)?, time(&self.end_time_unix_nano)?);
        if began == 0 || ended < began || self.flags & 1 == 0 || !(1..=5).contains(&self.kind) {
            return Err(format!("span {} has an impossible time, flag or kind", self.name));
        }
        let links = self.links.into_iter().map(|link| {
            id(&link.trace_id, 32)?;
            id(&link.span_id, 16)?;
            Ok::<_, String>((link.trace_id, link.span_id))
        });
        Ok(SeenSpan {
            service: service.to_owned(),
            name: self.name,
            trace: self.trace_id,
            id: self.span_id,
            parent: self.parent_span_id,
            kind: self.kind,
            attributes: attributes(self.attributes)?,
            links: links.collect::<Result<_, _>>()?,
            failed: self.status.code == 2,
            state: self.trace_state,
        })
    }
}

fn id(text: &str, length: usize) -> Result<(), String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if text.len() == length && digits && text.bytes().any(|byte| byte != b'0') {
        Ok(())
    } else {
        Err(format!("{text:?} is no id of {length} digits"))
    }
}

fn attributes(list: Vec<Attribute>) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for Attribute { key, value } in list {
        let text = match value {
            AnyValue::StringValue(text) => text,
            AnyValue::IntValue(text) if text.parse::<i64>().is_ok() => text,
            AnyValue::IntValue(text) => return Err(format!("{text:?} is no number")),
        };
        if map.insert(key.clone(), text).is_some() {
            return Err(format!("the attribute {key} is there twice"));
        }
    }
    Ok(map)
}
