//! Load runs of the simulation: no request is sent, the figures are the script's.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::Sim;
use crate::gate::{GateResult, Verdict};
use crate::ports::{EndpointReport, LoadError, LoadFault, LoadReport, LoadRequest, LoadRunner, LoadTick};
use crate::run::{CancelLevel, CancelToken};
use crate::steps::load::micros;
use crate::system::units::{Threshold, TimeSpan};

/// What the whole load of a profile shows.
#[derive(Debug, Clone, Copy)]
struct Figures {
    p50_us: u64,
    p99_us: u64,
    /// Share of failed requests, 0 to 1.
    errors: f64,
    rate: f64,
}

#[async_trait]
impl LoadRunner for Sim {
    async fn run(
        &self,
        request: &LoadRequest,
        tick: &(dyn Fn(LoadTick) + Send + Sync),
        cancel: &CancelToken,
    ) -> Result<LoadReport, LoadError> {
        let failed = |error: crate::ports::OrchestratorError| LoadError {
            base: request.base.clone(),
            fault: LoadFault::NoAnswer,
            reason: error.reason,
        };
        self.enter("load", &request.base).await.map_err(failed)?;
        self.set_up(request)?;
        let profile = &request.profile;
        tokio::time::sleep(profile.warmup.get()).await;
        let (total, rate) = (profile.duration.get(), profile.rate.per_second());
        let mut elapsed = Duration::ZERO;
        let mut interrupted = false;
        while elapsed < total && !interrupted {
            let second = Duration::from_secs(1).min(total - elapsed);
            tokio::select! {
                biased;
                () = cancel.at_least(CancelLevel::AfterStep) => interrupted = true,
                () = tokio::time::sleep(second) => elapsed += second,
            }
            self.pend_if_dead().await;
            let figures = self.figures(rate);
            let sent = requests(rate, elapsed);
            tick(LoadTick {
                elapsed_ms: millis(elapsed),
                total_ms: millis(total),
                sent,
                failed: share(sent, figures.errors),
                p99_us: figures.p99_us,
            });
        }
        self.state().world.set_up.remove(&request.seed);
        Ok(self.report(request, elapsed, interrupted))
    }
}

impl Sim {
    /// Does what the setup of a profile does to a system: what it makes is named after the seed and stays until the
    /// teardown, and maintenance lets nobody in.
    fn set_up(&self, request: &LoadRequest) -> Result<(), LoadError> {
        let Some(first) = request.profile.setup.first() else { return Ok(()) };
        let refused = |status: u16, text: &str| LoadError {
            base: request.base.clone(),
            fault: LoadFault::Answer(status),
            reason: format!("setup request `{}` got {status}: {text}", first.name),
        };
        if self.is_closed() {
            return Err(refused(503, "closed for maintenance"));
        }
        let mut state = self.state();
        if !state.world.set_up.insert(request.seed) {
            return Err(refused(409, "it is there already"));
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        let now = self.now();
        self.state().world.overrides.iter().any(|entry| entry.is_maintenance(now))
    }

    /// Returns the script's figures, the worst of what runs now.
    fn figures(&self, rate: f64) -> Figures {
        let script = &self.0.script.load;
        let state = self.state();
        let items = state.world.items.values().filter_map(|live| live.item.as_ref());
        let faults: Vec<_> = items.flat_map(|item| self.faults(&state.world, item)).collect();
        let base = script.p99.unwrap_or(TimeSpan::from_millis(12));
        let p99 = faults.iter().filter_map(|fault| fault.p99).fold(base, TimeSpan::max);
        let errors = faults.iter().filter_map(|fault| fault.errors).chain(script.errors);
        let errors = errors.map(|errors| errors.ratio()).fold(0.0, f64::max);
        let p99_us = p99.as_millis() * 1_000;
        let p50_us = script.p50.map_or(p99_us / 2, |p50| p50.as_millis() * 1_000);
        Figures { p50_us, p99_us, errors, rate: rate * (1.0 - errors) }
    }

    fn report(&self, request: &LoadRequest, elapsed: Duration, interrupted: bool) -> LoadReport {
        let profile = &request.profile;
        let rate = profile.rate.per_second();
        let closed = self.is_closed();
        let mut figures = self.figures(rate);
        if closed {
            (figures.errors, figures.rate) = (1.0, 0.0);
        }
        let class = if closed { "status_503" } else { "status_500" };
        let sent = requests(rate, elapsed);
        let failed = share(sent, figures.errors);
        let late = self.0.script.load.late;
        let endpoint = |count: u64, failed: u64| {
            let names = [("p50", figures.p50_us), ("p95", figures.p99_us), ("p99", figures.p99_us)];
            let us: BTreeMap<String, u64> =
                names.into_iter().map(|(name, us)| (name.to_owned(), us)).collect();
            EndpointReport { count, failed, response_us: us.clone(), service_us: us }
        };
        let weights = profile.mix.iter().map(|entry| f64::from(entry.weight)).sum::<f64>().max(1.0);
        let endpoints = profile.mix.iter().map(|entry| {
            let part = f64::from(entry.weight) / weights;
            (entry.name.clone(), endpoint(share(sent, part), share(failed, part)))
        });
        let judge = |threshold: &Threshold| judge(threshold, figures, late || interrupted);
        LoadReport {
            offered_per_second: rate,
            achieved_per_second: figures.rate,
            due: sent,
            sent,
            succeeded: sent - failed,
            failures: (failed > 0).then(|| (class.to_owned(), failed)).into_iter().collect(),
            total: endpoint(sent, failed),
            endpoints: endpoints.collect(),
            client_lateness_p99_us: if late { 500_000 } else { 100 },
            verdicts: profile.thresholds.iter().map(judge).collect(),
            interrupted,
            seconds: elapsed.as_secs_f64(),
        }
    }
}

/// Judges one threshold; a late client or a run cut short tells nothing.
fn judge(threshold: &Threshold, figures: Figures, unsure: bool) -> GateResult {
    #[expect(clippy::cast_precision_loss, reason = "latencies of a script are small")]
    let seconds = |us: u64| us as f64 / 1e6;
    let (actual, got) = match (threshold.measure.as_str(), threshold.percentile()) {
        ("errors", _) => (figures.errors, format!("{:.2}%", figures.errors * 100.0)),
        ("success", _) => (1.0 - figures.errors, format!("{:.2}%", (1.0 - figures.errors) * 100.0)),
        ("rate", _) => (figures.rate, format!("{:.0}/s", figures.rate)),
        (_, Some(percentile)) if percentile > 50.0 => (seconds(figures.p99_us), micros(figures.p99_us)),
        _ => (seconds(figures.p50_us), micros(figures.p50_us)),
    };
    let verdict = match (unsure, threshold.bound.holds(actual)) {
        (true, _) => Verdict::Inconclusive,
        (false, true) => Verdict::Pass,
        (false, false) => Verdict::Fail,
    };
    let got = if unsure { format!("{got}, and the client was late or stopped") } else { got };
    let subject = threshold.scope.clone().unwrap_or_else(|| "all".to_owned());
    let want = format!("{}{}", threshold.measure, threshold.bound);
    GateResult { subject, want, got, verdict }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a script are small")]
fn requests(rate: f64, elapsed: Duration) -> u64 {
    (rate * elapsed.as_secs_f64()).max(0.0).round() as u64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "counts of a script are small"
)]
fn share(count: u64, ratio: f64) -> u64 {
    (count as f64 * ratio.clamp(0.0, 1.0)).round() as u64
}
