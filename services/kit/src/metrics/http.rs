//! `http_request_duration_seconds`: how long answers take, by route template and status class.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{Method, StatusCode};

use super::{DURATION_BUCKETS, Histograms, Metrics};

/// A response extension that replaces the matched route as the `route` label; set by handlers that route themselves.
#[derive(Clone, Debug)]
pub struct RouteLabel(pub Cow<'static, str>);

/// The histogram of one service's answers.
#[derive(Clone, Debug)]
pub(crate) struct HttpMetrics {
    service: &'static str,
    durations: Histograms,
}

impl HttpMetrics {
    pub(crate) fn new(service: &'static str, metrics: &Metrics) -> Self {
        let durations = metrics.histogram(
            "http_request_duration_seconds",
            "Time from the request's head to the response's head",
            &["service", "method", "route", "status"],
            &DURATION_BUCKETS,
            &[],
        );
        Self { service, durations }
    }

    /// Creates the series of one route at 0: success, refusal, failure.
    pub(crate) fn announce(&self, method: &str, route: &str) {
        for class in ["2xx", "4xx", "5xx"] {
            self.durations.create(&[self.service, method, route, class]);
        }
    }

    pub(crate) fn observe(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let values = [self.service, method_label(method), route, class(status)];
        self.durations.observe(&values, took.as_secs_f64());
    }
}

/// A client may invent methods; a label may not.
pub(crate) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
