//! Reads Prometheus' text exposition format, as far as a gate needs it: which families there are and their samples.

use std::collections::{BTreeMap, BTreeSet};

/// One sample of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its full name, `_bucket`, `_sum` and `_count` included.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// Returns the samples of an exposition; lines that are no samples are passed over, as scrapers do.
#[must_use]
pub fn samples(text: &str) -> Vec<Sample> {
    text.lines().filter_map(sample).collect()
}

/// Returns which of the wanted series are missing from the samples.
///
/// A histogram is wanted by its base name and there when its `_bucket` or `_count` series is.
#[must_use]
pub fn missing<'a>(wanted: impl IntoIterator<Item = &'a str>, samples: &[Sample]) -> Vec<String> {
    let names: BTreeSet<&str> = samples.iter().map(|s| s.name.as_str()).collect();
    wanted
        .into_iter()
        .filter(|name| {
            !names.contains(name)
                && !["_bucket", "_count"]
                    .iter()
                    .any(|suffix| names.contains(format!("{name}{suffix}").as_str()))
        })
        .map(str::to_owned)
        .collect()
}

fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(name_end);
    if name.is_empty() {
        return None;
    }
    let (labels, rest) =
        if let Some(inside) = rest.strip_prefix('{') { labels(inside)? } else { (BTreeMap::new(), rest) };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Parses up to and with the closing brace; returns the labels and what follows.
fn labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once('=')?;
        let mut characters = after.trim_start().strip_prefix('"')?.char_indices();
        let quoted = after.trim_start().get(1..)?;
        let mut value = String::new();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.trim().to_owned(), value);
        rest = quoted.get(end..)?.trim_start().trim_start_matches(['"', ',']).trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# HELP http_requests How many.
# TYPE http_requests counter
http_requests_total{route="/a",status="2xx"} 12
http_requests_total{route="say \"hi\", all",status="5xx"} 0 1700000000
http_request_duration_seconds_bucket{le="0.5"} 3
http_request_duration_seconds_bucket{le="+Inf"} 3
up 1
temperature -1.5e3
not a sample
"#;

    #[test]
    fn it_reads_names_labels_and_values() {
        let samples = samples(TEXT);
        assert_eq!(samples.len(), 6);
        assert_eq!(samples[0].labels["route"], "/a");
        assert_eq!(samples[1].labels["route"], "say \"hi\", all");
        assert_eq!(samples[1].labels["status"], "5xx");
        assert!((samples[0].value - 12.0).abs() < f64::EPSILON);
        assert!((samples[5].value + 1500.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_histogram_is_there_by_its_base_name() {
        let samples = samples(TEXT);
        let missing =
            missing(["up", "http_requests_total", "http_request_duration_seconds", "absent"], &samples);
        assert_eq!(missing, ["absent"]);
    }
}
