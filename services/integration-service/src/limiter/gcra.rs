//! One limit as arithmetic: the generic cell rate algorithm in whole microseconds.
//!
//! In any window W at most burst + rate x W calls pass, so a limit of L per rolling hour needs rate + burst <= L
//! per hour. A plain "L per hour with burst L" lets nearly 2 L pass in the hour after an idle one.

/// Microseconds of an hour, the window of MercadoLibre's contract.
pub const HOUR_US: i64 = 3_600_000_000;

/// How strictly the hourly limits are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Close to the whole limit.
    Normal,
    /// Four fifths of it with a small burst: the emergency setting.
    Conservative,
}

impl Mode {
    /// The word of `RATE_LIMIT_MODE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Conservative => "conservative",
        }
    }
}

/// A limit per rolling window, split into a steady rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls allowed in any rolling window.
    pub limit: u32,
    /// Microseconds of the window.
    pub window_us: i64,
    /// Calls that may leave at once after silence.
    pub burst: u32,
    /// Microseconds between calls at the steady rate, rounded up: never more than the rate.
    pub interval_us: i64,
}

impl Rate {
    /// Splits `limit` (at least 2): `share` of it as burst when normal, so 45,000/45 = 1,000 of the ML limit.
    pub fn new(limit: u32, share: u32, mode: Mode, window_us: i64) -> Self {
        let limit = limit.max(2);
        let (burst, steady) = match mode {
            Mode::Normal => {
                let burst = (limit / share).clamp(1, limit - 1);
                (burst, limit - burst)
            }
            // 36,000/h and 600 at once of a limit of 45,000.
            Mode::Conservative => {
                let burst = (limit / 75).clamp(1, limit - 1);
                let steady = (u64::from(limit) * 4 / 5).max(1);
                (burst, u32::try_from(steady).unwrap_or(limit).min(limit - burst))
            }
        };
        Self { limit, window_us, burst, interval_us: interval(window_us, steady) }
    }

    /// The same limit for one of `replicas` processes that cannot see each other. All of them together are never
    /// faster than the whole, so that a window half before and half after they lost sight holds no more either.
    pub fn share_of(self, replicas: u32, mode: Mode) -> Self {
        let replicas = replicas.max(1);
        let share = Self::new(self.limit / replicas, (self.limit / self.burst).max(1), mode, self.window_us);
        let interval_us = share.interval_us.max(self.interval_us.saturating_mul(i64::from(replicas)));
        Self { interval_us, ..share }
    }
}

/// Microseconds between calls, rounded up.
fn interval(window_us: i64, steady: u32) -> i64 {
    let steady = i64::from(steady);
    window_us.div_euclid(steady) + i64::from(window_us % steady != 0)
}

/// State of one limit; zero is a limit never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When the calls granted so far are paid for, in microseconds since the Unix epoch.
    pub tat_us: i64,
    /// The window (since the epoch) that `current` counts.
    pub window: i64,
    /// Calls granted in that window.
    pub current: u32,
    /// Calls granted in the window before.
    pub previous: u32,
}

impl Bucket {
    /// Takes one call, leaving `reserve` calls of the burst for others; the new state, or how long to wait.
    ///
    /// # Errors
    /// Microseconds until the call could pass.
    pub fn take(self, rate: Rate, reserve: u32, now_us: i64) -> Result<Self, i64> {
        let usable = i64::from(rate.burst.saturating_sub(reserve).max(1));
        let start = self.tat_us.max(now_us);
        let tat_us = start + rate.interval_us;
        let room = now_us + usable * rate.interval_us;
        if tat_us > room {
            return Err(tat_us - room);
        }
        let mut next = self.rolled(rate, now_us);
        next.tat_us = tat_us;
        next.current = next.current.saturating_add(1);
        Ok(next)
    }

    /// The bucket of which nothing was known at `since_us`: not full, as one never used, but empty, because its calls
    /// may all have been granted just before. It fills at the steady rate from there.
    #[must_use]
    pub fn empty_at(self, since_us: i64, rate: Rate) -> Self {
        let tat_us = self.tat_us.max(since_us + i64::from(rate.burst) * rate.interval_us);
        Self { tat_us, ..self }
    }

    /// The bucket after `calls` that were granted without asking it.
    #[must_use]
    pub fn charged(self, rate: Rate, calls: u32, now_us: i64) -> Self {
        let mut next = self.rolled(rate, now_us);
        next.tat_us = self.tat_us.max(now_us) + i64::from(calls) * rate.interval_us;
        next.current = next.current.saturating_add(calls);
        next
    }

    /// Share of the limit in use, 0 to 1: this window's calls and what still counts of the last window's.
    pub fn utilization(self, rate: Rate, now_us: i64) -> f64 {
        let rolled = self.rolled(rate, now_us);
        #[expect(clippy::cast_precision_loss, reason = "a fraction of a window for display")]
        let gone = now_us.rem_euclid(rate.window_us) as f64 / rate.window_us as f64;
        let used = f64::from(rolled.current) + f64::from(rolled.previous) * (1.0 - gone);
        (used / f64::from(rate.limit)).min(1.0)
    }

    fn rolled(self, rate: Rate, now_us: i64) -> Self {
        let window = now_us.div_euclid(rate.window_us);
        match window - self.window {
            // A clock that went back keeps the newer count.
            ..=0 => self,
            1 => Self { window, previous: self.current, current: 0, ..self },
            _ => Self { window, previous: 0, current: 0, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_planned_limits_split_as_researched() {
        let ml = Rate::new(45_000, 45, Mode::Normal, HOUR_US);
        assert_eq!((ml.burst, HOUR_US / ml.interval_us), (1_000, 43_999));
        let careful = Rate::new(45_000, 45, Mode::Conservative, HOUR_US);
        assert_eq!((careful.burst, careful.interval_us), (600, 100_000));
        let user = Rate::new(5_000, 10, Mode::Normal, HOUR_US);
        assert_eq!((user.burst, user.interval_us), (500, 800_000));
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_steady_rate() {
        let rate = Rate::new(100, 10, Mode::Normal, HOUR_US);
        let mut bucket = Bucket::default();
        for call in 0..10 {
            bucket = bucket.take(rate, 0, 1_000).unwrap_or_else(|_| panic!("call {call}"));
        }
        assert_eq!(bucket.take(rate, 0, 1_000), Err(rate.interval_us));
        assert!(bucket.take(rate, 0, 1_000 + rate.interval_us).is_ok());
    }

    #[test]
    fn a_reserve_is_left_for_those_who_have_none() {
        let rate = Rate::new(100, 10, Mode::Normal, HOUR_US);
        let mut bucket = Bucket::default();
        for _ in 0..8 {
            bucket = bucket.take(rate, 2, 0).unwrap();
        }
        assert!(bucket.take(rate, 2, 0).is_err());
        assert!(bucket.take(rate, 0, 0).is_ok());
    }

    #[test]
    fn utilization_fades_over_the_following_hour() {
        let rate = Rate::new(100, 2, Mode::Normal, HOUR_US);
        let mut bucket = Bucket::default();
        for _ in 0..50 {
            bucket = bucket.take(rate, 0, 0).unwrap();
        }
        let at = |now_us| (bucket.utilization(rate, now_us) * 100.0).round();
        assert_eq!((at(0), at(HOUR_US), at(HOUR_US * 3 / 2), at(HOUR_US * 2)), (50.0, 50.0, 25.0, 0.0));
    }

    #[test]
    fn a_share_divides_the_limit() {
        let rate = Rate::new(45_000, 45, Mode::Normal, HOUR_US).share_of(10, Mode::Normal);
        assert_eq!((rate.limit, rate.burst), (4_500, 100));
        assert_eq!(Rate::new(5, 10, Mode::Normal, HOUR_US).share_of(10, Mode::Normal).limit, 2);
    }

    proptest! {
        /// The promise itself: whatever the arrivals, no rolling hour holds more than the limit.
        #[test]
        fn no_rolling_hour_exceeds_the_limit(
            limit in 2..60_u32,
            share in 1..50_u32,
            conservative: bool,
            // Bursts, steady traffic and silences, so that most cases run into the limit again and again.
            gaps in proptest::collection::vec(
                prop_oneof![8 => Just(0_i64), 8 => 1..120_000_000_i64, 1 => 1..HOUR_US * 2],
                200..1_500,
            ),
        ) {
            let mode = if conservative { Mode::Conservative } else { Mode::Normal };
            let rate = Rate::new(limit, share, mode, HOUR_US);
            let (mut now_us, mut bucket, mut granted) = (0, Bucket::default(), std::collections::VecDeque::new());
            for gap in gaps {
                now_us += gap;
                if let Ok(next) = bucket.take(rate, 0, now_us) {
                    bucket = next;
                    granted.push_back(now_us);
                    while granted.front().is_some_and(|first| now_us - first >= HOUR_US) {
                        granted.pop_front();
                    }
                    prop_assert!(granted.len() <= limit as usize, "{} in an hour of {limit}", granted.len());
                }
            }
        }
    }
}
