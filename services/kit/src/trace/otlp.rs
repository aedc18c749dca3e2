//! The JSON form of the OpenTelemetry protocol, as far as spans need it.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>: field names in camel case, ids as hexadecimal text, numbers of 64 bits
//! as text, enumerations as numbers.

use serde_json::{Value as Json, json};

use super::{Record, Value};

/// Who the spans are of.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) service: &'static str,
    pub(super) version: &'static str,
    /// Tells this process from the service's other replicas.
    pub(super) instance: String,
}

/// `STATUS_CODE_ERROR`.
const FAILED: u8 = 2;

/// Body of one export request.
pub(super) fn request(resource: &Resource, spans: &[Record]) -> Json {
    json!({
        "resourceSpans": [{
            "resource": { "attributes": [
                attribute("service.name", &resource.service.into()),
                attribute("service.version", &resource.version.into()),
                attribute("service.instance.id", &resource.instance.clone().into()),
            ]},
            "scopeSpans": [{
                "scope": { "name": "service-kit", "version": env!("CARGO_PKG_VERSION") },
                "spans": spans.iter().map(span).collect::<Vec<_>>(),
            }],
        }],
    })
}

fn span(record: &Record) -> Json {
    let context = &record.context;
    let mut span = json!({
        "traceId": context.trace.to_string(),
        "spanId": context.span.to_string(),
        "name": record.name,
        "kind": record.kind as u8,
        "flags": u8::from(context.sampled),
        "startTimeUnixNano": record.began.to_string(),
        "endTimeUnixNano": record.ended.to_string(),
        "attributes": record.attributes.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
        "status": if record.failed { json!({ "code": FAILED }) } else { json!({}) },
    });
    if let Some(parent) = record.parent {
        span["parentSpanId"] = parent.to_string().into();
    }
    if let Some(state) = &context.state {
        span["traceState"] = state.clone().into();
    }
    if !record.links.is_empty() {
        let links = record.links.iter();
        let link = |link: &super::Context| json!({ "traceId": link.trace.to_string(), "spanId": link.span.to_string() });
        span["links"] = links.map(link).collect();
    }
    span
}

fn attribute(name: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}
