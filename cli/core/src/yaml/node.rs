//! The tree a YAML file is read into.

use std::sync::Arc;

/// A value with the place it was written at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// Who said so.
    pub origin: Origin,
}

/// A value as written; what a scalar means is up to the shape it is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A text.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// Whether it stood without quotes, so that `true` and `1` may be more than text.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Line of the key, from 1.
    pub line: usize,
    /// Column of the key, from 1.
    pub column: usize,
    /// The value.
    pub node: Node,
}

/// Where an effective value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The file, at the line of the node.
    File,
    /// A profile of the file, at the line of the node.
    Profile(Arc<str>),
    /// Nobody said anything.
    Default,
}

impl Node {
    /// Returns the value under `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// Returns the entry of `key`, when this is a map that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Returns the entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// Returns the items of a list; none for anything else.
    pub fn items(&self) -> &[Self] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// Returns the text of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Value::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }

    /// Returns the text of the scalar under `key`.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    /// Returns what stands here, for "found ..." in a message.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Scalar { text, .. } if text.is_empty() => "an empty text".to_owned(),
            Value::Scalar { text, .. } => format!("`{}`", shown(text)),
            Value::List(items) if items.is_empty() => "an empty list".to_owned(),
            Value::Map(entries) if entries.is_empty() => "an empty map".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// Makes the node that a default text stands for.
    pub(super) fn default_scalar(text: &str, line: usize, column: usize) -> Self {
        Self {
            value: Value::Scalar { text: text.to_owned(), plain: true },
            line,
            column,
            origin: Origin::Default,
        }
    }

    /// Marks this node and all below it as said by `origin`.
    pub fn attribute(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.attribute(origin)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| entry.node.attribute(origin)),
            Value::Null | Value::Scalar { .. } => {}
        }
    }
}

/// Characters of a value that a message repeats.
const SHOWN: usize = 60;

/// Returns a text as a message may repeat it: short, on one line, with characters that nobody sees written out.
pub fn shown(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).collect();
    let end = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("{}{end}", visible(&shown))
}

/// Returns a text on one line, with characters that nobody sees written out.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => visible.push(' '),
            _ if is_unseen(c) => visible.extend(c.escape_unicode()),
            _ => visible.push(c),
        }
    }
    visible
}

/// Spaces of another kind, and characters that have no width or turn the reading direction.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
