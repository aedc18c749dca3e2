//! Indicators over metrics: `p99(http_request_duration_seconds)`, `ratio(errors, requests)`, a metric's name.

use std::fmt;
use std::str::FromStr;

use super::bound::percentile;
use super::{Unit, UnitError};

/// A metric by name, possibly narrowed by labels: `requests_total{outcome="ok"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Name of the metric.
    pub name: String,
    /// Labels that have to be equal.
    pub labels: Vec<(String, String)>,
}

/// What is computed over series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// A percentile (0 to 100) of a histogram.
    Percentile(f64),
    /// The increase of the first counter divided by that of the second.
    Ratio,
    /// The increase of a counter per second.
    Rate,
    /// The mean over series.
    Avg,
    /// The largest over series.
    Max,
    /// The sum over series.
    Sum,
}

/// What is measured: a function over one metric (two for `ratio`), or the metric itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Indicator {
    /// Function; absent means the value itself.
    pub function: Option<Function>,
    /// Its arguments, one or (for a ratio) two.
    pub arguments: Vec<Selector>,
}

impl Function {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "ratio" => Self::Ratio,
            "rate" => Self::Rate,
            "avg" => Self::Avg,
            "max" => Self::Max,
            "sum" => Self::Sum,
            other => Self::Percentile(percentile(other)?),
        })
    }

    const fn arity(self) -> usize {
        if matches!(self, Self::Ratio) { 2 } else { 1 }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(number) => write!(f, "p{number}"),
            Self::Ratio => f.write_str("ratio"),
            Self::Rate => f.write_str("rate"),
            Self::Avg => f.write_str("avg"),
            Self::Max => f.write_str("max"),
            Self::Sum => f.write_str("sum"),
        }
    }
}

impl Unit for Indicator {
    const PATTERN: &'static str = r"^[a-z][A-Za-z0-9_.]*(\{.*\}|\(.*\))?$";
    const EXPECTED: &'static str = "a metric's name or a function of it, such as p99(http_request_duration_seconds) or ratio(errors, requests)";
}

impl FromStr for Indicator {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(Self::EXPECTED);
        let text = text.trim();
        let Some(inner) = text.strip_suffix(')') else {
            return Ok(Self { function: None, arguments: vec![selector(text).ok_or_else(wrong)?] });
        };
        let (word, inner) = inner.split_once('(').ok_or_else(wrong)?;
        let function = Function::from_word(word.trim()).ok_or_else(wrong)?;
        let arguments = (split_outside_labels(inner).into_iter())
            .map(selector)
            .collect::<Option<Vec<_>>>()
            .filter(|arguments| arguments.len() == function.arity())
            .ok_or_else(wrong)?;
        Ok(Self { function: Some(function), arguments })
    }
}

impl fmt::Display for Indicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments = self.arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.function {
            Some(function) => write!(f, "{function}({arguments})"),
            None => f.write_str(&arguments),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.labels.is_empty() {
            let labels: Vec<_> =
                self.labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
            write!(f, "{{{}}}", labels.join(","))?;
        }
        Ok(())
    }
}

/// Splits at commas that stand outside `{...}`.
fn split_outside_labels(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn selector(text: &str) -> Option<Selector> {
    let text = text.trim();
    let (name, labels) = match text.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (text, Vec::new()),
    };
    word(name).then(|| Selector { name: name.to_owned(), labels })
}

fn labels(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
            (word(name.trim()) && !value.contains('"')).then(|| (name.trim().to_owned(), value.to_owned()))
        })
        .collect()
}

/// A metric or label name, as Prometheus allows it, without the reserved colon.
fn word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
