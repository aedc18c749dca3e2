//! Text to [`Node`] tree.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::node::{Entry, Node, Origin, Value};
use super::problem::{KeyPath, Problem, Problems};

/// Far above any file people write; a bound on what a hostile one can cost.
const LARGEST: usize = 1 << 20;
/// Deep enough for every shape, shallow enough for recursion over the tree.
const DEEPEST: usize = 64;

/// Reads one YAML document. `file` is the name used in problems.
///
/// # Errors
/// Everything that is wrong with the text as YAML. Syntax errors hide what follows them, so of those there is
/// one; duplicate keys and features that are not supported are all told.
pub fn read(file: &str, bytes: &[u8]) -> Result<Node, Problems> {
    let file: Arc<str> = file.into();
    let problem = |line, column, message: String| Problem {
        file: Arc::clone(&file),
        line,
        column,
        path: KeyPath::default(),
        message,
        suggestion: None,
    };
    let alone = |line, column, message: String| Problems::from_iter([problem(line, column, message)]);
    if bytes.len() > LARGEST {
        return Err(alone(1, 1, format!("found {} bytes, expected at most {LARGEST}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).map(String::from_utf8_lossy).unwrap_or_default();
        let (line, column) = end_of(&good);
        let byte = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
        alone(
            line,
            column,
            format!("found the byte 0x{byte:02x}, expected UTF-8 text; save the file as UTF-8"),
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err(alone(1, 1, "found an empty file, expected a map of keys".to_owned()));
    }
    let mut builder =
        Builder { file: Arc::clone(&file), open: Vec::new(), root: None, problems: Problems::default() };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    break;
                }
            }
            Err(error) => {
                let at = *error.marker();
                builder.problems.push(syntax_problem(&problem, text, at, error.info()));
                break;
            }
        }
    }
    let root = builder.root.take();
    match root {
        Some(root) if builder.problems.is_empty() => Ok(root),
        None if builder.problems.is_empty() => {
            Err(alone(1, 1, "found no document, expected a map of keys".to_owned()))
        }
        _ => Err(builder.problems),
    }
}

/// Names the usual causes of a syntax error, which the parser's own words seldom do.
fn syntax_problem(
    problem: &impl Fn(usize, usize, String) -> Problem,
    text: &str,
    at: Marker,
    info: &str,
) -> Problem {
    let indentation = |line: &str| line.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t');
    let lines: Vec<&str> = text.lines().collect();
    // The parser often notices on the line after the mistake.
    for number in [at.line(), at.line().saturating_sub(1)] {
        if let Some(column) =
            number.checked_sub(1).and_then(|index| lines.get(index)).and_then(|line| indentation(line))
        {
            return problem(number, column + 1, "found a tab in the indentation, expected spaces".to_owned());
        }
    }
    problem(at.line().max(1), at.col() + 1, format!("not valid YAML: {info}"))
}

/// Line and column right behind `text`.
fn end_of(text: &str) -> (usize, usize) {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// A container whose end has not come yet.
enum Open {
    List { items: Vec<Node>, at: Marker },
    Map { entries: Vec<Entry>, key: Option<(String, Marker)>, at: Marker },
}

struct Builder {
    file: Arc<str>,
    open: Vec<Open>,
    root: Option<Node>,
    problems: Problems,
}

impl Builder {
    /// Takes one event; returns whether to go on.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = span.start;
        match event {
            Event::Alias(_) => {
                self.unsupported(at, "an alias (`*name`)");
                self.add(node(Value::Null, at));
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar { text: text.to_owned(), plain },
                };
                self.scalar(value, text.as_ref(), at);
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                self.key_must_be_text(at, "a list");
                self.open.push(Open::List { items: Vec::new(), at });
            }
            Event::MappingStart(anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                self.key_must_be_text(at, "a map");
                self.open.push(Open::Map { entries: Vec::new(), key: None, at });
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { items, at }) => self.add(node(Value::List(items), at)),
                Some(Open::Map { entries, at, .. }) => self.add(node(Value::Map(entries), at)),
                None => {}
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                self.problem(at, "found a second document, expected one document in a file".to_owned());
                return false;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        if self.open.len() > DEEPEST {
            self.problem(at, format!("found more than {DEEPEST} levels, expected a flatter file"));
            return false;
        }
        true
    }

    fn scalar(&mut self, value: Value, text: &str, at: Marker) {
        if let Some(Open::Map { key: key @ None, entries, .. }) = self.open.last_mut() {
            let first = entries.iter().find(|entry| entry.key == text).map(|entry| entry.line);
            *key = Some((text.to_owned(), at));
            if let Some(line) = first {
                self.problem(
                    at,
                    format!("found the key `{text}` again, expected it once; it stands on line {line} too"),
                );
            } else if text == "<<" {
                self.unsupported(at, "a merge key (`<<`)");
            }
            return;
        }
        self.add(node(value, at));
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, mut value: Node) {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { entries, key, .. }) => {
                let Some((name, at)) = key.take() else {
                    // A key that is not text was told already; an invented one keeps the pairs in step.
                    *key = Some((String::new(), Marker::new(0, value.line, value.column.saturating_sub(1))));
                    return;
                };
                if value.value == Value::Null {
                    // Nothing stands nowhere: the key is where to look.
                    (value.line, value.column) = (at.line(), at.col() + 1);
                }
                // Of a repeated key the first value stays; the file is refused anyway.
                if !entries.iter().any(|entry| entry.key == name) {
                    entries.push(Entry { key: name, line: at.line(), column: at.col() + 1, node: value });
                }
            }
        }
    }

    fn key_must_be_text(&mut self, at: Marker, found: &str) {
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            self.problem(
                at,
                format!("found {found} as a key, expected a text; put braces of a text in quotes"),
            );
        }
    }

    fn plain_only(&mut self, at: Marker, anchor: usize, tag: bool) {
        if anchor != 0 {
            self.unsupported(at, "an anchor (`&name`)");
        }
        if tag {
            self.unsupported(at, "a tag (`!name`)");
        }
    }

    fn unsupported(&mut self, at: Marker, what: &str) {
        self.problem(at, format!("found {what}, expected plain data; write the value out"));
    }

    fn problem(&mut self, at: Marker, message: String) {
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line: at.line(),
            column: at.col() + 1,
            path: KeyPath::default(),
            message,
            suggestion: None,
        });
    }
}

fn node(value: Value, at: Marker) -> Node {
    Node { value, line: at.line(), column: at.col() + 1, origin: Origin::File }
}
