//! Placeholders in environment values and commands: `{port}`, `{metrics_port}`, `{addr:SERVICE}`, `{data}`,
//! `{file:NAME}`. A brace that is meant stands twice: `{{`, `}}`.
//!
//! Only a target knows the values; here is what they are called and how a text is taken apart.

use std::fmt;
use std::str::FromStr;

use crate::yaml::{did_you_mean, shown};

/// Files a target renders from the system and keeps current for its services.
pub const RENDERED_FILES: &[&str] = &["routes.json"];

/// Something a target fills in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// `{port}`: the port this replica listens on.
    Port,
    /// `{metrics_port}`: the port this replica serves its metrics on.
    MetricsPort,
    /// `{addr:SERVICE}`: host and port another service is reached on.
    Addr(String),
    /// `{data}`: the folder the target keeps the system's data in. A variable that holds it is left out where
    /// there is no such folder.
    Data,
    /// `{file:NAME}`: path of a file the target renders; see [`RENDERED_FILES`].
    File(String),
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("{port}"),
            Self::MetricsPort => f.write_str("{metrics_port}"),
            Self::Addr(service) => write!(f, "{{addr:{service}}}"),
            Self::Data => f.write_str("{data}"),
            Self::File(name) => write!(f, "{{file:{name}}}"),
        }
    }
}

/// A text with placeholders, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// A text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other half.
    #[error(
        "found a single `{0}`, expected a placeholder such as {{port}}; write `{0}{0}` for the brace itself"
    )]
    Brace(char),
    /// Nobody knows this placeholder.
    #[error(
        "unknown placeholder `{{{}}}`, expected {{port}}, {{metrics_port}}, {{addr:SERVICE}}, {{data}} or {{file:NAME}}",
        shown(found)
    )]
    Unknown {
        /// What stood between the braces.
        found: String,
        /// What was probably meant, with its braces.
        suggestion: Option<String>,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(inner) = from.strip_prefix('{') {
                let (name, after) = inner.split_once('}').ok_or(TemplateError::Brace('{'))?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Placeholder(placeholder(name)?));
                rest = after;
            } else {
                return Err(TemplateError::Brace('}'));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

fn placeholder(name: &str) -> Result<Placeholder, TemplateError> {
    match name.split_once(':') {
        None if name == "port" => Ok(Placeholder::Port),
        None if name == "metrics_port" => Ok(Placeholder::MetricsPort),
        None if name == "data" => Ok(Placeholder::Data),
        Some(("addr", service)) if !service.is_empty() => Ok(Placeholder::Addr(service.to_owned())),
        Some(("file", file)) if !file.is_empty() => Ok(Placeholder::File(file.to_owned())),
        _ => {
            let word = name.split(':').next().unwrap_or(name);
            let suggestion =
                did_you_mean(word, ["port", "metrics_port", "data", "addr", "file"]).map(|meant| {
                    match (meant.as_str(), name.split_once(':')) {
                        ("addr", argument) => {
                            format!("{{addr:{}}}", argument.map_or("SERVICE", |(_, rest)| rest))
                        }
                        ("file", argument) => {
                            format!("{{file:{}}}", argument.map_or("NAME", |(_, rest)| rest))
                        }
                        (meant, _) => format!("{{{meant}}}"),
                    }
                });
            Err(TemplateError::Unknown { found: name.to_owned(), suggestion })
        }
    }
}

impl Template {
    /// Returns the placeholders in order, repeated ones too.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Placeholder(placeholder) => Some(placeholder),
            Part::Text(_) => None,
        })
    }

    /// Returns the text with every placeholder replaced by what `resolve` says.
    ///
    /// # Errors
    /// The first placeholder `resolve` has no value for.
    pub fn render(&self, resolve: impl Fn(&Placeholder) -> Option<String>) -> Result<String, Placeholder> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Placeholder(placeholder) => {
                    text.push_str(&resolve(placeholder).ok_or_else(|| placeholder.clone())?);
                }
            }
        }
        Ok(text)
    }
}

/// Returns the names between `{{` and `}}` of a load template, trimmed; `None` when a brace pair is left open.
///
/// Load templates are filled per request: `{{uuid}}`, `{{seq}}`, `{{secret:NAME}}`, and what setup saved.
pub fn load_variables(text: &str) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once("{{") {
        let (name, after) = from.split_once("}}")?;
        names.push(name.trim());
        rest = after;
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let template: Template = text.parse().map_err(|error: TemplateError| error.to_string())?;
        template
            .render(|placeholder| match placeholder {
                Placeholder::Port => Some("3001".to_owned()),
                Placeholder::Addr(service) => Some(format!("<{service}>")),
                _ => None,
            })
            .map_err(|placeholder| format!("no value for {placeholder}"))
    }

    #[test]
    fn templates_are_filled_or_say_why_not() {
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("", Ok("")),
            ("http://{addr:user}/x{port}", Ok("http://<user>/x3001")),
            ("{{\"a\": {port}}}", Ok("{\"a\": 3001}")),
            ("{data}/x", Err("no value for {data}")),
            ("{file:routes.json}", Err("no value for {file:routes.json}")),
            (
                "{port",
                Err(
                    "found a single `{`, expected a placeholder such as {port}; write `{{` for the brace itself",
                ),
            ),
            (
                "a}b",
                Err(
                    "found a single `}`, expected a placeholder such as {port}; write `}}` for the brace itself",
                ),
            ),
        ] {
            assert_eq!(fill(text), expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_slip_gets_a_suggestion() {
        for (text, expected) in [
            ("{prot}", Some("{port}")),
            ("{metricsport}", Some("{metrics_port}")),
            ("{adr:user}", Some("{addr:user}")),
            ("{addr}", Some("{addr:SERVICE}")),
            ("{colour}", None),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            let TemplateError::Unknown { suggestion, .. } = error else { panic!("{text}: {error}") };
            assert_eq!(suggestion.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn load_variables_are_found() {
        assert_eq!(load_variables("/p/{{id}}?n={{ seq }}"), Some(vec!["id", "seq"]));
        assert_eq!(load_variables("{plain}"), Some(vec![]));
        assert_eq!(load_variables("/p/{{id"), None);
    }
}
