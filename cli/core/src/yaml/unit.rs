//! Values with a unit, as far as a shape needs to know them.

use std::borrow::Cow;

/// A text is not a value of the unit; says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct UnitError {
    /// What would have been right, as the end of a sentence.
    pub expected: Cow<'static, str>,
}

impl UnitError {
    pub(crate) const fn new(expected: &'static str) -> Self {
        Self { expected: Cow::Borrowed(expected) }
    }

    pub(crate) fn because(expected: String) -> Self {
        Self { expected: Cow::Owned(expected) }
    }
}

/// A value written as one text: what the shape tables need to check and describe it.
pub trait Unit: std::str::FromStr<Err = UnitError> + std::fmt::Display {
    /// Regular expression for the JSON Schema; may be wider than the parser.
    const PATTERN: &'static str;
    /// What is expected, as the end of a sentence.
    const EXPECTED: &'static str;
}
