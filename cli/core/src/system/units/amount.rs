//! Amounts of the machine and of requests: sizes, processor time, percentages, rates.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, split_number};

const SIZES: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// A number of bytes: binary (`64Mi`) or decimal (`1GB`) units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Makes a size of so many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Unit for ByteSize {
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]+)?(B|[KMGT](B|i|iB))$";
    const EXPECTED: &'static str = "a size such as 64Mi, 1Gi or 1GB";
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        let (number, word) = split_number(text.trim()).ok_or_else(|| wrong.clone())?;
        let word = word.strip_suffix("iB").map_or_else(|| word.to_owned(), |prefix| format!("{prefix}i"));
        let (_, size) = *SIZES.iter().find(|(name, _)| *name == word).ok_or_else(|| wrong.clone())?;
        let bytes = number * size as f64;
        // 2^53: above it a float no longer counts single bytes.
        if bytes > 9_007_199_254_740_992.0 {
            return Err(UnitError::new("a size of at most 8192Ti"));
        }
        if bytes.fract() != 0.0 {
            return Err(UnitError::new("a size of whole bytes, such as 64Mi, 1Gi or 1GB"));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        match SIZES.iter().find(|(_, size)| self.0.is_multiple_of(*size)) {
            Some((name, size)) => write!(f, "{}{name}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// Processor time in thousandths of a core: `500m`, `1`, `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(u32);

impl Cpu {
    /// Makes an amount of thousandths of a core.
    pub const fn from_millis(millis: u32) -> Self {
        Self(millis)
    }

    /// Returns thousandths of a core.
    pub const fn millis(self) -> u32 {
        self.0
    }
}

impl Unit for Cpu {
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]+)?m?$";
    const EXPECTED: &'static str = "an amount of processor such as 500m, 0.5 or 2";
}

impl FromStr for Cpu {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        let (number, word) = split_number(text.trim()).ok_or_else(|| wrong.clone())?;
        let millis = match word {
            "m" => number,
            "" => number * 1000.0,
            _ => return Err(wrong),
        };
        let rounded = millis.round();
        if !(1.0..=4_000_000.0).contains(&rounded) || (millis - rounded).abs() > 1e-6 {
            return Err(UnitError::new("an amount of processor from 1m to 4000, in whole thousandths"));
        }
        Ok(Self(rounded as u32))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}", self.0 / 1000) } else { write!(f, "{}m", self.0) }
    }
}

/// A percentage, kept as written: `80%` is 80.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// Makes a percentage from a share: 0.8 is `80%`.
    pub fn from_ratio(ratio: f64) -> Self {
        Self(ratio * 100.0)
    }

    /// Returns the share: `80%` is 0.8.
    pub fn ratio(self) -> f64 {
        self.0 / 100.0
    }
}

impl Unit for Percent {
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]+)?%$";
    const EXPECTED: &'static str = "a percentage such as 80% or 0.1%";
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        match split_number(text.trim()) {
            Some((number, "%")) => Ok(Self(number)),
            _ => Err(wrong),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Unit of time a rate counts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RatePer {
    /// `/s`
    Second,
    /// `/min`
    Minute,
    /// `/h`
    Hour,
}

impl RatePer {
    /// Returns its length in seconds.
    pub const fn seconds(self) -> f64 {
        match self {
            Self::Second => 1.0,
            Self::Minute => 60.0,
            Self::Hour => 3600.0,
        }
    }

    /// Returns it as it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
        }
    }
}

/// So many per time: `250/s`, `500/min`, `45000/h`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    count: f64,
    per: RatePer,
}

impl Rate {
    /// Makes a rate of so many per unit of time.
    pub const fn new(count: f64, per: RatePer) -> Self {
        Self { count, per }
    }

    /// Returns how many per second.
    pub fn per_second(self) -> f64 {
        self.count / self.per.seconds()
    }

    /// Returns the unit of time it counts over.
    pub const fn per(self) -> RatePer {
        self.per
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.per_second().partial_cmp(&other.per_second())
    }
}

impl Unit for Rate {
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]+)?/(s|min|h)$";
    const EXPECTED: &'static str = "a rate such as 250/s, 500/min or 45000/h";
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        let (count, word) = split_number(text.trim()).ok_or_else(|| wrong.clone())?;
        let per = match word {
            "/s" => RatePer::Second,
            "/min" => RatePer::Minute,
            "/h" => RatePer::Hour,
            _ => return Err(wrong),
        };
        Ok(Self { count, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.per.word())
    }
}
