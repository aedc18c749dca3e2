//! Statuses that count as good: `2xx`, `200`, `200,404`.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError};

/// A set of HTTP statuses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expect(Vec<Statuses>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Statuses {
    One(u16),
    Class(u16),
}

impl Expect {
    /// Returns whether `status` counts as good.
    pub fn matches(&self, status: u16) -> bool {
        self.0.iter().any(|each| match each {
            Statuses::One(wanted) => *wanted == status,
            Statuses::Class(digit) => status / 100 == *digit,
        })
    }
}

impl Default for Expect {
    /// Every success: `2xx`.
    fn default() -> Self {
        Self(vec![Statuses::Class(2)])
    }
}

impl Unit for Expect {
    const PATTERN: &'static str = r"^([1-5]xx|[1-5][0-9][0-9])( *, *([1-5]xx|[1-5][0-9][0-9]))*$";
    const EXPECTED: &'static str = "HTTP statuses such as 2xx, 201 or \"200,404\"";
}

impl FromStr for Expect {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let one = |part: &str| {
            let part = part.trim();
            match part.strip_suffix("xx") {
                Some(digit) => {
                    (digit.parse().ok()).filter(|digit| (1..=5).contains(digit)).map(Statuses::Class)
                }
                None => (part.parse().ok()).filter(|code| (100..=599).contains(code)).map(Statuses::One),
            }
        };
        (text.split(',').map(one).collect::<Option<Vec<_>>>()).map(Self).ok_or(UnitError::new(Self::EXPECTED))
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, each) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match each {
                Statuses::One(code) => write!(f, "{code}")?,
                Statuses::Class(digit) => write!(f, "{digit}xx")?,
            }
        }
        Ok(())
    }
}
