//! Judges thresholds by what was counted: pass, fail, or too little to tell.
//!
//! Percentiles and shares are one question, how many of `n` were bad, and are answered with exact 95 % bounds
//! ([`crate::bound`]). A request is bad for a latency threshold when it failed or came late: a server that answers
//! quickly with errors serves nobody in time. Doubts about the run itself turn a verdict into "cannot tell": a pass
//! when the run was cut short or the load not offered, a failure when the client may have caused it.

use std::time::Duration;

use mlctl_core::gate::{GateResult, Verdict};
use mlctl_core::steps::load::micros;
use mlctl_core::system::units::{Comparison, Quantity, RatePer, Threshold};

use crate::bound;
use crate::recorder::{Limit, Recorder, Tally};

/// A client later than this (p99) may be the reason of a failure.
const LATEST_CLIENT: Duration = Duration::from_millis(50);

/// The share of the offered requests that has to be sent for a pass.
const LEAST_SENT: f64 = 0.95;

/// The fewest good answers that a mean is judged by.
const LEAST_FOR_MEAN: u64 = 30;

/// What is known of a run.
pub(crate) struct Evidence<'a> {
    pub(crate) recorder: &'a Recorder,
    /// The names of the mix, in the recorder's order.
    pub(crate) names: &'a [String],
    /// Requests that the whole schedule measures.
    pub(crate) planned: u64,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// True when it was cut short.
    pub(crate) interrupted: bool,
}

/// A verdict with what it rests on.
struct Finding {
    verdict: Verdict,
    got: String,
}

impl Finding {
    fn unclear(got: impl Into<String>) -> Self {
        Self { verdict: Verdict::Inconclusive, got: got.into() }
    }
}

/// Returns the latency limits of thresholds, to be counted exactly while the run lasts.
pub(crate) fn limits(thresholds: &[Threshold]) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for limit in thresholds.iter().filter_map(limit_of) {
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }
    limits
}

/// Returns the limit that a percentile or the maximum is held to.
fn limit_of(threshold: &Threshold) -> Option<Limit> {
    if threshold.measure != "max" {
        threshold.percentile()?;
    }
    let Quantity::Time(at) = threshold.bound.value else { return None };
    let inclusive = match threshold.bound.comparison {
        Comparison::Less => false,
        Comparison::LessOrEqual => true,
        _ => return None,
    };
    Some(Limit { at: at.get(), inclusive })
}

impl Evidence<'_> {
    /// Judges one threshold.
    pub(crate) fn judge(&self, threshold: &Threshold) -> GateResult {
        let finding = match self.tally(threshold) {
            Some(tally) if tally.count == 0 => Finding::unclear("no request was measured"),
            Some(tally) => self.weigh(threshold, tally),
            None => Finding::unclear("the mix has no entry of that name"),
        };
        GateResult {
            subject: threshold.scope.clone().unwrap_or_else(|| "load".to_owned()),
            want: threshold.to_string(),
            got: finding.got,
            verdict: finding.verdict,
        }
    }

    fn tally(&self, threshold: &Threshold) -> Option<&Tally> {
        match &threshold.scope {
            None => Some(&self.recorder.total),
            Some(scope) => {
                let entry = self.names.iter().position(|name| name == scope)?;
                self.recorder.entries.get(entry)
            }
        }
    }

    /// Judges the figure, then lets doubts about the run speak.
    fn weigh(&self, threshold: &Threshold, tally: &Tally) -> Finding {
        let mut finding = self.measure(threshold, tally, 0);
        let doubt = match finding.verdict {
            Verdict::Pass => self.doubt_of_pass(),
            Verdict::Fail => self.doubt_of_failure(threshold, tally),
            Verdict::Inconclusive => None,
        };
        if let Some(doubt) = doubt {
            finding.verdict = Verdict::Inconclusive;
            finding.got = format!("{}, but {doubt}", finding.got);
        }
        finding
    }

    fn doubt_of_pass(&self) -> Option<String> {
        if self.interrupted {
            return Some("the run was cut short".to_owned());
        }
        let total = &self.recorder.total;
        let sent = total.count - total.not_sent;
        ((sent as f64) < self.planned as f64 * LEAST_SENT)
            .then(|| format!("only {sent} of {} requests could be sent", self.planned))
    }

    fn doubt_of_failure(&self, threshold: &Threshold, tally: &Tally) -> Option<String> {
        let lateness = Duration::from_micros(self.recorder.lateness_p99_us());
        let late = lateness > LATEST_CLIENT;
        let on_time_matters = !matches!(threshold.measure.as_str(), "errors" | "success");
        if late && on_time_matters {
            return Some(format!(
                "the client itself was {} late (p99)",
                micros(self.recorder.lateness_p99_us())
            ));
        }
        // Would it fail too without what the client may have done itself?
        let own = tally.clients + if late { tally.not_sent } else { 0 };
        (own > 0 && self.measure(threshold, tally, own).verdict != Verdict::Fail)
            .then(|| format!("{own} of the failures are this client's own"))
    }

    /// Judges the figure alone, as if `excused` of the bad requests had been good.
    fn measure(&self, threshold: &Threshold, tally: &Tally, excused: u64) -> Finding {
        let bad = tally.failed.saturating_sub(excused);
        let comparison = threshold.bound.comparison;
        let value = threshold.bound.value.base();
        match (threshold.measure.as_str(), comparison) {
            ("errors", Comparison::Less | Comparison::LessOrEqual) => {
                share(bad, tally.count, value, comparison == Comparison::LessOrEqual, "failed")
            }
            // `errors==0%` is how some write that none may fail.
            ("errors", Comparison::Equal) if value == 0.0 => share(bad, tally.count, 0.0, true, "failed"),
            ("success", Comparison::Greater | Comparison::GreaterOrEqual) => {
                share(bad, tally.count, 1.0 - value, comparison == Comparison::GreaterOrEqual, "failed")
            }
            ("success", Comparison::Equal) if value >= 1.0 => share(bad, tally.count, 0.0, true, "failed"),
            ("rate", _) => self.rate(threshold, tally, tally.count - bad),
            ("avg", _) => mean(threshold, tally),
            ("min", _) => match tally.good_least {
                Some(least) => Finding {
                    verdict: pass_if(threshold.bound.holds(least.as_secs_f64())),
                    got: format!("{} (of {} good answers)", time(least), tally.succeeded()),
                },
                None => Finding::unclear("no request got a good answer"),
            },
            _ => latency(self.recorder, threshold, tally, excused),
        }
    }

    fn rate(&self, threshold: &Threshold, tally: &Tally, good: u64) -> Finding {
        if self.seconds <= 0.0 {
            return Finding::unclear("nothing was measured");
        }
        let (rate, offered) = (good as f64 / self.seconds, tally.count as f64 / self.seconds);
        // In the threshold's own unit, so that the two can be compared by eye.
        let per = match threshold.bound.value {
            Quantity::Rate(rate) => rate.per(),
            _ => RatePer::Second,
        };
        let shown = |per_second: f64| {
            format!("{:.*}", usize::from(per == RatePer::Second), per_second * per.seconds())
        };
        let got = format!(
            "{} good answers/{per} of {}/{per} offered",
            shown(rate),
            shown(offered),
            per = per.word()
        );
        if threshold.bound.holds(rate) {
            return Finding { verdict: Verdict::Pass, got };
        }
        if threshold.bound.holds(offered) {
            return Finding { verdict: Verdict::Fail, got };
        }
        Finding::unclear(format!("{got}: the profile's own rate is outside the threshold"))
    }
}

fn latency(recorder: &Recorder, threshold: &Threshold, tally: &Tally, excused: u64) -> Finding {
    let place = limit_of(threshold).and_then(|limit| recorder.limit(limit));
    let Some(&over) = place.and_then(|place| tally.over.get(place)) else {
        return Finding::unclear(format!("`{threshold}` cannot be judged: use < or <="));
    };
    let percentile = threshold.percentile().unwrap_or(100.0);
    // 100 - 99.9 is not 0.1 in binary: rounded to a part in a billion, the limit is what the author meant.
    let allowed = ((100.0 - percentile) * 1e7).round() / 1e9;
    let text = format!("failed or not within {}", threshold.bound.value);
    let finding = share(over.saturating_sub(excused), tally.count, allowed, allowed == 0.0, &text);
    let figure = tally.percentile(percentile).map_or_else(|| "nothing was sent".to_owned(), time);
    Finding { got: format!("{figure}; {}", finding.got), ..finding }
}

/// Judges whether a share of bad ones is below a limit (or at most it, when `inclusive`).
fn share(bad: u64, n: u64, limit: f64, inclusive: bool, what: &str) -> Finding {
    let seen = format!("{bad} of {n} {what}");
    if limit <= 0.0 {
        // That none may fail is a statement about these requests, not about a chance.
        return Finding { verdict: pass_if(inclusive && bad == 0), got: seen };
    }
    let (low, high) = (bound::lower(bad, n), bound::upper(bad, n));
    if high < limit || (inclusive && high <= limit) {
        let got = format!("{seen}, 95 % sure below {} (allowed {})", percent(high), percent(limit));
        return Finding { verdict: Verdict::Pass, got };
    }
    if low > limit || (!inclusive && low >= limit) {
        let got = format!("{seen}, 95 % sure above {} (allowed {})", percent(low), percent(limit));
        return Finding { verdict: Verdict::Fail, got };
    }
    let advice = match bound::needed(bad, n, limit) {
        Some(samples) => format!("{samples} requests would tell"),
        None => "too close to tell".to_owned(),
    };
    Finding::unclear(format!(
        "{seen}, between {} and {} (allowed {}): {advice}",
        percent(low),
        percent(high),
        percent(limit)
    ))
}

fn mean(threshold: &Threshold, tally: &Tally) -> Finding {
    let good = tally.succeeded();
    if good < LEAST_FOR_MEAN {
        return Finding::unclear(format!("{good} good answers, {LEAST_FOR_MEAN} are needed for a mean"));
    }
    let n = good as f64;
    let mean = tally.good_sum / n;
    let variance = (tally.good_squares / n - mean * mean).max(0.0) * n / (n - 1.0);
    // 1.645 standard errors: 95 % on each side, as for the shares.
    let margin = 1.645 * (variance / n).sqrt();
    let verdict = match (threshold.bound.holds(mean - margin), threshold.bound.holds(mean + margin)) {
        (true, true) => Verdict::Pass,
        (false, false) => Verdict::Fail,
        _ => Verdict::Inconclusive,
    };
    let figure = |seconds: f64| time(Duration::from_secs_f64(seconds.max(0.0)));
    Finding { verdict, got: format!("{} +- {} (of {good} good answers)", figure(mean), figure(margin)) }
}

const fn pass_if(holds: bool) -> Verdict {
    if holds { Verdict::Pass } else { Verdict::Fail }
}

fn time(duration: Duration) -> String {
    micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Returns a share with two significant digits: `0.06 %`, `12 %`.
fn percent(share: f64) -> String {
    let value = share * 100.0;
    if value <= 0.0 {
        return "0 %".to_owned();
    }
    let digits = (1.0 - value.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests;
