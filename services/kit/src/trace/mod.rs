//! Traces: which request led to which call, over HTTP, the event log and back, in the W3C form.
//!
//! A span is one piece of work. [`crate::Kit`] opens one around every request, [`crate::client`] one around every call
//! to another service, workers open theirs with [`work`]. The open span is known to the task that runs in its scope, so
//! no function passes it on. Ids are in every log line of a request whether or not anything is exported; spans leave
//! the process only when `OTEL_EXPORTER_OTLP_ENDPOINT` (or `JAEGER_ENDPOINT`) says where to, by `export`, as the OTLP
//! JSON that `otlp` writes.
//!
//! Attributes are a method, a route template, a status, a name of the system: never a path with its values, a query, a
//! header or a body, because those hold tokens and people.

mod context;
mod export;
mod otlp;
#[cfg(test)]
mod tests;

pub use context::{Context, ContextError, SpanId, TRACEPARENT, TRACESTATE, TraceId};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;
use tracing::Instrument;

use crate::Identity;
use crate::client::HttpUrl;
use crate::metrics::Metrics;
use export::Exporter;

/// Name of the header of an event, and of the field of a stored one that becomes it.
const FIELD: &str = "traceparent";
/// Most links of one span.
const LINKS: usize = 128;

/// Whether spans are exported, where to and how many.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, or what `JAEGER_ENDPOINT` maps to: a collector of OTLP over HTTP.
    pub endpoint: Option<HttpUrl>,
    /// `OTEL_TRACES_SAMPLER_ARG`: the share of the traces begun here that is recorded, 0 to 1. A trace that began
    /// elsewhere was decided there.
    pub share: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { endpoint: None, share: 1.0 }
    }
}

/// What a span is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work within a service.
    Internal = 1,
    /// The answer to a request.
    Server = 2,
    /// A call to somebody else.
    Client = 3,
    /// Work on events that others wrote.
    Consumer = 5,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word from a closed list, or a name that configuration gives.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// What is exported of a span.
#[derive(Clone, Debug)]
struct Record {
    name: Cow<'static, str>,
    kind: Kind,
    context: Context,
    parent: Option<SpanId>,
    links: Vec<Context>,
    /// Nanoseconds since 1970.
    began: u64,
    ended: u64,
    attributes: Vec<(&'static str, Value)>,
    failed: bool,
}

/// Opens the spans of one service and exports them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    share: f64,
    exporter: Option<Exporter>,
}

impl Tracer {
    /// A tracer for one service, with its counters in `metrics`.
    #[must_use]
    pub fn new(identity: Identity, config: &TraceConfig, metrics: &Metrics) -> Self {
        let endpoint = config.endpoint.clone();
        let exporter = endpoint.map(|url| Exporter::new(identity, url, metrics));
        Self(Arc::new(Inner { share: config.share, exporter }))
    }

    /// Opens a span: in the trace of `parent`, or in a new one.
    #[must_use]
    pub fn open(&self, name: impl Into<Cow<'static, str>>, kind: Kind, parent: Option<&Context>) -> Span {
        let context = match parent {
            Some(parent) => parent.child(),
            // Nobody else would record the rest of a trace whose beginning went nowhere.
            None => Context::root(|trace| self.0.exporter.is_some() && trace.share() < self.0.share),
        };
        Span::new(self.clone(), name.into(), kind, context, parent.map(|parent| parent.span))
    }

    /// Opens a span in a trace of its own that is not recorded: probes would bury everything else.
    #[must_use]
    pub fn open_unrecorded(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
        Span::new(self.clone(), name.into(), kind, Context::root(|_| false), None)
    }

    /// Runs `future` with this tracer at hand and no span open: what a worker does between two pieces of work.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        HERE.scope(Here { tracer: self.clone(), context: None }, future).await
    }

    /// Starts exporting what is recorded; a second call changes nothing.
    pub(crate) fn start(&self) {
        if let Some(exporter) = &self.0.exporter {
            exporter.start();
        }
    }

    /// Exports what is recorded so far without delay, for at most `limit`; later spans follow at once, too.
    pub(crate) async fn flush(&self, limit: Duration) {
        if let Some(exporter) = &self.0.exporter
            && tokio::time::timeout(limit, exporter.flush()).await.is_err()
        {
            tracing::info!("the last spans were not taken in time");
        }
    }
}

/// Exports what workers recorded after the last request was answered, for at most `limit`.
pub(crate) async fn flush_all(limit: Duration) {
    if tokio::time::timeout(limit, export::flush_all()).await.is_err() {
        tracing::info!("the last spans of the workers were not taken in time");
    }
}

/// What the running task knows.
#[derive(Clone)]
struct Here {
    tracer: Tracer,
    context: Option<Context>,
}

tokio::task_local! {
    static HERE: Here;
}

/// The span that is open around the running task.
#[must_use]
pub fn current() -> Option<Context> {
    HERE.try_with(|here| here.context.clone()).ok().flatten()
}

/// Opens a span inside the present one, or at the beginning of a trace in the scope of a [`Tracer`]; `None` elsewhere.
#[must_use]
pub fn open(name: impl Into<Cow<'static, str>>, kind: Kind) -> Option<Span> {
    HERE.try_with(|here| here.tracer.open(name, kind, here.context.as_ref())).ok()
}

/// Opens a span in the trace of `parent`, which came some other way than by a request.
#[must_use]
pub fn open_in(name: impl Into<Cow<'static, str>>, kind: Kind, parent: Option<&Context>) -> Option<Span> {
    HERE.try_with(|here| here.tracer.open(name, kind, parent)).ok()
}

/// Runs `future` as a span of its own with its ids in the log lines. Outside of every scope it is just run.
pub async fn work<F: Future>(span: Option<Span>, future: F) -> F::Output {
    match span {
        Some(span) => {
            let context = span.context();
            // At the level of errors, so that the ids are in the log whatever LOG_LEVEL says.
            let told = tracing::error_span!("work", trace_id = %context.trace, span_id = %context.span);
            span.scope(future.instrument(told)).await
        }
        None => future.await,
    }
}

/// An open span; it ends when it is dropped, so also when the work is given up.
#[derive(Debug)]
pub struct Span {
    tracer: Tracer,
    context: Context,
    /// Only of a span that is exported.
    record: Option<Box<Record>>,
}

impl Span {
    fn new(
        tracer: Tracer,
        name: Cow<'static, str>,
        kind: Kind,
        context: Context,
        parent: Option<SpanId>,
    ) -> Self {
        let record = (context.sampled && tracer.0.exporter.is_some()).then(|| {
            Box::new(Record {
                name,
                kind,
                context: context.clone(),
                parent,
                links: Vec::new(),
                began: now(),
                ended: 0,
                attributes: Vec::new(),
                failed: false,
            })
        });
        Self { tracer, context, record }
    }

    /// What calls made for this span carry along.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Another name, once it is known.
    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.name = Cow::Owned(name());
        }
    }

    /// Adds an attribute; see the module for what may be one.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(record) = &mut self.record {
            record.attributes.push((name, value.into()));
        }
    }

    /// Marks the work as failed; `kind` is a word from a closed list.
    pub fn fail(&mut self, kind: &'static str) {
        self.set("error.type", kind);
        if let Some(record) = &mut self.record {
            record.failed = true;
        }
    }

    /// Points to spans of other traces that this work is done for.
    pub fn link(&mut self, others: impl IntoIterator<Item = Context>) {
        if let Some(record) = &mut self.record {
            for other in others {
                if record.links.len() < LINKS && !record.links.contains(&other) {
                    record.links.push(other);
                }
            }
        }
    }

    /// Runs `future` with this span open.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        let here = Here { tracer: self.tracer.clone(), context: Some(self.context.clone()) };
        HERE.scope(here, future).await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let (Some(mut record), Some(exporter)) = (self.record.take(), &self.tracer.0.exporter) {
            record.ended = now().max(record.began);
            exporter.take(*record);
        }
    }
}

/// The headers of an event that the present span causes.
#[must_use]
pub fn event_headers() -> BTreeMap<String, String> {
    current().map(|context| (FIELD.to_owned(), context.to_string())).into_iter().collect()
}

/// Keeps the present span in an event that is stored now and published later.
pub fn keep_in(event: &mut Json) {
    if let (Some(context), Some(fields)) = (current(), event.as_object_mut()) {
        fields.insert(FIELD.to_owned(), context.to_string().into());
    }
}

/// Takes out of a stored event what [`keep_in`] put there: the headers to publish it with.
#[must_use]
pub fn take_from(event: &mut Json) -> BTreeMap<String, String> {
    let kept = event.as_object_mut().and_then(|fields| fields.shift_remove(FIELD));
    let text = kept.as_ref().and_then(Json::as_str).filter(|text| text.parse::<Context>().is_ok());
    text.map(|text| (FIELD.to_owned(), text.to_owned())).into_iter().collect()
}

/// The span that caused an event, by its headers.
#[must_use]
pub fn of_event(headers: &BTreeMap<String, String>) -> Option<Context> {
    headers.get(FIELD)?.parse().ok()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
