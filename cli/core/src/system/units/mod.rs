//! Values with a unit, as people write them: one newtype each, with `FromStr` and `Display`.
//!
//! `Display` gives a text that parses back to the same value. Serialised, each is that text.

mod amount;
mod bound;
mod expect;
mod indicator;
mod quantity;
mod time;

pub use amount::{ByteSize, Cpu, Percent, Rate, RatePer};
pub use bound::{Bound, Comparison, Condition, Threshold};
pub use expect::Expect;
pub use indicator::{Function, Indicator, Selector};
pub use quantity::Quantity;
pub use time::TimeSpan;

use crate::yaml::{Unit, UnitError};

/// Serialises a unit as its text and reads it back by `FromStr`.
macro_rules! text_form {
    ($($name:ty),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

text_form!(TimeSpan, ByteSize, Cpu, Percent, Rate, Quantity, Bound, Threshold, Condition, Indicator, Expect);

/// Above any amount there is; a text of hundreds of digits must not become an infinite one.
const LARGEST_NUMBER: f64 = 1e16;

/// Splits a text into its leading decimal number and the rest, trimmed.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text.get(..end)?.parse::<f64>().ok().filter(|number| *number <= LARGEST_NUMBER)?;
    Some((number, text.get(end..)?.trim_start()))
}

#[cfg(test)]
mod tests;
