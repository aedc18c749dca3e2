//! Slips of the pen: a text that a rule refuses, written the way the rule wants it.
//!
//! A guess is told only when the rule accepts it, so none can mislead about the format.

use super::limit::LONGEST_WORD;
use super::shape::{Kind, TextRule, UnitRule};

/// Words for units that people write, with the unit they mean.
const UNITS: [(&[&str], &str); 8] = [
    (&["milliseconds", "millisecond", "millis", "msecs", "msec"], "ms"),
    (&["seconds", "second", "secs", "sec"], "s"),
    (&["minutes", "minute", "mins", "min"], "m"),
    (&["hours", "hour", "hrs", "hr"], "h"),
    (&["days", "day"], "d"),
    (&["percent", "pct"], "%"),
    (&["rps", "qps", "req/s", "/sec", "/second", "per second"], "/s"),
    (&["rpm", "req/min", "/m", "/minute", "per minute"], "/min"),
];
/// Signs of other languages.
const SIGNS: [(&str, &str); 5] = [("=<", "<="), ("=>", ">="), ("≤", "<="), ("≥", ">="), ("<>", "!=")];

/// Quotes that word processors put in place of `"` and `'`.
pub(super) const TYPOGRAPHIC: [char; 4] = ['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}'];

/// Returns what was probably meant by a text that is no value of a unit.
pub(super) fn of_unit(text: &str, rule: &UnitRule) -> Option<String> {
    if text.len() > LONGEST_WORD {
        return None;
    }
    let text = text.trim();
    let spaceless: String = text.split_whitespace().collect();
    let mut guesses = vec![spaceless.clone()];
    for (words, unit) in UNITS {
        let ends = words.iter().find_map(|word| text.to_lowercase().strip_suffix(word).map(str::len));
        guesses.extend(ends.and_then(|end| text.get(..end)).map(|number| format!("{}{unit}", number.trim())));
    }
    guesses.extend(SIGNS.iter().filter_map(|(found, meant)| {
        let rest = text.strip_prefix(found)?;
        Some(format!("{meant}{rest}"))
    }));
    guesses.extend(text.strip_prefix('=').map(|rest| format!("=={rest}")));
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        guesses.extend(["s", "/s"].map(|unit| format!("{text}{unit}")));
    }
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        // `1h30` lacks the unit after the last one written.
        let next = match text.rfind(|c: char| c.is_ascii_alphabetic()).and_then(|at| text.get(at..=at)) {
            Some("h") => "m",
            Some("m") => "s",
            _ => "",
        };
        guesses.push(format!("{text}{next}"));
    }
    let number_end = spaceless.find(|c: char| c.is_alphabetic()).unwrap_or(spaceless.len());
    let (number, unit) = spaceless.split_at(number_end);
    guesses.push(format!("{number}{}", unit.to_lowercase()));
    guesses.push(format!("{number}{}", unit.to_uppercase()));
    // `512M` and `512m` of memory, as Kubernetes and shells write it.
    for ending in ["i", "B"].into_iter().filter(|_| !unit.is_empty()) {
        guesses.push(format!("{number}{}{ending}", unit.to_uppercase()));
    }
    guesses.into_iter().find(|guess| guess != text && (rule.canonical)(guess).is_ok())
}

/// Returns what was probably meant by a text that does not follow a rule.
pub(super) fn of_text(text: &str, rule: &TextRule) -> Option<String> {
    if text.is_empty() || text.len() > LONGEST_WORD || text.contains(['\n', '\r']) || text.contains(" - ") {
        return None;
    }
    let bare = text.trim().trim_matches(TYPOGRAPHIC);
    let mut guesses = vec![bare.to_owned(), bare.to_lowercase()];
    if !bare.contains(['/', '\\']) {
        let joined = |with: &str| {
            bare.split(|c: char| c.is_whitespace() || "-_.".contains(c)).collect::<Vec<_>>().join(with)
        };
        guesses.extend([joined("-").to_lowercase(), joined("_").to_uppercase(), joined("_")]);
        guesses.push(joined("_").to_lowercase());
    }
    // The tag of an image, the host of an address, the query of a path.
    guesses.extend(bare.rsplit_once(['@', ':']).map(|(name, _)| name.to_owned()));
    if let Some((_, rest)) = bare.split_once("://") {
        guesses.extend(rest.find('/').and_then(|at| rest.get(at..)).map(str::to_owned));
    } else if !bare.starts_with('.') {
        guesses.extend(bare.split_once(['?', '#']).map(|(path, _)| path.to_owned()));
        guesses.push(format!("/{}", bare.trim_start_matches('\\').replace('\\', "/")));
    }
    guesses.into_iter().find(|guess| guess != text && (rule.accepts)(guess))
}

/// Returns a lone text as the list it was probably meant to be.
pub(super) fn of_list(text: &str, of: &Kind) -> Option<String> {
    if text.is_empty() || text.len() > LONGEST_WORD || text.contains(['"', '\'', '[', ']', '{', '}', '#']) {
        return None;
    }
    let separator = if text.contains(',') { ',' } else { ' ' };
    let items: Vec<_> = text.split(separator).map(str::trim).filter(|item| !item.is_empty()).collect();
    let fits = |item: &&str| match of {
        Kind::Text(rule) => (rule.accepts)(item),
        Kind::Choice(choices) => choices.iter().any(|choice| choice.word == *item),
        Kind::Unit(rule) => (rule.canonical)(item).is_ok(),
        _ => false,
    };
    (!items.is_empty() && items.iter().all(fits)).then(|| format!("[{}]", items.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::shape::TEXT;
    use super::*;
    use crate::system::units::{Bound, ByteSize, Cpu, Percent, Rate, TimeSpan};

    #[test]
    fn units_are_guessed_when_one_fits() {
        let spans = UnitRule::of::<TimeSpan>();
        let sizes = UnitRule::of::<ByteSize>();
        let rates = UnitRule::of::<Rate>();
        for (rule, found, expected) in [
            (&spans, "5", Some("5s")),
            (&spans, "1h30", Some("1h30m")),
            (&spans, "1 second", Some("1s")),
            (&spans, "5min", Some("5m")),
            (&spans, "500MS", Some("500ms")),
            (&spans, "soon", None),
            (&sizes, "1gb", Some("1GB")),
            (&sizes, "512M", Some("512Mi")),
            (&sizes, "512m", Some("512Mi")),
            (&sizes, "64", None),
            (&rates, "250", Some("250/s")),
            (&rates, "250 rps", Some("250/s")),
            (&rates, "250/m", Some("250/min")),
            (&UnitRule::of::<Percent>(), "5 percent", Some("5%")),
            (&UnitRule::of::<Bound>(), "=<1%", Some("<=1%")),
            (&UnitRule::of::<Cpu>(), "500k", None),
        ] {
            assert_eq!(of_unit(found, rule).as_deref(), expected, "{found}");
        }
    }

    #[test]
    fn a_lone_text_becomes_a_list() {
        let of = Kind::Text(&TEXT);
        assert_eq!(of_list("web", &of).as_deref(), Some("[web]"));
        assert_eq!(of_list("a, b", &of).as_deref(), Some("[a, b]"));
        assert_eq!(of_list("web --port 80", &of).as_deref(), Some("[web, --port, 80]"));
        assert_eq!(of_list("sh -c \"x y\"", &of), None);
    }
}
