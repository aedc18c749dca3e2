//! The metric that this service owns: `product_updates_total{outcome,source}`.

use serde::Serialize;
use service_kit::Metrics;
use service_kit::metrics::Counters;

use crate::product::Source;

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A product was made, or a deleted one came back.
    Created,
    /// Details changed.
    Updated,
    /// A product was deleted.
    Deleted,
    /// There was nothing to change.
    Unchanged,
    /// An item older than what is known.
    Stale,
    /// Another version, or another owner, was there first.
    Conflict,
    /// Refused for what it says or names.
    Invalid,
    /// The store failed.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order of the metric's series.
    pub const ALL: [Self; 8] = [
        Self::Created,
        Self::Updated,
        Self::Deleted,
        Self::Unchanged,
        Self::Stale,
        Self::Conflict,
        Self::Invalid,
        Self::Failed,
    ];

    /// The word used in answers and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// Counts writes of products; the probe tenant's are not to be counted.
#[derive(Clone, Debug)]
pub struct ProductUpdates(Counters);

impl ProductUpdates {
    /// Registers the counter with every series at 0.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let series: Vec<[&str; 2]> = Source::ALL
            .iter()
            .flat_map(|source| Outcome::ALL.map(|outcome| [outcome.as_str(), source.as_str()]))
            .collect();
        let series: Vec<&[&str]> = series.iter().map(|labels| &labels[..]).collect();
        let help = "Writes of products by outcome and source";
        Self(metrics.counter("product_updates", help, &["outcome", "source"], &series))
    }

    /// Counts one write.
    pub fn count(&self, outcome: Outcome, source: Source) {
        self.0.inc(&[outcome.as_str(), source.as_str()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new();
        let updates = ProductUpdates::register(&metrics);
        updates.count(Outcome::Created, Source::Sync);
        let text = metrics.encode();
        assert!(text.contains("product_updates_total{outcome=\"created\",source=\"sync\"} 1\n"), "{text}");
        assert!(text.contains("product_updates_total{outcome=\"stale\",source=\"webhook\"} 0\n"), "{text}");
        assert_eq!(text.matches("product_updates_total{").count(), Outcome::ALL.len() * Source::ALL.len());
    }
}
