//! The metrics of this service; every series exists from the start.

use service_kit::metrics::{Counters, DURATION_BUCKETS, Gauges, Histograms};

use crate::limiter::Scope;
use crate::ml::Group;

/// Methods that are sent to MercadoLibre.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// How a call to MercadoLibre ended.
pub(crate) const OUTCOMES: [&str; 8] =
    ["ok", "client_error", "auth", "rate_limited", "server_error", "timeout", "breaker_open", "quota_denied"];

/// All of them; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// `ml_api_requests_total{endpoint_group,method,outcome}`.
    pub ml_requests: Counters,
    /// `ml_api_request_duration_seconds{endpoint_group}`: of calls that were sent.
    pub ml_duration: Histograms,
    /// `circuit_breaker_state{dependency}`: 0 closed, 1 half-open, 2 open.
    pub breaker_state: Gauges,
    /// `circuit_breaker_transitions_total{dependency,to}`.
    pub breaker_transitions: Counters,
    /// `circuit_breaker_rejected_total{dependency}`.
    pub breaker_rejected: Counters,
    /// `rate_limit_utilization{scope}`: 0 to 1.
    pub limit_utilization: Gauges,
    /// `rate_limit_denied_total{scope}`.
    pub limit_denied: Counters,
    /// `rate_limit_fallbacks_total{store}`: calls metered by the local share because the state store was away or began anew.
    pub limit_fallbacks: Counters,
    /// `rate_limit_local{store}`: 1 while this process uses its local share.
    pub limits_alone: Gauges,
    /// `cache_hit_ratio{tier}`: over the last ten thousand or so lookups.
    pub cache_ratio: Gauges,
    /// `cache_lookups_total{tier,outcome}`.
    pub cache_lookups: Counters,
    /// `cache_failures_total{store}`: questions that the shared cache did not answer.
    pub cache_failures: Counters,
    /// `ml_token_refreshes_total{outcome}`.
    pub refreshes: Counters,
    /// `ml_notifications_total{outcome}`.
    pub notifications: Counters,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &service_kit::Metrics) -> Self {
        let groups = Group::ALL.map(Group::name);
        let scopes = Scope::ALL.map(Scope::name);
        let tiers = ["l1", "l2"];
        let calls: Vec<[&str; 3]> = groups
            .iter()
            .flat_map(|group| METHODS.iter().map(move |method| (*group, *method)))
            .flat_map(|(group, method)| OUTCOMES.iter().map(move |outcome| [group, method, *outcome]))
            .collect();
        let pairs = |left: &[&'static str], right: &[&'static str]| -> Vec<[&'static str; 2]> {
            left.iter().flat_map(|a| right.iter().map(move |b| [*a, *b])).collect()
        };
        let transitions = pairs(&groups, &["closed", "half_open", "open"]);
        let lookups = pairs(&tiers, &["hit", "miss"]);
        let group_series = groups.map(|group| [group]);
        let scope_series = scopes.map(|scope| [scope]);
        let tier_series = tiers.map(|tier| [tier]);
        Self {
            ml_requests: registry.counter(
                "ml_api_requests",
                "Calls to MercadoLibre, also those that were not let out",
                &["endpoint_group", "method", "outcome"],
                &slices(&calls),
            ),
            ml_duration: registry.histogram(
                "ml_api_request_duration_seconds",
                "Time to MercadoLibre's whole answer",
                &["endpoint_group"],
                &DURATION_BUCKETS,
                &slices(&group_series),
            ),
            breaker_state: registry.gauge(
                "circuit_breaker_state",
                "0 closed, 1 half-open, 2 open",
                &["dependency"],
                &slices(&group_series),
            ),
            breaker_transitions: registry.counter(
                "circuit_breaker_transitions",
                "Changes of a breaker's state",
                &["dependency", "to"],
                &slices(&transitions),
            ),
            breaker_rejected: registry.counter(
                "circuit_breaker_rejected",
                "Calls that a breaker did not let out",
                &["dependency"],
                &slices(&group_series),
            ),
            limit_utilization: registry.gauge(
                "rate_limit_utilization",
                "Share of the hourly limit in use; for users the fullest one",
                &["scope"],
                &slices(&scope_series),
            ),
            limit_denied: registry.counter(
                "rate_limit_denied",
                "Calls that a limit did not let out",
                &["scope"],
                &slices(&scope_series),
            ),
            limit_fallbacks: registry.counter(
                "rate_limit_fallbacks",
                "Calls metered by the local share because the state store did not answer",
                &["store"],
                &[&["redis"]],
            ),
            limits_alone: registry.gauge(
                "rate_limit_local",
                "1 while this process meters calls by its local share",
                &["store"],
                &[&["redis"]],
            ),
            cache_ratio: registry.gauge(
                "cache_hit_ratio",
                "Share of recent lookups that were hits",
                &["tier"],
                &slices(&tier_series),
            ),
            cache_lookups: registry.counter(
                "cache_lookups",
                "Lookups of cached items",
                &["tier", "outcome"],
                &slices(&lookups),
            ),
            cache_failures: registry.counter(
                "cache_failures",
                "Questions that the shared cache did not answer",
                &["store"],
                &[&["redis"]],
            ),
            refreshes: registry.counter(
                "ml_token_refreshes",
                "Refreshes of MercadoLibre tokens",
                &["outcome"],
                &[&["ok"], &["failed"], &["reauth_required"]],
            ),
            notifications: registry.counter(
                "ml_notifications",
                "Notifications from MercadoLibre",
                &["outcome"],
                &[&["stored"], &["duplicate"], &["refused"], &["done"], &["retried"], &["dead"]],
            ),
        }
    }
}

fn slices<'a, const N: usize>(series: &'a [[&'a str; N]]) -> Vec<&'a [&'a str]> {
    series.iter().map(<[&str; N]>::as_slice).collect()
}
