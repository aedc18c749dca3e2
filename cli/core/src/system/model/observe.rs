//! KPIs and alerts: what is measured of a running system and when somebody is called.

use serde::{Deserialize, Serialize};

use crate::system::units::{Bound, Condition, Indicator, Threshold, TimeSpan};

/// A key performance indicator with its target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kpi {
    /// One sentence for people.
    pub title: Option<String>,
    /// How it is computed from metrics.
    pub sli: Indicator,
    /// What it has to be.
    pub target: Bound,
    /// The figure of a load result that stands for it; without one a load step cannot judge it.
    pub load: Option<LoadMeasure>,
}

impl Kpi {
    /// Returns the KPI as a threshold on a load result, when a load can judge it.
    pub fn load_threshold(&self) -> Option<Threshold> {
        let measure = self.load?;
        Some(Threshold { scope: None, measure: measure.as_str().to_owned(), bound: self.target.clone() })
    }
}

/// A figure of a load result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadMeasure {
    /// Median latency from the intended start.
    P50,
    /// 95th percentile of it.
    P95,
    /// 99th percentile of it.
    P99,
    /// Share of requests that failed.
    Errors,
    /// Share of requests that did not fail.
    Success,
    /// Good answers per time.
    Rate,
}

impl LoadMeasure {
    /// Returns the word thresholds use for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Errors => "errors",
            Self::Success => "success",
            Self::Rate => "rate",
        }
    }
}

/// A condition that calls somebody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// One sentence for people.
    pub title: Option<String>,
    /// What has to be true.
    pub when: Condition,
    /// For how long without a break.
    #[serde(rename = "for")]
    pub lasting: TimeSpan,
    /// Channels that are told.
    pub notify: Vec<String>,
    /// What is done besides.
    pub run: Option<AlertAction>,
}

/// What an alert does besides calling somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertAction {
    /// Adds a replica of a service, or asks for more of a store.
    Scale(String),
    /// Runs a playbook by name.
    Playbook(String),
}
