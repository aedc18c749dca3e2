//! When each request is due: a closed form, so that nothing drifts and nothing has to be kept.

use std::time::Duration;

/// An arrival schedule: the rate rises linearly from 0 during the warm-up and is constant afterwards.
///
/// Only what is due after the warm-up is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    rate: f64,
    warmup: f64,
    duration: f64,
}

impl Schedule {
    /// Returns the schedule of `rate` requests per second for `duration`, after a warm-up. A rate that is not a
    /// positive number gives a schedule without requests.
    #[must_use]
    pub fn new(rate: f64, warmup: Duration, duration: Duration) -> Self {
        let rate = if rate.is_finite() && rate > 0.0 { rate } else { 0.0 };
        Self { rate, warmup: warmup.as_secs_f64(), duration: duration.as_secs_f64() }
    }

    /// Returns the number of requests due during the warm-up.
    #[must_use]
    pub fn warmup_requests(&self) -> u64 {
        // The area under the ramp: half of what the full rate would send.
        (self.rate * self.warmup / 2.0).round() as u64
    }

    /// Returns the number of requests due in all.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.warmup_requests() + self.measured_requests()
    }

    /// Returns the number of requests that are measured.
    #[must_use]
    pub fn measured_requests(&self) -> u64 {
        (self.rate * self.duration).round() as u64
    }

    /// Returns the requests per second after the warm-up.
    #[must_use]
    pub const fn rate(&self) -> f64 {
        self.rate
    }

    /// Returns how long the schedule lasts, warm-up included.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.warmup + self.duration)
    }

    /// Returns how long the warm-up lasts.
    #[must_use]
    pub fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// Says whether request `index` is measured.
    #[must_use]
    pub fn is_measured(&self, index: u64) -> bool {
        index >= self.warmup_requests()
    }

    /// Returns when request `index`, counted from 0, is due after the start; none when there is no such request.
    #[must_use]
    pub fn due(&self, index: u64) -> Option<Duration> {
        if index >= self.requests() {
            return None;
        }
        let seconds = match index.checked_sub(self.warmup_requests()) {
            // The rate is rate * t / warmup, so rate * t^2 / (2 * warmup) requests are due by t.
            None => (2.0 * self.warmup * index as f64 / self.rate).sqrt(),
            Some(after) => self.warmup + after as f64 / self.rate,
        };
        Some(Duration::from_secs_f64(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, warmup_s: u64, duration_s: u64) -> Schedule {
        Schedule::new(rate, Duration::from_secs(warmup_s), Duration::from_secs(duration_s))
    }

    #[test]
    fn a_constant_rate_is_uniform() {
        let plain = schedule(250.0, 0, 20);
        assert_eq!((plain.requests(), plain.measured_requests()), (5000, 5000));
        assert_eq!(plain.due(0), Some(Duration::ZERO));
        assert_eq!(plain.due(1), Some(Duration::from_millis(4)));
        assert_eq!(plain.due(4999), Some(Duration::from_millis(19_996)));
        assert_eq!(plain.due(5000), None);
    }

    #[test]
    fn a_warm_up_rises_linearly_and_is_not_measured() {
        let ramped = schedule(100.0, 4, 10);
        assert_eq!((ramped.warmup_requests(), ramped.requests()), (200, 1200));
        // A quarter of the ramp's requests by half of its time.
        assert_eq!(ramped.due(50), Some(Duration::from_secs(2)));
        assert!(!ramped.is_measured(199));
        assert!(ramped.is_measured(200));
        assert_eq!(ramped.due(200), Some(Duration::from_secs(4)));
        assert_eq!(ramped.due(300), Some(Duration::from_secs(5)));
        let times: Vec<_> = (0..1200).filter_map(|k| ramped.due(k)).collect();
        assert!(times.is_sorted(), "later requests are due later");
    }

    #[test]
    fn senseless_rates_send_nothing() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(schedule(rate, 1, 1).due(0), None, "{rate}");
        }
    }
}
