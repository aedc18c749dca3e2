//! A circuit breaker per group of MercadoLibre endpoints, per process.
//!
//! Closed lets everything through and counts. Open rejects until its wait is over. Half-open lets a few probes
//! through; all good closes it, one bad opens it for twice as long. A permit records an outcome when it is dropped
//! too: a caller that goes away in the middle of a probe must not keep the probe's place forever.
//!
//! Only what says that the other side is unwell counts as a failure: no connection, no answer in time, 5xx. A 4xx
//! is an answer, and 429 is the limiter's business.

mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use window::Window;

/// Longest wait before the next probes, however often they failed.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// When to open and how to come back.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `false` lets every call through uncounted: the emergency switch.
    pub enabled: bool,
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// First wait before probes.
    pub recovery: Duration,
    /// Share of failed or slow calls within a minute that opens it, once there were enough calls.
    pub failure_share: f64,
    /// Calls within a minute below which the share says nothing.
    pub minimum_calls: u32,
    /// A call that takes this long counts as failed in the share.
    pub slow_call: Duration,
    /// Probes admitted together when half-open.
    pub probes: u32,
    /// A number in `0.0..1.0`, drawn for each wait, so that replicas do not probe in step.
    pub jitter: fn() -> f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 10,
            recovery: Duration::from_secs(60),
            failure_share: 0.5,
            minimum_calls: 20,
            slow_call: Duration::from_secs(5),
            probes: 3,
            jitter: || 0.0,
        }
    }
}

/// What the breaker does with a call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass.
    Closed,
    /// A few probes pass.
    HalfOpen,
    /// Calls are rejected.
    Open,
}

impl State {
    /// The word shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The value of `circuit_breaker_state`: 0 closed, 1 half-open, 2 open.
    pub fn gauge(self) -> f64 {
        match self {
            Self::Closed => 0.0,
            Self::HalfOpen => 1.0,
            Self::Open => 2.0,
        }
    }
}

/// An operator's hold over the breaker's own judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The breaker decides.
    Auto,
    /// Every call is rejected.
    Open,
    /// Every call passes.
    Closed,
}

/// The call was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit breaker is open for another {} ms", retry_after.as_millis())]
pub struct Rejected {
    /// When to try again.
    pub retry_after: Duration,
}

/// How a call went, as far as the breaker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The other side answered.
    Success,
    /// The other side is unwell.
    Failure,
    /// Nothing was learned: the call was never made, or the caller went away early.
    Unknown,
}

/// Told of every change of state.
pub type Observer = Arc<dyn Fn(State) + Send + Sync>;

/// See the module.
pub struct Breaker {
    policy: Policy,
    observer: Observer,
    inner: Mutex<Inner>,
}

struct Inner {
    phase: Phase,
    hold: Hold,
    /// Moves on with every change of state: an outcome of an earlier one no longer counts.
    epoch: u64,
    /// The last wait, doubled when probes fail.
    wait: Duration,
}

enum Phase {
    Closed { in_a_row: u32, window: Window },
    Open { until: Instant },
    HalfOpen { out: u32, good: u32 },
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Breaker").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: Policy, observer: Observer) -> Arc<Self> {
        let phase = Phase::Closed { in_a_row: 0, window: Window::new(Instant::now()) };
        let inner = Inner { phase, hold: Hold::Auto, epoch: 0, wait: policy.recovery };
        Arc::new(Self { policy, observer, inner: Mutex::new(inner) })
    }

    /// What it does with a call now.
    pub fn state(&self) -> State {
        let inner = self.inner.lock();
        match (inner.hold, &inner.phase) {
            (Hold::Open, _) => State::Open,
            (Hold::Closed, _) | (Hold::Auto, Phase::Closed { .. }) => State::Closed,
            (Hold::Auto, Phase::Open { .. }) => State::Open,
            (Hold::Auto, Phase::HalfOpen { .. }) => State::HalfOpen,
        }
    }

    /// Sets or ends an operator's hold. Ending it starts again from closed.
    pub fn hold(&self, hold: Hold) {
        {
            let mut inner = self.inner.lock();
            inner.hold = hold;
            inner.epoch += 1;
            inner.wait = self.policy.recovery;
            inner.phase = Phase::Closed { in_a_row: 0, window: Window::new(Instant::now()) };
        }
        (self.observer)(self.state());
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// [`Rejected`] when open, or when half-open and every probe is under way.
    pub fn acquire(self: &Arc<Self>) -> Result<Permit, Rejected> {
        let now = Instant::now();
        let mut changed = None;
        let admitted = {
            let mut inner = self.inner.lock();
            if inner.hold == Hold::Open {
                return Err(Rejected { retry_after: self.policy.recovery });
            }
            if inner.hold == Hold::Closed || !self.policy.enabled {
                return Ok(Permit { breaker: None, begun: now, epoch: 0 });
            }
            if let Phase::Open { until } = inner.phase {
                if now < until {
                    return Err(Rejected { retry_after: until - now });
                }
                inner.phase = Phase::HalfOpen { out: 0, good: 0 };
                inner.epoch += 1;
                changed = Some(State::HalfOpen);
            }
            let epoch = inner.epoch;
            match &mut inner.phase {
                Phase::HalfOpen { out, good } if *out + *good >= self.policy.probes => {
                    Err(Rejected { retry_after: self.policy.slow_call })
                }
                Phase::HalfOpen { out, .. } => {
                    *out += 1;
                    Ok(epoch)
                }
                _ => Ok(epoch),
            }
        };
        if let Some(state) = changed {
            (self.observer)(state);
        }
        let epoch = admitted?;
        Ok(Permit { breaker: Some(Arc::clone(self)), begun: now, epoch })
    }

    fn record(&self, epoch: u64, begun: Instant, outcome: Outcome) {
        let now = Instant::now();
        let slow = now - begun >= self.policy.slow_call;
        let mut inner = self.inner.lock();
        if inner.epoch != epoch {
            return;
        }
        // A caller that waited that long before it went away has learned something after all.
        let outcome = if outcome == Outcome::Unknown && slow { Outcome::Failure } else { outcome };
        let next = match &mut inner.phase {
            Phase::Closed { in_a_row, window } => {
                match outcome {
                    Outcome::Unknown => return,
                    Outcome::Success => *in_a_row = 0,
                    Outcome::Failure => *in_a_row += 1,
                }
                window.record(now, outcome == Outcome::Failure || slow);
                let (calls, bad) = window.totals(now);
                let mostly_bad = calls >= self.policy.minimum_calls
                    && f64::from(bad) >= self.policy.failure_share * f64::from(calls);
                (*in_a_row >= self.policy.failure_threshold || mostly_bad).then_some(State::Open)
            }
            Phase::HalfOpen { out, good } => {
                *out = out.saturating_sub(1);
                match outcome {
                    Outcome::Unknown => None,
                    Outcome::Failure => Some(State::Open),
                    Outcome::Success => {
                        *good += 1;
                        (*good >= self.policy.probes).then_some(State::Closed)
                    }
                }
            }
            Phase::Open { .. } => None,
        };
        match next {
            Some(State::Open) => {
                let again = matches!(inner.phase, Phase::HalfOpen { .. });
                let wait = if again { inner.wait.saturating_mul(2) } else { self.policy.recovery };
                inner.wait = wait.min(LONGEST_WAIT);
                // Never shorter than promised, up to a tenth longer.
                let until = now + inner.wait.mul_f64(1.0 + 0.1 * (self.policy.jitter)());
                inner.phase = Phase::Open { until };
            }
            Some(State::Closed) => {
                inner.wait = self.policy.recovery;
                inner.phase = Phase::Closed { in_a_row: 0, window: Window::new(now) };
            }
            _ => return,
        }
        inner.epoch += 1;
        drop(inner);
        if let Some(state) = next {
            (self.observer)(state);
        }
    }
}

/// Permission for one call. Give it the outcome; dropped without one, it counts as unknown.
#[derive(Debug)]
#[must_use = "a permit that is dropped at once records nothing"]
pub struct Permit {
    /// `None` once recorded, or when the breaker was bypassed.
    breaker: Option<Arc<Breaker>>,
    begun: Instant,
    epoch: u64,
}

impl Permit {
    /// Records how the call went.
    pub fn record(mut self, outcome: Outcome) {
        if let Some(breaker) = self.breaker.take() {
            breaker.record(self.epoch, self.begun, outcome);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take() {
            breaker.record(self.epoch, self.begun, Outcome::Unknown);
        }
    }
}
