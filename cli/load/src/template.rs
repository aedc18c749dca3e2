//! Texts with holes: `{{name}}`, `{{uuid}}`, `{{seq}}` and `{{secret:NAME}}`.
//!
//! A [`Template`] is what the profile says. Bound to the values of a run it becomes a [`Pattern`], whose only holes
//! are those that differ from request to request.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mlctl_core::secret::Secret;
use rand::RngCore;

/// Where a value is put, and so how it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// As it is: a header's value.
    Plain,
    /// Percent-encoded: a part of a path or query.
    Path,
    /// Inside the quotes of a JSON string.
    Json,
}

/// What the holes of a run are filled with.
#[derive(Clone, Default)]
pub(crate) struct Values {
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(String),
    Variable(String),
    Secret(String),
    Uuid,
    Sequence,
}

/// A text with holes, as the profile says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    place: Place,
    segments: Vec<Segment>,
}

/// A text that is not a template, or a hole that nothing fills.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TemplateError {
    #[error("`{{{{` without `}}}}` in `{0}`")]
    Open(String),
    #[error("`{{{{{0}}}}}` is none of {{{{name}}}}, {{{{uuid}}}}, {{{{seq}}}} and {{{{secret:NAME}}}}")]
    Word(String),
    #[error("nothing sets `{{{{{0}}}}}`: save it in an earlier setup request")]
    Variable(String),
    #[error("there is no secret `{0}`")]
    Secret(String),
}

impl Template {
    /// Reads a text.
    pub(crate) fn parse(text: &str, place: Place) -> Result<Self, TemplateError> {
        let mut template = Self { place, segments: Vec::new() };
        template.push_text_with_holes(text)?;
        Ok(template)
    }

    /// Reads a JSON value whose strings may have holes.
    pub(crate) fn of_json(value: &serde_json::Value) -> Result<Self, TemplateError> {
        let mut template = Self { place: Place::Json, segments: Vec::new() };
        template.push_json(value)?;
        Ok(template)
    }

    fn push_json(&mut self, value: &serde_json::Value) -> Result<(), TemplateError> {
        match value {
            serde_json::Value::Object(map) => {
                for (index, (key, value)) in map.iter().enumerate() {
                    self.push_text(if index == 0 { "{" } else { "," });
                    self.push_text(&serde_json::Value::from(key.as_str()).to_string());
                    self.push_text(":");
                    self.push_json(value)?;
                }
                self.push_text(if map.is_empty() { "{}" } else { "}" });
            }
            serde_json::Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    self.push_text(if index == 0 { "[" } else { "," });
                    self.push_json(value)?;
                }
                self.push_text(if list.is_empty() { "[]" } else { "]" });
            }
            serde_json::Value::String(text) => {
                self.push_text("\"");
                self.push_text_with_holes(text)?;
                self.push_text("\"");
            }
            scalar => self.push_text(&scalar.to_string()),
        }
        Ok(())
    }

    fn push_text_with_holes(&mut self, text: &str) -> Result<(), TemplateError> {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (word, tail) = after.split_once("}}").ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            self.push_literal(before);
            self.segments.push(hole(word)?);
            rest = tail;
        }
        self.push_literal(rest);
        Ok(())
    }

    /// Adds text that the profile's author wrote: as it is in paths, escaped inside JSON.
    fn push_literal(&mut self, text: &str) {
        let text = if self.place == Place::Json { json_inside(text) } else { text.to_owned() };
        self.push_text(&text);
    }

    fn push_text(&mut self, text: &str) {
        match self.segments.last_mut() {
            Some(Segment::Text(last)) => last.push_str(text),
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }

    /// Returns the names of the variables in it.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Returns the names of the secrets in it.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Secret(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Fills in what is the same for the whole run.
    pub(crate) fn bind(&self, values: &Values) -> Result<Pattern, TemplateError> {
        let mut parts: Vec<Part> = Vec::new();
        let text = |parts: &mut Vec<Part>, piece: &str| match parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(piece),
            _ => parts.push(Part::Text(piece.to_owned())),
        };
        for segment in &self.segments {
            match segment {
                Segment::Text(piece) => text(&mut parts, piece),
                Segment::Variable(name) => {
                    let value =
                        values.variables.get(name).ok_or_else(|| TemplateError::Variable(name.clone()))?;
                    text(&mut parts, &written(value, self.place));
                }
                Segment::Secret(name) => {
                    let value =
                        values.secrets.get(name).ok_or_else(|| TemplateError::Secret(name.clone()))?;
                    text(&mut parts, &written(value.expose(), self.place));
                }
                Segment::Uuid => parts.push(Part::Uuid),
                Segment::Sequence => parts.push(Part::Sequence),
            }
        }
        Ok(Pattern { parts })
    }
}

fn hole(word: &str) -> Result<Segment, TemplateError> {
    let name = |text: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        !text.is_empty() && text.bytes().all(good)
    };
    match word.trim() {
        "uuid" => Ok(Segment::Uuid),
        "seq" => Ok(Segment::Sequence),
        other => match other.strip_prefix("secret:").map(str::trim) {
            Some(secret) if name(secret) => Ok(Segment::Secret(secret.to_owned())),
            None if name(other) => Ok(Segment::Variable(other.to_owned())),
            _ => Err(TemplateError::Word(word.to_owned())),
        },
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Uuid,
    Sequence,
}

/// A template bound to the values of a run. It may hold secrets, so it has no Debug.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Returns the text when it is the same for every request.
    pub(crate) fn constant(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the text for one request; equal holes of one text differ.
    pub(crate) fn render(&self, sequence: u64, random: &mut dyn RngCore) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Uuid => {
                    let mut bytes = [0; 16];
                    random.fill_bytes(&mut bytes);
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{}", uuid::Builder::from_random_bytes(bytes).into_uuid());
                }
                Part::Sequence => {
                    let _ = write!(text, "{sequence}");
                }
            }
        }
        text
    }
}

fn written(value: &str, place: Place) -> String {
    match place {
        Place::Plain => value.to_owned(),
        Place::Json => json_inside(value),
        Place::Path => {
            let mut text = String::with_capacity(value.len());
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    text.push(char::from(byte));
                } else {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
            text
        }
    }
}

/// Returns a text as it stands between the quotes of a JSON string.
fn json_inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn values() -> Values {
        Values {
            variables: [("id".to_owned(), "a/b \"c\"".to_owned())].into(),
            secrets: [("token".to_owned(), Secret::new("s3cr3t"))].into(),
        }
    }

    fn render(text: &str, place: Place) -> String {
        let pattern = Template::parse(text, place).unwrap().bind(&values()).unwrap();
        pattern.render(7, &mut StdRng::seed_from_u64(1))
    }

    #[test]
    fn values_are_written_as_their_place_wants() {
        assert_eq!(render("Bearer {{secret:token}} {{seq}}", Place::Plain), "Bearer s3cr3t 7");
        assert_eq!(render("/items/{{ id }}?n={{seq}}", Place::Path), "/items/a%2Fb%20%22c%22?n=7");
        let body = Template::of_json(&serde_json::json!({
            "q\"": "<{{id}}>", "n": [1, null, true, "{{seq}}"], "o": {}, "e": []
        }))
        .unwrap();
        let text = body.bind(&values()).unwrap().render(7, &mut StdRng::seed_from_u64(1));
        assert_eq!(text, r#"{"q\"":"<a/b \"c\">","n":[1,null,true,"7"],"o":{},"e":[]}"#);
    }

    #[test]
    fn uuids_differ_within_a_text_and_repeat_with_the_seed() {
        let text = render("{{uuid}} {{uuid}}", Place::Plain);
        let (one, other) = text.split_once(' ').unwrap();
        assert_ne!(one, other);
        assert_eq!(uuid::Uuid::parse_str(one).unwrap().get_version_num(), 4);
        assert_eq!(text, render("{{uuid}} {{uuid}}", Place::Plain));
    }

    #[test]
    fn what_is_no_hole_is_refused() {
        for (text, wanted) in [
            ("a {{b", "`{{` without `}}` in `a {{b`"),
            ("{{}}", "`{{}}` is none of {{name}}, {{uuid}}, {{seq}} and {{secret:NAME}}"),
            ("{{secret:}}", "`{{secret:}}` is none of {{name}}, {{uuid}}, {{seq}} and {{secret:NAME}}"),
            ("{{a b}}", "`{{a b}}` is none of {{name}}, {{uuid}}, {{seq}} and {{secret:NAME}}"),
        ] {
            assert_eq!(Template::parse(text, Place::Plain).unwrap_err().to_string(), wanted);
        }
    }

    #[test]
    fn a_hole_that_nothing_fills_is_named() {
        let bind =
            |text| Template::parse(text, Place::Plain).unwrap().bind(&Values::default()).err().unwrap();
        assert_eq!(bind("{{x}}").to_string(), "nothing sets `{{x}}`: save it in an earlier setup request");
        assert_eq!(bind("{{secret:x}}").to_string(), "there is no secret `x`");
        assert_eq!(
            Template::parse("{{a}}{{uuid}}{{b}}", Place::Path).unwrap().variables().collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
}
