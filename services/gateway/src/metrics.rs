//! The gateway's own metrics, beside `http_request_duration_seconds`.

use service_kit::Metrics;
use service_kit::metrics::{Counters, Gauges};

/// Counters and gauges of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct GatewayMetrics {
    retries: Counters,
    reloads: Counters,
    maintenance: Gauges,
}

impl GatewayMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            retries: metrics.counter(
                "gateway_upstream_retries",
                "Requests sent again: no connection, never sent, or broken off and idempotent",
                &["reason"],
                &[&["connect"], &["unsent"], &["broken"]],
            ),
            reloads: metrics.counter(
                "gateway_route_reloads",
                "New route files: taken over or refused",
                &["outcome"],
                &[&["taken"], &["refused"]],
            ),
            maintenance: metrics.gauge(
                "gateway_maintenance",
                "1 while maintenance is on",
                &["scope"],
                &[&["public"]],
            ),
        }
    }

    pub(crate) fn retried(&self, reason: &str) {
        self.retries.inc(&[reason]);
    }

    pub(crate) fn reloaded(&self, outcome: &str) {
        self.reloads.inc(&[outcome]);
    }

    pub(crate) fn show_maintenance(&self, on: bool) {
        self.maintenance.set(&["public"], f64::from(u8::from(on)));
    }
}
