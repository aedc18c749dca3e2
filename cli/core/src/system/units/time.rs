//! Time spans: `500ms`, `2s`, `15m`, `1h30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Unit, UnitError, split_number};

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Ten years: longer is a typing error, and sums of spans stay far from overflow.
const LONGEST_MS: u64 = 3_650 * 86_400_000;

/// A span of time in whole milliseconds, at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    /// Makes a span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Makes a span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Returns the span as the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Returns the span in whole milliseconds.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns whether the span is empty.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

impl Unit for TimeSpan {
    const PATTERN: &'static str = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$";
    const EXPECTED: &'static str = "a duration such as 500ms, 2s, 15m or 1h30m";
}

impl FromStr for TimeSpan {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        if text == "0" {
            return Ok(Self::default());
        }
        let mut rest = text.trim();
        let (mut total, mut last) = (0.0_f64, u64::MAX);
        if rest.is_empty() {
            return Err(wrong);
        }
        while !rest.is_empty() {
            let (number, tail) = split_number(rest).ok_or_else(|| wrong.clone())?;
            let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (word, after) = tail.split_at(end);
            let (_, millis) = *UNITS.iter().find(|(name, _)| *name == word).ok_or_else(|| wrong.clone())?;
            // `1m2h` or `1s1s` is a slip of the pen, not a duration.
            if millis >= last {
                return Err(wrong);
            }
            last = millis;
            total += number * millis as f64;
            rest = after;
        }
        if total > LONGEST_MS as f64 {
            return Err(UnitError::new("a duration of at most 3650d"));
        }
        if total > 0.0 && total < 1.0 {
            return Err(UnitError::new("a duration of at least 1ms"));
        }
        Ok(Self::from_millis(total.round() as u64))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        if !millis.is_multiple_of(1_000) {
            return write!(f, "{millis}ms");
        }
        let mut rest = millis;
        for (name, size) in UNITS {
            if rest >= size {
                write!(f, "{}{name}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}
