//! The variables that every service understands.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::Reader;
use crate::Identity;
use crate::trace::TraceConfig;

/// Where Jaeger takes spans in its own form, which it gave up for OTLP.
const JAEGER_PORT: u16 = 14268;
/// Where a collector takes OTLP over HTTP.
const OTLP_PORT: u16 = 4318;

/// Configuration that every service shares.
#[derive(Clone, Debug)]
pub struct Base {
    /// `HOST`: address to listen on, loopback unless said otherwise.
    pub host: IpAddr,
    /// `PORT`: port of the main listener, unused when a socket was passed.
    pub port: u16,
    /// `METRICS_PORT`: port of the metrics listener; none when absent.
    pub metrics_port: Option<u16>,
    /// `LOG_LEVEL`: error, warn, info, debug or trace.
    pub log_level: String,
    /// `SERVICE_REVISION`: which release this process belongs to, shown in `/health` and in `x-revision`.
    pub revision: Option<String>,
    /// `DRAIN_SECONDS`: how long idle connections are kept for one more request after the request to stop.
    pub drain: Duration,
    /// Whether traces are exported, and where to.
    pub traces: TraceConfig,
}

impl Base {
    /// The defaults of one service.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: identity.port,
            metrics_port: None,
            log_level: "info".to_owned(),
            revision: None,
            drain: Duration::from_secs(5),
            traces: TraceConfig::default(),
        }
    }

    pub(super) fn read(identity: Identity, env: &mut Reader<'_>) -> Option<Self> {
        let defaults = Self::new(identity);
        let host = env.or("HOST", "an IP address", defaults.host, |text| text.parse().ok());
        let port = env.or("PORT", "a port, 1 to 65535", defaults.port, port_number);
        let metrics_port = env.optional("METRICS_PORT", "a port, 1 to 65535", port_number);
        let log_level = env.or("LOG_LEVEL", "error, warn, info, debug or trace", defaults.log_level, level);
        let revision = env.optional("SERVICE_REVISION", "1 to 128 visible ASCII characters", revision);
        let drain = env.seconds_or("DRAIN_SECONDS", 5, 0..=600);
        let traces = traces(env);
        // Accepted because deployments of the plan set it; nothing here depends on it.
        let environment = env.optional("NODE_ENV", "a word", |text| Some(text.to_owned()));
        environment?;
        Some(Self {
            host: host?,
            port: port?,
            metrics_port: metrics_port?,
            log_level: log_level?,
            revision: revision?,
            drain: drain?,
            traces: traces?,
        })
    }
}

/// A collector's own variable comes first; the plan's names Jaeger, which takes OTLP beside its old form.
fn traces(env: &mut Reader<'_>) -> Option<TraceConfig> {
    let share = env.or("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", 1.0, |text| {
        text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
    });
    let collector = env.optional_url("OTEL_EXPORTER_OTLP_ENDPOINT");
    let jaeger = env.optional_url("JAEGER_ENDPOINT");
    let jaeger = jaeger?.map(|url| match url.port() {
        JAEGER_PORT | 80 => url.at(OTLP_PORT),
        port => url.at(port),
    });
    Some(TraceConfig { endpoint: collector?.or(jaeger), share: share? })
}

fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn level(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    crate::log::LEVELS.contains(&lower.as_str()).then_some(lower)
}

/// It becomes a header value, so only visible ASCII is allowed.
fn revision(text: &str) -> Option<String> {
    let visible = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
    visible.then(|| text.to_owned())
}
