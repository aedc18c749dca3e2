//! The metrics that this service owns.

use service_kit::Metrics;
use service_kit::events::{self, Lag};
use service_kit::metrics::Counters;

use crate::store::{Counts, Partition};

/// `kafka_consumer_lag{topic,partition,group}` with its neighbour, and `analytics_events_total{outcome}`.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics {
    lag: Lag,
    events: Counters,
}

impl ConsumerMetrics {
    /// Registers the metrics, with the lag of a partition that is known from the start.
    #[must_use]
    pub fn register(metrics: &Metrics, partition: Option<&Partition>) -> Self {
        let known: Vec<events::Partition> = partition.map(named).into_iter().collect();
        let lag = Lag::register(metrics, &known);
        let events = metrics.counter(
            "analytics_events",
            "Events read from the log by outcome",
            &["outcome"],
            &[&["counted"], &["duplicate"], &["skipped"], &["dead"]],
        );
        Self { lag, events }
    }

    /// The lag, for a consumer that shows it by itself.
    #[must_use]
    pub fn by_partition(&self) -> Lag {
        self.lag.clone()
    }

    /// Shows how far the consumer of the embedded log is behind. A replica that does not hold the partition shows 0:
    /// the series is there from the start, and the sum over the replicas counts each event once.
    pub fn show_lag(&self, partition: &Partition, events: u64) {
        self.lag.show(&named(partition), events);
    }

    /// What [`Self::show_lag`] was told last.
    #[must_use]
    pub fn lag(&self, partition: &Partition) -> f64 {
        self.lag.of(&named(partition))
    }

    /// Counts the records of one batch.
    pub fn count(&self, counts: Counts) {
        let Counts { counted, duplicate, skipped, dead } = counts;
        for (outcome, events) in
            [("counted", counted), ("duplicate", duplicate), ("skipped", skipped), ("dead", dead)]
        {
            self.events.add(&[outcome], events);
        }
    }
}

fn named(partition: &Partition) -> events::Partition {
    let Partition { topic, number, group } = partition.clone();
    events::Partition { topic, number, group }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new();
        let partition = Partition { topic: "ml-events".to_owned(), number: 0, group: "g".to_owned() };
        let consumer = ConsumerMetrics::register(&metrics, Some(&partition));
        let lag = "kafka_consumer_lag{topic=\"ml-events\",partition=\"0\",group=\"g\"}";
        assert!(metrics.encode().contains(&format!("{lag} 0")), "{}", metrics.encode());
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"dead\"} 0\n"));
        consumer.show_lag(&partition, 7);
        consumer.count(Counts { counted: 3, duplicate: 2, skipped: 1, dead: 4 });
        assert!(metrics.encode().contains(&format!("{lag} 7")), "{}", metrics.encode());
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"counted\"} 3\n"));
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"dead\"} 4\n"));
    }
}
