//! Rules for texts and units that several tables share.

use crate::system::units::{
    Bound, ByteSize, Condition, Cpu, Expect, Indicator, Quantity, Rate, Threshold, TimeSpan,
};
use crate::yaml::UnitError;
use crate::yaml::shape::{TextRule, UnitRule};

/// A DNS label: what every orchestrator accepts as a name.
pub(crate) static NAME: TextRule = TextRule {
    expected: "a name of small letters, digits and hyphens that starts with a letter, at most 63 long",
    pattern: Some("^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"),
    accepts: |text| {
        text.len() <= 63
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    },
};

/// Name of an environment variable.
pub(crate) static ENV_NAME: TextRule = TextRule {
    expected: "a variable name of capital letters, digits and underscores",
    pattern: Some("^[A-Z_][A-Z0-9_]*$"),
    accepts: |text| {
        text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    },
};

/// Path of a URL.
pub(crate) static URL_PATH: TextRule = TextRule {
    expected: "a path that starts with /, without spaces, `?` or `#`",
    pattern: Some("^/[^\\s?#]*$"),
    accepts: |text| text.starts_with('/') && !text.contains(|c: char| c.is_whitespace() || "?#".contains(c)),
};

/// Path of a URL with a query, possibly with load templates.
pub(super) static REQUEST_PATH: TextRule = TextRule {
    expected: "a path that starts with /, without spaces",
    pattern: Some("^/\\S*$"),
    accepts: |text| text.starts_with('/') && !text.contains(char::is_whitespace),
};

/// A file or folder beside the file.
pub(super) static RELATIVE_PATH: TextRule = TextRule {
    expected: "a path relative to the file, without `..`",
    pattern: None,
    accepts: |text| !text.is_empty() && !text.starts_with('/') && !text.split('/').any(|part| part == ".."),
};

/// An image whose tag is the release's business.
pub(super) static IMAGE: TextRule = TextRule {
    expected: "an image without tag and digest; the release adds them",
    pattern: None,
    accepts: |text| {
        let name = text.rsplit('/').next().unwrap_or_default();
        !name.is_empty() && !name.contains([':', '@']) && !text.contains(char::is_whitespace)
    },
};

/// Name of a metric, as Prometheus allows it.
pub(super) static METRIC: TextRule = TextRule {
    expected: "the name of a metric",
    pattern: Some("^[a-zA-Z_][a-zA-Z0-9_]*$"),
    accepts: |text| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    },
};

/// Name of a request header (a token of RFC 9110, letters, digits and hyphens only).
pub(super) static HEADER: TextRule = TextRule {
    expected: "the name of a header",
    pattern: Some("^[A-Za-z0-9-]+$"),
    accepts: |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
};

/// Name of a template variable that setup saves.
pub(super) static VARIABLE: TextRule = TextRule {
    expected: "a variable name of small letters, digits and underscores",
    pattern: Some("^[a-z][a-z0-9_]*$"),
    accepts: |text| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    },
};

/// A JSON pointer (RFC 6901).
pub(super) static JSON_POINTER: TextRule = TextRule {
    expected: "a JSON pointer such as /user/id",
    pattern: Some("^(/.*)?$"),
    accepts: |text| text.is_empty() || text.starts_with('/'),
};

/// Name of a server's setting.
pub(super) static SETTING_NAME: TextRule = TextRule {
    expected: "the name of a setting",
    pattern: Some("^[A-Za-z][A-Za-z0-9_.-]*$"),
    accepts: |text| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    },
};

/// Value of a server's setting.
pub(super) static SETTING: TextRule =
    TextRule { expected: "a text or a number", pattern: None, accepts: |text| !text.contains('\n') };

pub(crate) static TIME_SPAN: UnitRule = UnitRule::of::<TimeSpan>();
/// A time span that something is done in: none at all would mean never, or without a pause.
pub(crate) static SOME_TIME: UnitRule = UnitRule {
    canonical: |text| match text.parse::<TimeSpan>()? {
        span if span.is_zero() => Err(UnitError::new("a duration above 0, such as 500ms or 2s")),
        span => Ok(span.to_string()),
    },
    ..UnitRule::of::<TimeSpan>()
};
/// A rate at which something is done.
pub(super) static SOME_RATE: UnitRule = UnitRule {
    canonical: |text| match text.parse::<Rate>()? {
        rate if rate.per_second() > 0.0 && rate.per_second() <= 1e6 => Ok(rate.to_string()),
        _ => Err(UnitError::new("a rate above 0 and at most 1000000/s")),
    },
    ..UnitRule::of::<Rate>()
};
pub(super) static BYTE_SIZE: UnitRule = UnitRule::of::<ByteSize>();
pub(super) static CPU: UnitRule = UnitRule::of::<Cpu>();
pub(super) static QUANTITY: UnitRule = UnitRule::of::<Quantity>();
pub(super) static BOUND: UnitRule = UnitRule::of::<Bound>();
pub(super) static THRESHOLD: UnitRule = UnitRule::of::<Threshold>();
pub(super) static CONDITION: UnitRule = UnitRule::of::<Condition>();
pub(super) static INDICATOR: UnitRule = UnitRule::of::<Indicator>();
pub(super) static EXPECT: UnitRule = UnitRule::of::<Expect>();
