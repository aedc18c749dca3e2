//! What a gate asks.

use serde::{Deserialize, Serialize};

use super::Selection;
use crate::system::units::TimeSpan;

/// Parameters of `gate`: what is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GateCheck {
    /// The deep health of services.
    Health(HealthGate),
    /// The series each service says to have.
    Metrics(MetricsGate),
    /// KPIs over the result of a load step.
    Kpis(KpiGate),
    /// One answer of the public front.
    Http(HttpCheck),
}

/// Health of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthGate {
    /// Services that are asked; those without `health.check` are passed over.
    pub health: Selection,
    /// Ways they are asked on.
    pub through: Vec<Through>,
    /// Time until every answer has to be good.
    pub within: TimeSpan,
}

/// A way to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// Through the public front, as a client comes.
    Gateway,
    /// On the service's own address.
    Direct,
}

/// Series of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsGate {
    /// Which series are looked for.
    pub metrics: MetricsWanted,
    /// Time until all of them have to be there.
    pub within: TimeSpan,
}

/// Which series a gate looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsWanted {
    /// `metrics.expect` of every service.
    Expected,
}

/// KPIs over a load result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KpiGate {
    /// KPIs that are judged; those without `load` are passed over.
    pub kpis: Selection,
    /// Id of the load step whose result is judged.
    pub from: String,
}

/// One answer of the public front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Public path that is asked.
    pub http: String,
    /// JSON pointer, or a plain top-level key, of the value that is looked at.
    pub json: Option<String>,
    /// What the value has to be, as text.
    pub equals: Option<String>,
    /// Time until the answer has to be right.
    pub within: TimeSpan,
}
