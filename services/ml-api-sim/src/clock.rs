//! The simulator's own time: the system's or a fixed instant, moved forward only by request.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// A clock that tests and operators can move forward without waiting.
#[derive(Debug)]
pub struct Clock {
    fixed_ms: Option<i64>,
    advanced_ms: AtomicI64,
}

impl Clock {
    /// A clock that follows the system's time.
    pub fn system() -> Self {
        Self { fixed_ms: None, advanced_ms: AtomicI64::new(0) }
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it.
    pub fn fixed(start: Timestamp) -> Self {
        Self { fixed_ms: Some(start.as_millisecond()), advanced_ms: AtomicI64::new(0) }
    }

    /// Milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        let base = self.fixed_ms.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        });
        base.saturating_add(self.advanced_ms.load(Ordering::Relaxed))
    }

    /// Moves this clock forward; time never goes back.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.advanced_ms.fetch_add(by, Ordering::Relaxed);
    }
}

/// An instant as MercadoLibre writes it: UTC, three decimals, `Z`.
pub fn text(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let clock = Clock::fixed("2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(text(clock.now_ms()), "2026-01-01T00:00:00.000Z");
        clock.advance(Duration::from_millis(90_500));
        assert_eq!(text(clock.now_ms()), "2026-01-01T00:01:30.500Z");
    }
}
