//! The validator: a tree against a kind, every difference at once.

use std::sync::Arc;

use super::node::{Entry, Node, Value, shown};
use super::problem::{KeyPath, Problem, Problems, did_you_mean};
use super::shape::{Choice, Group, Kind, OneOf, Presence, Struct, TextRule, UnitRule};
use super::slip;

/// Whether texts may still hold `{{name}}` in place of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholders {
    /// Every scalar has to be what its kind says.
    Filled,
    /// A scalar that holds `{{` is accepted for any kind: it is checked again once it is filled in.
    Open,
}

/// Checks `node` against `kind` and returns every difference. `file` is the name used in problems.
pub fn check(file: &str, node: &Node, kind: &Kind, placeholders: Placeholders) -> Problems {
    let mut checker = Checker { file: file.into(), placeholders, problems: Problems::default() };
    checker.value(node, kind, &KeyPath::default(), false);
    checker.problems
}

struct Checker {
    file: Arc<str>,
    placeholders: Placeholders,
    problems: Problems,
}

impl Checker {
    fn value(&mut self, node: &Node, kind: &Kind, path: &KeyPath, partial: bool) {
        if self.problems.is_full() {
            return;
        }
        if self.placeholders == Placeholders::Open
            && !matches!(kind, Kind::Json)
            && node.text().is_some_and(|text| text.contains("{{"))
        {
            return;
        }
        match kind {
            Kind::Json => {}
            Kind::Bool => self.boolean(node, path),
            Kind::Int { min, max } => self.integer(node, path, *min, *max),
            Kind::Text(rule) => self.text(node, rule, path),
            Kind::Unit(rule) => self.unit(node, rule, path),
            Kind::Choice(choices) => self.choice(node, path, choices),
            Kind::List { of, min } => self.list(node, of, *min, path),
            Kind::Map { key, of } => {
                let Value::Map(entries) = &node.value else {
                    return self.unexpected(node, path, "a map");
                };
                for entry in entries {
                    let below = path.key(&entry.key);
                    if !(key.accepts)(&entry.key) {
                        let name = shown(&entry.key);
                        let message = format!("found the name `{name}`, expected {}", key.expected);
                        let meant = slip::of_text(&entry.key, key);
                        self.problem(entry.line, entry.column, &below, message, meant);
                    }
                    self.value(&entry.node, of, &below, partial);
                }
            }
            Kind::Struct(shape) => self.structure(node, shape, path, partial),
            Kind::Partial(shape) => self.structure(node, shape, path, true),
            Kind::OneOf(one_of) => self.one_of(node, one_of, path),
        }
    }

    fn text(&mut self, node: &Node, rule: &TextRule, path: &KeyPath) {
        match node.text() {
            Some(text) if (rule.accepts)(text) => {}
            Some(text) => {
                let mut message = format!("found {}, expected {}", node.describe(), rule.expected);
                if text.contains(" - ") {
                    message
                        .push_str("; an item that is indented deeper than the one above belongs to its text");
                }
                self.problem_at(node, path, message, slip::of_text(text, rule));
            }
            None => self.unexpected(node, path, rule.expected),
        }
    }

    fn unit(&mut self, node: &Node, rule: &UnitRule, path: &KeyPath) {
        let Some(text) = node.text() else { return self.unexpected(node, path, rule.expected) };
        if let Err(error) = (rule.canonical)(text) {
            let message = format!("found {}, expected {}", node.describe(), error.expected);
            self.problem_at(node, path, message, slip::of_unit(text, rule));
        }
    }

    fn boolean(&mut self, node: &Node, path: &KeyPath) {
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" || text == "false" => {}
            Value::Scalar { text, plain } => {
                let meant = match text.to_lowercase().as_str() {
                    "yes" | "on" | "true" | "y" => Some("true".to_owned()),
                    "no" | "off" | "false" | "n" => Some("false".to_owned()),
                    _ => None,
                };
                let expected = if *plain { "true or false" } else { "true or false without quotes" };
                self.problem_at(node, path, format!("found {}, expected {expected}", node.describe()), meant);
            }
            _ => self.unexpected(node, path, "true or false"),
        }
    }

    fn integer(&mut self, node: &Node, path: &KeyPath, min: i64, max: i64) {
        let number = node.text().and_then(|text| text.parse::<i64>().ok());
        if !number.is_some_and(|number| (min..=max).contains(&number)) {
            let expected = if max >= i64::from(u32::MAX) {
                format!("a whole number of at least {min}")
            } else {
                format!("a whole number from {min} to {max}")
            };
            return self.unexpected(node, path, &expected);
        }
        // A leading zero means octal to some readers of YAML and nothing to others.
        let plain = number.map(|number| number.to_string());
        if plain.as_deref() != node.text() {
            let message =
                format!("found {}, expected a whole number without leading zeros and `+`", node.describe());
            self.problem_at(node, path, message, plain);
        }
    }

    fn choice(&mut self, node: &Node, path: &KeyPath, choices: &[Choice]) {
        if is_one_of(node, choices) {
            return;
        }
        let words: Vec<_> = choices.iter().map(|choice| choice.word).collect();
        let suggestion = node.text().and_then(|text| did_you_mean(text, words.iter().copied()));
        self.problem_at(
            node,
            path,
            format!("found {}, expected {}", node.describe(), or(&words)),
            suggestion,
        );
    }

    fn list(&mut self, node: &Node, of: &Kind, min: usize, path: &KeyPath) {
        let Value::List(items) = &node.value else {
            let meant = node.text().and_then(|text| slip::of_list(text, of));
            return self.problem_at(node, path, format!("found {}, expected a list", node.describe()), meant);
        };
        if items.len() < min {
            let expected =
                if min == 1 { "at least one item".to_owned() } else { format!("at least {min} items") };
            let found =
                if items.is_empty() { "an empty list".to_owned() } else { format!("{} items", items.len()) };
            self.problem_at(node, path, format!("found {found}, expected {expected}"), None);
        }
        for (index, item) in items.iter().enumerate() {
            // A list is replaced as a whole, so its items are whole even in a part.
            self.value(item, of, &path.item(index), false);
        }
    }

    fn structure(&mut self, node: &Node, shape: &Struct, path: &KeyPath, partial: bool) {
        let Value::Map(entries) = &node.value else {
            return self.unexpected(node, path, &example(shape));
        };
        let mut meant = Vec::new();
        for entry in entries {
            let below = path.key(&entry.key);
            if let Some(key) = shape.keys.iter().find(|key| key.name == entry.key) {
                self.value(&entry.node, &key.kind, &below, partial);
            } else if let Some((_, message)) = shape.refused.iter().find(|(name, _)| *name == entry.key) {
                self.problem(entry.line, entry.column, &below, (*message).to_owned(), None);
            } else {
                meant.extend(self.unknown_key(entry, shape, &below));
            }
        }
        if partial {
            return;
        }
        for key in shape.keys.iter().filter(|key| key.presence == Presence::Required) {
            // A key that is there and misspelt was told as that.
            if node.get(key.name).is_none() && !meant.iter().any(|meant| meant == key.name) {
                let message = format!("the key `{}` is missing: {}", key.name, sentence_end(key.doc));
                self.problem_at(node, path, message, None);
            }
        }
        if let Some(group) = shape.one_of
            && !meant.iter().any(|meant| group.keys.contains(&meant.as_str()))
        {
            self.exactly_one(node, group, shape, path);
        }
    }

    /// Tells a key that the shape does not have, and returns the one that was probably meant.
    fn unknown_key(&mut self, entry: &Entry, shape: &Struct, below: &KeyPath) -> Option<String> {
        let names: Vec<_> = shape.keys.iter().map(|key| key.name).collect();
        let suggestion = did_you_mean(&entry.key, names.iter().copied());
        let mut message = format!("unknown key `{}`, expected {}", shown(&entry.key), or(&names));
        if entry.key.starts_with("//") {
            message.push_str("; a comment begins with `#`");
        }
        if entry.node.value == Value::Null && entry.key.contains([')', ']', '"', '(']) {
            message.push_str("; in braces a comma ends a value: put the text before it in quotes");
        }
        self.problem(entry.line, entry.column, below, message, suggestion.clone());
        suggestion
    }

    fn exactly_one(&mut self, node: &Node, group: &Group, shape: &Struct, path: &KeyPath) {
        let found: Vec<_> =
            node.entries().iter().filter(|entry| group.keys.contains(&entry.key.as_str())).collect();
        let refused =
            node.entries().iter().any(|entry| shape.refused.iter().any(|(name, _)| *name == entry.key));
        match found.as_slice() {
            [_] => {}
            [] if refused => {}
            [] => {
                let message =
                    format!("found no {noun}, expected one of {}", or(group.keys), noun = group.noun);
                self.problem_at(node, path, message, None);
            }
            [first, more @ ..] => {
                for entry in more {
                    let message =
                        format!("found a second {} besides `{}`, expected one", group.noun, first.key);
                    self.problem(entry.line, entry.column, &path.key(&entry.key), message, None);
                }
            }
        }
    }

    fn one_of(&mut self, node: &Node, one_of: &OneOf, path: &KeyPath) {
        match pick(node, one_of) {
            // One word or a list: both are told, also where a word was found.
            Some(Kind::Choice(choices)) if !is_one_of(node, choices) => {
                let of = one_of.forms.iter().find_map(|form| match form {
                    Kind::List { of, .. } => Some(*of),
                    _ => None,
                });
                let near = |text: &str| did_you_mean(text, choices.iter().map(|choice| choice.word));
                let meant = node.text().and_then(|text| near(text).or_else(|| slip::of_list(text, of?)));
                let message = format!("found {}, expected {}", node.describe(), one_of.expected);
                self.problem_at(node, path, message, meant);
            }
            Some(form) => self.value(node, form, path, false),
            None => self.unexpected(node, path, one_of.expected),
        }
    }

    fn unexpected(&mut self, node: &Node, path: &KeyPath, expected: &str) {
        let mut message = format!("found {}, expected {expected}", node.describe());
        if matches!(node.value, Value::Map(_)) && expected.starts_with("a text") {
            message.push_str("; braces of a text need quotes");
        }
        self.problem_at(node, path, message, None);
    }

    fn problem_at(&mut self, node: &Node, path: &KeyPath, mut message: String, suggestion: Option<String>) {
        if node.text().is_some_and(|text| text.contains(slip::TYPOGRAPHIC)) {
            message.push_str("; typographic quotes are part of the text, unlike \" and '");
        }
        self.problem(node.line, node.column, path, message, suggestion);
    }

    fn problem(
        &mut self,
        line: usize,
        column: usize,
        path: &KeyPath,
        message: String,
        suggestion: Option<String>,
    ) {
        let file = Arc::clone(&self.file);
        self.problems.push(Problem { file, line, column, path: path.clone(), message, suggestion });
    }
}

fn is_one_of(node: &Node, choices: &[Choice]) -> bool {
    node.text().is_some_and(|text| choices.iter().any(|choice| choice.word == text))
}

/// Picks the form of a one-of that a node is written in.
pub(super) fn pick(node: &Node, one_of: &OneOf) -> Option<&'static Kind> {
    one_of.forms.iter().find(|form| match (&node.value, form) {
        (Value::Map(_), Kind::Struct(shape)) => {
            shape.keys.first().is_some_and(|discriminator| node.get(discriminator.name).is_some())
        }
        (Value::Map(_), Kind::Map { .. }) | (Value::List(_), Kind::List { .. }) => true,
        (Value::Scalar { .. }, form) => {
            matches!(form, Kind::Bool | Kind::Int { .. } | Kind::Text(_) | Kind::Unit(_) | Kind::Choice(_))
        }
        _ => false,
    })
}

/// What a map with known keys looks like: its required keys, else its first ones.
fn example(shape: &Struct) -> String {
    let required = shape.keys.iter().filter(|key| key.presence == Presence::Required);
    let mut keys: Vec<_> = required.take(3).map(|key| format!("{}: ...", key.name)).collect();
    if keys.is_empty() {
        keys = shape.keys.iter().take(2).map(|key| format!("{}: ...", key.name)).collect();
    }
    format!("a map such as {{{}}}", keys.join(", "))
}

/// Joins words as `a`, `b` or `c`.
pub(crate) fn or(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", most.join(", "))
        }
    }
}

/// A doc sentence as the end of a message: without its full stop, beginning small.
fn sentence_end(doc: &str) -> String {
    let doc = doc.trim_end_matches('.');
    let mut chars = doc.chars();
    match (chars.next(), doc.chars().nth(1)) {
        // Not for words in capitals, such as HTTP.
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().collect::<String>() + chars.as_str()
        }
        _ => doc.to_owned(),
    }
}
