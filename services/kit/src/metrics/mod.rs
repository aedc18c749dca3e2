//! Metrics: named families with bounded labels, every series created at 0 at start.
//!
//! The registry appends `_total` to counters by itself: register `user_registrations`, scrape
//! `user_registrations_total`. Labels never hold a user, an item or a path with its values.

mod http;
mod usage;

pub use http::RouteLabel;
pub(crate) use http::{HttpMetrics, method_label};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Buckets for durations in seconds: 5 ms to 10 s, with one at every objective of the system.
pub const DURATION_BUCKETS: [f64; 13] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0];

/// Content type of the scrape answer.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// The registry of one service; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Registry::default())))
    }

    /// A registry with the process's own `container_cpu_usage_percent` and `container_memory_usage_bytes`.
    #[must_use]
    pub fn with_process_usage() -> Self {
        let metrics = Self::new();
        metrics.0.lock().register_collector(Box::new(usage::Usage::of_this_process()));
        metrics
    }

    /// A counter family. `name` is without `_total`; each element of `series` is one label combination, created at 0.
    #[must_use]
    pub fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        series: &[&[&str]],
    ) -> Counters {
        let counters = Counters { labels, family: Family::default() };
        for values in series {
            counters.add(values, 0);
        }
        self.0.lock().register(name, help, counters.family.clone());
        counters
    }

    /// A gauge family; each element of `series` is one label combination, created at 0.
    #[must_use]
    pub fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        series: &[&[&str]],
    ) -> Gauges {
        let gauges = Gauges { labels, family: Family::default() };
        for values in series {
            gauges.set(values, 0.0);
        }
        self.0.lock().register(name, help, gauges.family.clone());
        gauges
    }

    /// A histogram family; each element of `series` is one label combination, created empty.
    #[must_use]
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
        series: &[&[&str]],
    ) -> Histograms {
        let histograms = Histograms { labels, family: Family::new_with_constructor(Buckets(buckets)) };
        for values in series {
            histograms.create(values);
        }
        self.0.lock().register(name, help, histograms.family.clone());
        histograms
    }

    /// The scrape answer, in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.0.lock()).is_err() {
            // Writing to a string fails only when a collector gave up; what was written so far is still true.
            tracing::warn!("the metrics could not be encoded completely");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn pair(names: &'static [&'static str], values: &[&str]) -> Labels {
    debug_assert_eq!(names.len(), values.len(), "one value per label: {names:?}");
    names.iter().zip(values).map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// Counters of one name, told apart by labels.
#[derive(Clone, Debug)]
pub struct Counters {
    labels: &'static [&'static str],
    family: Family<Labels, Counter>,
}

impl Counters {
    /// Adds one to the series with these label values, in the order of the label names.
    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    /// Adds `by`; 0 creates the series.
    pub fn add(&self, values: &[&str], by: u64) {
        self.family.get_or_create(&pair(self.labels, values)).inc_by(by);
    }

    /// The present count.
    #[must_use]
    pub fn get(&self, values: &[&str]) -> u64 {
        self.family.get(&pair(self.labels, values)).map_or(0, |counter| counter.get())
    }
}

/// Gauges of one name, told apart by labels.
#[derive(Clone, Debug)]
pub struct Gauges {
    labels: &'static [&'static str],
    family: Family<Labels, Gauge<f64, AtomicU64>>,
}

impl Gauges {
    /// Sets the series with these label values.
    pub fn set(&self, values: &[&str], to: f64) {
        self.family.get_or_create(&pair(self.labels, values)).set(to);
    }

    /// Adds `by`, which may be negative.
    pub fn add(&self, values: &[&str], by: f64) {
        self.family.get_or_create(&pair(self.labels, values)).inc_by(by);
    }

    /// The present value, 0 when the series does not exist.
    #[must_use]
    pub fn get(&self, values: &[&str]) -> f64 {
        self.family.get(&pair(self.labels, values)).map_or(0.0, |gauge| gauge.get())
    }

    /// Drops a series, so that it is not summed twice when somebody else takes it over.
    pub fn remove(&self, values: &[&str]) {
        self.family.remove(&pair(self.labels, values));
    }
}

/// Histograms of one name, told apart by labels.
#[derive(Clone, Debug)]
pub struct Histograms {
    labels: &'static [&'static str],
    family: Family<Labels, Histogram, Buckets>,
}

impl Histograms {
    /// Creates the series without an observation.
    pub fn create(&self, values: &[&str]) {
        drop(self.family.get_or_create(&pair(self.labels, values)));
    }

    /// Records one observation.
    pub fn observe(&self, values: &[&str], value: f64) {
        self.family.get_or_create(&pair(self.labels, values)).observe(value);
    }
}

#[derive(Clone, Copy, Debug)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_names_get_one_total() {
        let metrics = Metrics::new();
        let counters = metrics.counter(
            "user_registrations",
            "Registrations",
            &["outcome"],
            &[&["created"], &["refused"]],
        );
        let gauges = metrics.gauge("circuit_breaker_state", "State", &["dependency"], &[&["items"]]);
        counters.inc(&["created"]);
        let text = metrics.encode();
        assert!(text.contains("user_registrations_total{outcome=\"created\"} 1\n"), "{text}");
        assert!(text.contains("user_registrations_total{outcome=\"refused\"} 0\n"), "{text}");
        assert!(text.contains("circuit_breaker_state{dependency=\"items\"} 0"), "{text}");
        gauges.remove(&["items"]);
        assert!(!metrics.encode().contains("dependency"));
    }

    #[test]
    fn histograms_have_real_buckets() {
        let metrics = Metrics::new();
        let histogram =
            metrics.histogram("wait_seconds", "Wait", &["store"], &DURATION_BUCKETS, &[&["sqlite"]]);
        histogram.observe(&["sqlite"], 0.2);
        let text = metrics.encode();
        assert!(text.contains("wait_seconds_bucket{le=\"0.15\",store=\"sqlite\"} 0"), "{text}");
        assert!(text.contains("wait_seconds_bucket{le=\"0.25\",store=\"sqlite\"} 1"), "{text}");
    }
}
