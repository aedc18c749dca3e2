//! Text to [`Node`] tree.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::limit::{DEEPEST, LONGEST_KEY, MOST_ENTRIES, MOST_VALUES};
use super::node::{Entry, Node, Origin, Value, shown};
use super::problem::{KeyPath, Problem, Problems};
use super::syntax::{explain, not_data};
use super::text::{decode, end_of, lines};

/// Reads one YAML document. `file` is the name used in problems.
///
/// # Errors
/// Everything that is wrong with the text as YAML. Syntax errors hide what follows them, so of those there is
/// one; duplicate keys and features that are not supported are all told.
pub fn read(file: &str, bytes: &[u8]) -> Result<Node, Problems> {
    let file: Arc<str> = file.into();
    let mut builder = Builder {
        file: Arc::clone(&file),
        open: Vec::new(),
        root: None,
        end: (usize::MAX, 1),
        values: 0,
        problems: Problems::default(),
    };
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(flaw) => {
            builder.tell(flaw.line, flaw.column, flaw.message);
            return Err(builder.problems);
        }
    };
    if lines(text).all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        builder.tell(1, 1, "found an empty file, expected a map of keys".to_owned());
        return Err(builder.problems);
    }
    builder.end = end_of(text);
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    break;
                }
            }
            Err(error) => {
                let mistake = explain(text, *error.marker(), error.info());
                builder.tell(mistake.line, mistake.column, mistake.message);
                break;
            }
        }
    }
    match builder.root.take() {
        Some(root) if builder.problems.is_empty() => Ok(root),
        None if builder.problems.is_empty() => {
            builder.tell(1, 1, "found no document, expected a map of keys".to_owned());
            Err(builder.problems)
        }
        _ => Err(builder.problems),
    }
}

/// A container whose end has not come yet.
enum Open {
    List { items: Vec<Node>, at: Marker },
    Map { entries: Vec<Entry>, key: Option<(String, (usize, usize))>, at: Marker },
}

struct Builder {
    file: Arc<str>,
    open: Vec<Open>,
    root: Option<Node>,
    /// Line and column behind the text: the parser puts its end on a line of its own.
    end: (usize, usize),
    /// Values so far.
    values: usize,
    problems: Problems,
}

impl Builder {
    /// Takes one event; returns whether to go on.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let at = span.start;
        match event {
            Event::Alias(_) => {
                self.problem(at, not_data("an alias (`*name`)", '*'));
                let node = self.node(Value::Null, at);
                self.add(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_only(at, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Scalar { text: text.to_owned(), plain },
                };
                self.scalar(value, &text, at);
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
                Some(Open::List { items, at }) => {
                    let node = self.node(Value::List(items), at);
                    self.add(node);
                }
                Some(Open::Map { entries, at, .. }) => {
                    let node = self.node(Value::Map(entries), at);
                    self.add(node);
                }
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
        self.values += 1;
        if self.values > MOST_VALUES {
            self.problem(at, format!("found more than {MOST_VALUES} values, expected a smaller file"));
            return false;
        }
        let entries = match self.open.last() {
            Some(Open::List { items, .. }) => items.len(),
            Some(Open::Map { entries, .. }) => entries.len(),
            None => 0,
        };
        if entries > MOST_ENTRIES {
            let message =
                format!("found more than {MOST_ENTRIES} entries in one list or map, expected fewer");
            self.problem(at, message);
            return false;
        }
        !self.problems.is_full()
    }

    fn scalar(&mut self, value: Value, text: &str, at: Marker) {
        let place = self.place(at);
        if let Some(Open::Map { key: key @ None, entries, .. }) = self.open.last_mut() {
            let first = entries.iter().find(|entry| entry.key == text).map(|entry| entry.line);
            *key = Some((text.chars().take(LONGEST_KEY).collect(), place));
            if let Some(line) = first {
                let text = shown(text);
                self.problem(
                    at,
                    format!("found the key `{text}` again, expected it once; it stands on line {line} too"),
                );
            } else if text == "<<" {
                let message = "found a merge key (`<<`), expected plain data; write the keys out";
                self.problem(at, message.to_owned());
            } else if text.chars().nth(LONGEST_KEY).is_some() {
                let message =
                    format!("found a key of more than {LONGEST_KEY} characters, expected a shorter one");
                self.problem(at, message);
            }
            return;
        }
        let node = self.node(value, at);
        self.add(node);
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, mut value: Node) {
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { entries, key, .. }) => {
                let Some((name, (line, column))) = key.take() else {
                    // A key that is not text was told already; an invented one keeps the pairs in step.
                    *key = Some((String::new(), (value.line, value.column)));
                    return;
                };
                if value.value == Value::Null {
                    // Nothing stands nowhere: the key is where to look.
                    (value.line, value.column) = (line, column);
                }
                // Of a repeated key the first value stays; the file is refused anyway.
                if !entries.iter().any(|entry| entry.key == name) {
                    entries.push(Entry { key: name, line, column, node: value });
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

    /// Line and column of a place of the parser, whose end of the text is a line of its own.
    fn place(&self, at: Marker) -> (usize, usize) {
        (at.line(), at.col() + 1).min(self.end)
    }

    fn node(&self, value: Value, at: Marker) -> Node {
        let (line, column) = self.place(at);
        Node { value, line, column, origin: Origin::File }
    }

    fn plain_only(&mut self, at: Marker, anchor: usize, tag: bool) {
        if anchor != 0 {
            self.problem(at, not_data("an anchor (`&name`)", '&'));
        }
        if tag {
            self.problem(at, not_data("a tag (`!name`)", '!'));
        }
    }

    fn problem(&mut self, at: Marker, message: String) {
        self.tell(at.line(), at.col() + 1, message);
    }

    fn tell(&mut self, line: usize, column: usize, message: String) {
        let (line, column) = (line, column).min(self.end);
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line,
            column,
            path: KeyPath::default(),
            message,
            suggestion: None,
        });
    }
}
