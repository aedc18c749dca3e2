//! Comparisons: a bound (`<500ms`), a threshold on a load result (`login:p95<150ms`), a condition of an alert.

use std::fmt;
use std::str::FromStr;

use super::{Indicator, Quantity, Unit, UnitError};

/// How an actual value is compared with a wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// Longer signs first: `<=` is not `<` followed by rubbish.
const SIGNS: [(&str, Comparison); 6] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Comparison {
    /// Returns whether `actual` compares so with `wanted`. A value that is not a number never does.
    ///
    /// Values that differ by rounding only are equal: a percentage as a share of 1 is seldom exact.
    pub fn holds(self, actual: f64, wanted: f64) -> bool {
        let equal = (actual - wanted).abs() <= 4.0 * f64::EPSILON * wanted.abs();
        match self {
            Self::Less => actual < wanted && !equal,
            Self::LessOrEqual => actual < wanted || equal,
            Self::Greater => actual > wanted && !equal,
            Self::GreaterOrEqual => actual > wanted || equal,
            Self::Equal => equal,
            Self::NotEqual => !equal && !actual.is_nan(),
        }
    }

    /// Returns the sign.
    pub fn sign(self) -> &'static str {
        SIGNS.iter().find(|(_, each)| *each == self).map_or("", |(sign, _)| sign)
    }
}

/// What a value has to be: `<500ms`, `>99.9%`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// How it is compared.
    pub comparison: Comparison,
    /// What it is compared with.
    pub value: Quantity,
}

impl Bound {
    /// Returns whether `actual`, in the base unit of [`Quantity::base`], is within the bound.
    pub fn holds(&self, actual: f64) -> bool {
        self.comparison.holds(actual, self.value.base())
    }
}

impl Unit for Bound {
    const PATTERN: &'static str = r"^(<=?|>=?|==|!=) *[0-9].*$";
    const EXPECTED: &'static str = "a comparison such as <500ms, <0.1% or >10000/min";
}

impl FromStr for Bound {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let (comparison, rest) = (SIGNS.iter())
            .find_map(|(sign, comparison)| text.strip_prefix(sign).map(|rest| (*comparison, rest)))
            .ok_or(UnitError::new(Self::EXPECTED))?;
        let value = rest.parse().map_err(|_| UnitError::new(Self::EXPECTED))?;
        Ok(Self { comparison, value })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.comparison.sign(), self.value)
    }
}

/// What a figure of a load result has to be: `p99<500ms`, `errors<0.1%`, `login:p95<150ms`.
///
/// Measures: `pNN` percentiles, `avg`, `min` and `max` of the latency; `errors` and `success` as shares;
/// `rate` of good answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Name of a mix entry; absent means all requests.
    pub scope: Option<String>,
    /// The figure.
    pub measure: String,
    /// What it has to be.
    pub bound: Bound,
}

impl Threshold {
    /// Returns the percentile (0 to 100) that the measure names, if it names one.
    pub fn percentile(&self) -> Option<f64> {
        percentile(&self.measure)
    }
}

/// Reads `p99` or `p99.9`.
pub(super) fn percentile(measure: &str) -> Option<f64> {
    let digits = measure.strip_prefix('p')?;
    let number = digits.starts_with(|c: char| c.is_ascii_digit()).then(|| digits.parse::<f64>().ok())??;
    (number > 0.0 && number <= 100.0).then_some(number)
}

impl Unit for Threshold {
    const PATTERN: &'static str =
        r"^([A-Za-z0-9_-]+:)?(p[0-9.]+|avg|min|max|errors|success|rate) *(<=?|>=?|==|!=) *[0-9].*$";
    const EXPECTED: &'static str =
        "a threshold such as p99<500ms, errors<0.1%, rate>10000/min or login:p95<150ms";
}

impl FromStr for Threshold {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = UnitError::new(Self::EXPECTED);
        let at = text.find(['<', '>', '=', '!']).ok_or_else(|| wrong.clone())?;
        let (left, right) = text.split_at(at);
        let bound: Bound = right.parse().map_err(|_| wrong.clone())?;
        let (scope, measure) = match left.trim().split_once(':') {
            Some((scope, measure)) if !scope.trim().is_empty() => {
                (Some(scope.trim().to_owned()), measure.trim())
            }
            Some(_) => return Err(wrong),
            None => (None, left.trim()),
        };
        let fits = match (measure, bound.value) {
            ("avg" | "min" | "max", value) => matches!(value, Quantity::Time(_)),
            ("errors" | "success", value) => matches!(value, Quantity::Percent(_)),
            ("rate", value) => matches!(value, Quantity::Rate(_)),
            (other, value) if percentile(other).is_some() => matches!(value, Quantity::Time(_)),
            _ => return Err(wrong),
        };
        if !fits {
            let unit = match measure {
                "errors" | "success" => "a percentage such as 0.1%",
                "rate" => "a rate such as 10000/min",
                _ => "a duration such as 500ms",
            };
            return Err(UnitError::because(format!("`{measure}` to be compared with {unit}")));
        }
        if let ("errors" | "success", Quantity::Percent(share)) = (measure, bound.value)
            && share.ratio() > 1.0
        {
            let expected =
                format!("`{measure}` to be compared with at most 100%: it is a share of the requests");
            return Err(UnitError::because(expected));
        }
        Ok(Self { scope, measure: measure.to_owned(), bound })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scope) = &self.scope {
            write!(f, "{scope}:")?;
        }
        write!(f, "{}{}", self.measure, self.bound)
    }
}

/// What has to be true for an alert: `error_rate > 5%`, `circuit_breaker_state == 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is looked at.
    pub left: Indicator,
    /// What makes it true.
    pub bound: Bound,
}

impl Unit for Condition {
    const PATTERN: &'static str = r"^[a-z].* *(<=?|>=?|==|!=) *[0-9].*$";
    const EXPECTED: &'static str = "a condition such as error_rate > 5% or circuit_breaker_state == 2";
}

impl FromStr for Condition {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(Self::EXPECTED);
        // Labels hold `=` themselves, so the sign is looked for behind the last closing bracket.
        let closed = text.rfind(['}', ')']).map_or(0, |at| at + 1);
        let at = text.get(closed..).and_then(|rest| rest.find(['<', '>', '=', '!'])).ok_or_else(wrong)?;
        let (left, right) = text.split_at(closed + at);
        Ok(Self { left: left.parse().map_err(|_| wrong())?, bound: right.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.bound.comparison.sign(), self.bound.value)
    }
}
