//! A value of any unit, where the metric it is compared with decides which.

use std::fmt;
use std::str::FromStr;

use super::{ByteSize, Percent, Rate, TimeSpan, Unit, UnitError, split_number};

/// A value of any unit: `500ms`, `80%`, `500/min`, `64Mi`, `1000`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    /// A plain number.
    Number(f64),
    /// A percentage.
    Percent(Percent),
    /// A time span.
    Time(TimeSpan),
    /// A rate.
    Rate(Rate),
    /// A size.
    Size(ByteSize),
}

impl Quantity {
    /// Returns the value in the unit metrics are in: seconds, a share of 1, per second, bytes, or the number.
    pub fn base(self) -> f64 {
        match self {
            Self::Number(number) => number,
            Self::Percent(percent) => percent.ratio(),
            Self::Time(span) => span.get().as_secs_f64(),
            Self::Rate(rate) => rate.per_second(),
            Self::Size(size) => size.bytes() as f64,
        }
    }
}

impl Unit for Quantity {
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]+)?(%|/(s|min|h)|[A-Za-z0-9.]+)?$";
    const EXPECTED: &'static str = "a value such as 80%, 500ms, 500/min, 64Mi or 1000";
}

impl FromStr for Quantity {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let starts_well = text.starts_with(|c: char| c.is_ascii_digit());
        // Plain digits first, so that `0` is a number and not an empty span.
        if starts_well && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            let number = split_number(text).filter(|(_, rest)| rest.is_empty());
            return number.map(|(number, _)| Self::Number(number)).ok_or(UnitError::new(Self::EXPECTED));
        }
        (text.parse().map(Self::Percent))
            .or_else(|_| text.parse().map(Self::Rate))
            .or_else(|_| text.parse().map(Self::Time))
            .or_else(|_| text.parse().map(Self::Size))
            .map_err(|_: UnitError| UnitError::new(Self::EXPECTED))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Percent(percent) => percent.fmt(f),
            Self::Time(span) => span.fmt(f),
            Self::Rate(rate) => rate.fmt(f),
            Self::Size(size) => size.fmt(f),
        }
    }
}
