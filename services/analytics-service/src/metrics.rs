//! The metrics that this service owns.

use service_kit::Metrics;
use service_kit::metrics::{Counters, Gauges};

use crate::store::{Counts, Partition};

/// `kafka_consumer_lag{topic,partition,group}` and `analytics_events_total{outcome}`.
#[derive(Clone, Debug)]
pub struct ConsumerMetrics {
    lag: Gauges,
    events: Counters,
    labels: [String; 3],
}

impl ConsumerMetrics {
    /// Registers the metrics of one partition with every series at 0.
    #[must_use]
    pub fn register(metrics: &Metrics, partition: &Partition) -> Self {
        let labels = [partition.topic.clone(), partition.number.to_string(), partition.group.clone()];
        let [topic, number, group] = labels.each_ref().map(String::as_str);
        let lag = metrics.gauge(
            "kafka_consumer_lag",
            "Events that the group has still to read",
            &["topic", "partition", "group"],
            &[&[topic, number, group]],
        );
        let events = metrics.counter(
            "analytics_events",
            "Events read from the log by outcome",
            &["outcome"],
            &[&["counted"], &["duplicate"], &["skipped"], &["dead"]],
        );
        Self { lag, events, labels }
    }

    /// Shows how far the consumer is behind. A replica that does not hold the partition shows 0: the series is there
    /// from the start, and the sum over the replicas counts each event once.
    pub fn show_lag(&self, events: u64) {
        self.lag.set(&self.labels.each_ref().map(String::as_str), events as f64);
    }

    /// What [`Self::show_lag`] was told last.
    #[must_use]
    pub fn lag(&self) -> f64 {
        self.lag.get(&self.labels.each_ref().map(String::as_str))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new();
        let partition = Partition { topic: "ml-events".to_owned(), number: 0, group: "g".to_owned() };
        let consumer = ConsumerMetrics::register(&metrics, &partition);
        let lag = "kafka_consumer_lag{topic=\"ml-events\",partition=\"0\",group=\"g\"}";
        assert!(metrics.encode().contains(&format!("{lag} 0")), "{}", metrics.encode());
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"dead\"} 0\n"));
        consumer.show_lag(7);
        consumer.count(Counts { counted: 3, duplicate: 2, skipped: 1, dead: 4 });
        assert!(metrics.encode().contains(&format!("{lag} 7")), "{}", metrics.encode());
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"counted\"} 3\n"));
        assert!(metrics.encode().contains("analytics_events_total{outcome=\"dead\"} 4\n"));
    }
}
