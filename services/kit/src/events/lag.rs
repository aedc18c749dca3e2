//! The metrics of consumers: how far each partition is behind, and whether it stands still.

use super::Partition;
use crate::metrics::{Gauges, Metrics};

/// `kafka_consumer_lag{topic,partition,group}` and `kafka_consumer_stopped` of the same labels.
#[derive(Clone, Debug)]
pub struct Lag {
    lag: Gauges,
    stopped: Gauges,
}

impl Lag {
    /// Registers both, with series for the partitions that are known from the start.
    #[must_use]
    pub fn register(metrics: &Metrics, partitions: &[Partition]) -> Self {
        let labels = &["topic", "partition", "group"];
        let lag = metrics.gauge("kafka_consumer_lag", "Events that the group has still to read", labels, &[]);
        let help = "1 where a partition is held, because an event can neither take effect nor be put aside";
        let stopped = metrics.gauge("kafka_consumer_stopped", help, labels, &[]);
        let lag = Self { lag, stopped };
        for partition in partitions {
            lag.show(partition, 0);
        }
        lag
    }

    /// Shows how many events of a partition are still to be read.
    pub fn show(&self, partition: &Partition, events: u64) {
        let number = partition.number.to_string();
        self.lag.set(&[&partition.topic, &number, &partition.group], events as f64);
    }

    /// What [`Self::show`] was told last.
    #[must_use]
    pub fn of(&self, partition: &Partition) -> f64 {
        self.lag.get(&[&partition.topic, &partition.number.to_string(), &partition.group])
    }

    /// Shows whether a partition is held.
    pub fn stopped(&self, partition: &Partition, stopped: bool) {
        let number = partition.number.to_string();
        self.stopped.set(&[&partition.topic, &number, &partition.group], f64::from(u8::from(stopped)));
    }

    /// Drops the series of a partition that another replica has now; else it would be summed twice.
    pub fn forget(&self, partition: &Partition) {
        let number = partition.number.to_string();
        let labels = [partition.topic.as_str(), number.as_str(), partition.group.as_str()];
        self.lag.remove(&labels);
        self.stopped.remove(&labels);
    }
}
