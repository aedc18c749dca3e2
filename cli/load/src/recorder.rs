//! Counts what happened: histograms in constant memory, and exact counters where a histogram would blur a limit.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use mlctl_core::ports::EndpointReport;

use crate::failure::Failure;

/// Latencies from 1 us to 60 s, to three digits; longer ones count as 60 s.
const HIGHEST_US: u64 = 60_000_000;

/// A latency limit whose exceedances are counted exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The time.
    pub(crate) at: Duration,
    /// Whether a request of exactly that time is still within.
    pub(crate) inclusive: bool,
}

impl Limit {
    fn holds(self, latency: Duration) -> bool {
        if self.inclusive { latency <= self.at } else { latency < self.at }
    }
}

/// What became of one due request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Which entry of the mix.
    pub(crate) entry: usize,
    /// Whether it was due after the warm-up.
    pub(crate) measured: bool,
    /// From due to the end of the answer, or to giving up.
    pub(crate) response: Duration,
    /// The times of a request that was sent; none when it was not.
    pub(crate) sent: Option<Sent>,
    /// Why it failed, if it did.
    pub(crate) failure: Option<Failure>,
}

/// The times of a request that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// From sending to the end of the answer.
    pub(crate) service: Duration,
    /// How late the client was: from when it was due and a connection was free to when it was sent.
    pub(crate) lateness: Duration,
}

/// Counters of one entry of the mix, or of all.
pub(crate) struct Tally {
    response: Histogram<u64>,
    service: Histogram<u64>,
    /// Requests whose fate is known.
    pub(crate) count: u64,
    /// Of them failed, not sent ones included.
    pub(crate) failed: u64,
    /// Of them not sent.
    pub(crate) not_sent: u64,
    /// Of the failed ones, those that the client itself may be to blame for.
    pub(crate) clients: u64,
    /// Per limit: requests over it or failed.
    pub(crate) over: Vec<u64>,
    /// Latencies of good answers in seconds: sum and sum of squares.
    pub(crate) good_sum: f64,
    pub(crate) good_squares: f64,
    pub(crate) good_least: Option<Duration>,
}

impl Tally {
    fn new(limits: usize) -> Result<Self, CreationError> {
        Ok(Self {
            response: histogram()?,
            service: histogram()?,
            count: 0,
            failed: 0,
            not_sent: 0,
            clients: 0,
            over: vec![0; limits],
            good_sum: 0.0,
            good_squares: 0.0,
            good_least: None,
        })
    }

    fn record(&mut self, outcome: &Outcome, limits: &[Limit]) {
        self.count += 1;
        if let Some(failure) = outcome.failure {
            self.failed += 1;
            self.not_sent += u64::from(failure == Failure::NotSent);
            self.clients += u64::from(failure.is_clients());
        } else {
            let seconds = outcome.response.as_secs_f64();
            self.good_sum += seconds;
            self.good_squares += seconds * seconds;
            self.good_least =
                Some(self.good_least.map_or(outcome.response, |least| least.min(outcome.response)));
        }
        // Whoever got no good answer in time was not served in time, however quickly the bad one came.
        for (over, limit) in self.over.iter_mut().zip(limits) {
            *over += u64::from(outcome.failure.is_some() || !limit.holds(outcome.response));
        }
        if let Some(sent) = outcome.sent {
            self.service.saturating_record(micros(sent.service));
        }
        // A slot dropped at once has no latency of its own; one given up after waiting has.
        if outcome.sent.is_some() || !outcome.response.is_zero() {
            self.response.saturating_record(micros(outcome.response));
        }
    }

    /// Returns requests with the expected answer.
    pub(crate) const fn succeeded(&self) -> u64 {
        self.count - self.failed
    }

    /// Returns a percentile (0 to 100) of the response latency; none without a sample.
    pub(crate) fn percentile(&self, percentile: f64) -> Option<Duration> {
        (!self.response.is_empty())
            .then(|| Duration::from_micros(self.response.value_at_percentile(percentile)))
    }

    /// Returns the figures for people and machines.
    pub(crate) fn report(&self) -> EndpointReport {
        EndpointReport {
            count: self.count,
            failed: self.failed,
            response_us: percentiles(&self.response),
            service_us: percentiles(&self.service),
        }
    }
}

/// Everything counted in one run.
pub(crate) struct Recorder {
    limits: Vec<Limit>,
    pub(crate) total: Tally,
    pub(crate) entries: Vec<Tally>,
    pub(crate) failures: BTreeMap<Failure, u64>,
    lateness: Histogram<u64>,
    /// Since the start, warm-up included: for the ticks.
    pub(crate) all_sent: u64,
    pub(crate) all_failed: u64,
    second: Histogram<u64>,
}

impl Recorder {
    /// Returns counters for so many entries of the mix.
    pub(crate) fn new(entries: usize, limits: Vec<Limit>) -> Result<Self, CreationError> {
        Ok(Self {
            total: Tally::new(limits.len())?,
            entries: (0..entries).map(|_| Tally::new(limits.len())).collect::<Result<_, _>>()?,
            failures: BTreeMap::new(),
            lateness: histogram()?,
            all_sent: 0,
            all_failed: 0,
            second: histogram()?,
            limits,
        })
    }

    /// Counts one request.
    pub(crate) fn record(&mut self, outcome: &Outcome) {
        self.all_sent += u64::from(outcome.sent.is_some());
        self.all_failed += u64::from(outcome.failure.is_some());
        self.second.saturating_record(micros(outcome.response));
        if !outcome.measured {
            return;
        }
        self.total.record(outcome, &self.limits);
        if let Some(entry) = self.entries.get_mut(outcome.entry) {
            entry.record(outcome, &self.limits);
        }
        if let Some(failure) = outcome.failure {
            *self.failures.entry(failure).or_default() += 1;
        }
        if let Some(sent) = outcome.sent {
            self.lateness.saturating_record(micros(sent.lateness));
        }
    }

    /// Returns the place of a limit among the exact counters.
    pub(crate) fn limit(&self, limit: Limit) -> Option<usize> {
        self.limits.iter().position(|known| *known == limit)
    }

    /// Returns how late the client was, p99 in microseconds; 0 without a sample.
    pub(crate) fn lateness_p99_us(&self) -> u64 {
        p99(&self.lateness)
    }

    /// Returns the p99 of the response latency since the last call, in microseconds, and forgets it.
    pub(crate) fn take_second_p99_us(&mut self) -> u64 {
        let value = p99(&self.second);
        self.second.reset();
        value
    }
}

fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, HIGHEST_US, 3)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn p99(histogram: &Histogram<u64>) -> u64 {
    if histogram.is_empty() { 0 } else { histogram.value_at_quantile(0.99) }
}

fn percentiles(histogram: &Histogram<u64>) -> BTreeMap<String, u64> {
    if histogram.is_empty() {
        return BTreeMap::new();
    }
    let names = [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p999", 99.9)];
    let mut figures: BTreeMap<String, u64> =
        names.iter().map(|(name, at)| ((*name).to_owned(), histogram.value_at_percentile(*at))).collect();
    figures.insert("max".to_owned(), histogram.max());
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(response_ms: u64, failure: Option<Failure>) -> Outcome {
        let response = Duration::from_millis(response_ms);
        let sent = Sent { service: response / 2, lateness: Duration::from_millis(1) };
        let sent = (failure != Some(Failure::NotSent)).then_some(sent);
        Outcome { entry: 0, measured: true, response, sent, failure }
    }

    #[test]
    fn a_limit_is_counted_to_the_nanosecond_and_failures_exceed_it() {
        let at = Duration::from_millis(500);
        let limits = vec![Limit { at, inclusive: false }, Limit { at, inclusive: true }];
        let mut recorder = Recorder::new(1, limits).unwrap();
        recorder.record(&outcome(499, None));
        recorder.record(&outcome(500, None));
        recorder.record(&Outcome { response: at + Duration::from_nanos(1), ..outcome(0, None) });
        recorder.record(&outcome(1, Some(Failure::Status(500))));
        recorder.record(&outcome(0, Some(Failure::NotSent)));
        assert_eq!(recorder.total.over, [4, 3]);
        assert_eq!((recorder.total.count, recorder.total.failed, recorder.total.not_sent), (5, 2, 1));
        assert_eq!(recorder.entries[0].succeeded(), 3);
        assert_eq!(recorder.failures[&Failure::Status(500)], 1);
    }

    #[test]
    fn the_warm_up_is_shown_in_ticks_and_nowhere_else() {
        let mut recorder = Recorder::new(1, Vec::new()).unwrap();
        recorder.record(&Outcome { measured: false, ..outcome(20, Some(Failure::Refused)) });
        assert_eq!((recorder.total.count, recorder.failures.len()), (0, 0));
        assert_eq!((recorder.all_sent, recorder.all_failed), (1, 1));
        let p99 = recorder.take_second_p99_us();
        assert!((19_900..20_100).contains(&p99), "{p99}");
        assert_eq!(recorder.take_second_p99_us(), 0);
        assert!(recorder.total.report().response_us.is_empty());
    }

    #[test]
    fn what_takes_longer_than_the_histogram_counts_at_its_end() {
        let mut recorder = Recorder::new(1, Vec::new()).unwrap();
        recorder.record(&outcome(90_000, Some(Failure::Timeout)));
        let max = recorder.total.report().response_us["max"];
        assert!((60_000_000..60_100_000).contains(&max), "{max}");
    }
}
