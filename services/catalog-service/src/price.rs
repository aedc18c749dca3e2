//! Money without rounding: a price as a whole number of ten-thousandths of its currency's unit.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Ten-thousandths in one unit of a currency.
const SCALE: i64 = 10_000;
/// Decimals that [`SCALE`] can hold.
const DECIMALS: usize = 4;
/// Below 10^11 units, 15 significant digits name every price exactly in a JSON number.
const LIMIT: i64 = 100_000_000_000 * SCALE;

/// A price, 0 to 99,999,999,999.9999, exact to four decimals.
///
/// JSON carries it as a number. Nothing is ever rounded: a fifth decimal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(i64);

/// Why a text is no [`Price`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// Not a plain decimal number.
    #[error("a price is a decimal number such as 19.99")]
    NotDecimal,
    /// Below zero.
    #[error("a price is not negative")]
    Negative,
    /// More than four decimals.
    #[error("a price has at most {DECIMALS} decimals")]
    TooPrecise,
    /// 10^11 or more.
    #[error("a price is below 100000000000")]
    TooLarge,
}

impl Price {
    /// Reads a plain decimal text (`19.99`; no exponent, no grouping).
    ///
    /// # Errors
    /// [`PriceError`] names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        if text.starts_with('-') {
            return Err(PriceError::Negative);
        }
        let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(units) || !digits(decimals) {
            return Err(PriceError::NotDecimal);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > DECIMALS {
            return Err(PriceError::TooPrecise);
        }
        let whole: i64 = units.parse().map_err(|_| PriceError::TooLarge)?;
        let fraction: i64 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| PriceError::NotDecimal)?;
        whole
            .checked_mul(SCALE)
            .and_then(|scaled| scaled.checked_add(fraction))
            .filter(|scaled| *scaled < LIMIT)
            .map(Self)
            .ok_or(PriceError::TooLarge)
    }

    /// The price as a whole number of ten-thousandths, for stores that keep it so.
    #[must_use]
    pub fn ten_thousandths(self) -> i64 {
        self.0
    }

    /// The price of so many ten-thousandths.
    ///
    /// # Errors
    /// [`PriceError`] when it is none.
    pub fn from_ten_thousandths(number: i64) -> Result<Self, PriceError> {
        match number {
            ..0 => Err(PriceError::Negative),
            0..LIMIT => Ok(Self(number)),
            LIMIT.. => Err(PriceError::TooLarge),
        }
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Price {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Price".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "number", "minimum": 0, "exclusiveMaximum": LIMIT / SCALE,
            "description": "At most four decimals.",
        })
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, fraction) = (self.0 / SCALE, self.0 % SCALE);
        if fraction == 0 {
            return write!(f, "{units}");
        }
        let decimals = format!("{fraction:0>DECIMALS$}");
        write!(f, "{units}.{}", decimals.trim_end_matches('0'))
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % SCALE == 0 {
            return serializer.serialize_i64(self.0 / SCALE);
        }
        // Both numbers are exact in a double, so the quotient is the double nearest to the decimal and prints as it.
        serializer.serialize_f64(self.0 as f64 / SCALE as f64)
    }
}

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price as a number, such as 19.99")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Price, E> {
                Price::parse(&value.to_string()).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Price, E> {
                Price::parse(&value.to_string()).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Price, E> {
                // The shortest text that reads back as this double is the decimal the sender wrote.
                Price::parse(&value.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_reads_and_writes_as_the_same_json_number() {
        for text in ["0", "1", "19.99", "0.1", "0.0001", "12345678901.2345", "99999999999.9999", "250000"] {
            let price: Price = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&price).unwrap(), text);
            assert_eq!(price.to_string(), text);
            assert_eq!(Price::from_ten_thousandths(price.ten_thousandths()), Ok(price));
        }
        assert_eq!(Price::from_ten_thousandths(-1), Err(PriceError::Negative));
        assert_eq!(Price::from_ten_thousandths(LIMIT), Err(PriceError::TooLarge));
        assert_eq!(serde_json::from_str::<Price>("100.50").unwrap(), Price::parse("100.5").unwrap());
        assert_eq!(serde_json::from_str::<Price>("1e3").unwrap(), Price::parse("1000").unwrap());
    }

    #[test]
    fn what_is_no_price_is_refused_with_the_broken_rule() {
        for (text, error) in [
            ("-1", PriceError::Negative),
            ("-0.01", PriceError::Negative),
            ("0.00001", PriceError::TooPrecise),
            ("100000000000", PriceError::TooLarge),
            ("99999999999999999999", PriceError::TooLarge),
            ("", PriceError::NotDecimal),
            ("1.", PriceError::NotDecimal),
            (".5", PriceError::NotDecimal),
            ("1,5", PriceError::NotDecimal),
            ("+1", PriceError::NotDecimal),
            ("inf", PriceError::NotDecimal),
        ] {
            assert_eq!(Price::parse(text), Err(error), "{text:?}");
        }
        assert!(serde_json::from_str::<Price>("\"19.99\"").is_err(), "text is no number");
    }
}
