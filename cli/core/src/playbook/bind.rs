//! Parameters: what a value has to be, and how it gets into the text.

use indexmap::IndexMap;

use crate::system::NAME;
use crate::system::template::load_variables;
use crate::system::units::TimeSpan;
use crate::yaml::{Entry, Node, Problems, Value, shown};

/// A playbook cannot be filled in with these parameters.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The playbook declares no such parameter.
    #[error("playbook {playbook} has no parameter `{name}`; it has {known}")]
    Unknown {
        /// Playbook.
        playbook: String,
        /// Parameter that was given.
        name: String,
        /// Parameters there are.
        known: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// A parameter without a default was not given.
    #[error("playbook {playbook} needs the parameter `{name}`: give it with -p {name}=VALUE")]
    Missing {
        /// Playbook.
        playbook: String,
        /// Parameter.
        name: String,
    },
    /// A value is not what the parameter may be.
    #[error("playbook {playbook} cannot take `{}` as `{name}`: expected {expected}", shown(value))]
    Value {
        /// Playbook.
        playbook: String,
        /// Parameter.
        name: String,
        /// Value that was given.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// With the values filled in, the playbook is larger than any file may be.
    #[error("playbook {playbook} cannot be filled in: its parameters make it larger than 1 MiB")]
    TooLarge {
        /// Playbook.
        playbook: String,
    },
    /// With the values filled in, the playbook is no longer valid.
    #[error("{0}")]
    Invalid(Problems),
    /// The checked tree does not fit the typed model: a mistake of mlctl's own.
    #[error("cannot read the checked {file} as a playbook")]
    Model {
        /// File.
        file: String,
        /// What did not fit.
        source: serde_json::Error,
    },
}

/// Returns the parameters a text refers to; `None` when a pair of braces is left open.
pub(super) fn placeholders(text: &str) -> Option<Vec<&str>> {
    load_variables(text)
}

/// Says whether a parameter of type `kind` accepts `text`, else what it expects.
pub(super) fn accepts(kind: &str, values: &[&str], text: &str) -> Result<(), String> {
    match kind {
        "enum" if !values.contains(&text) => {
            Err(values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or "))
        }
        "int" if text.parse::<i64>().is_err() => Err("a whole number".to_owned()),
        "duration" => text.parse::<TimeSpan>().map(drop).map_err(|error| error.expected.into_owned()),
        "service" if !(NAME.accepts)(text) => Err("the name of a service".to_owned()),
        _ => Ok(()),
    }
}

/// Returns the bytes of all texts once every `{{name}}` is replaced: a few characters refer to a value of any length.
pub(super) fn filled_size(node: &Node, values: &IndexMap<String, String>) -> usize {
    match &node.value {
        Value::Null => 0,
        Value::Scalar { text, .. } => {
            let names = placeholders(text).unwrap_or_default();
            let of_values = names.iter().filter_map(|name| values.get(*name)).map(String::len);
            of_values.fold(text.len(), usize::saturating_add)
        }
        Value::List(items) => {
            items.iter().map(|item| filled_size(item, values)).fold(0, usize::saturating_add)
        }
        Value::Map(entries) => {
            entries.iter().map(|entry| filled_size(&entry.node, values)).fold(0, usize::saturating_add)
        }
    }
}

/// Returns the tree with every `{{name}}` replaced. A text that was a placeholder alone may become a number.
pub(super) fn fill(node: &Node, values: &IndexMap<String, String>) -> Node {
    let value = match &node.value {
        Value::Scalar { text, plain } => {
            let alone = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
            let alone = alone.is_some_and(|name| !name.contains('{'));
            Value::Scalar { text: replace(text, values), plain: *plain || alone }
        }
        Value::List(items) => Value::List(items.iter().map(|item| fill(item, values)).collect()),
        Value::Map(entries) => Value::Map(
            entries.iter().map(|entry| Entry { node: fill(&entry.node, values), ..entry.clone() }).collect(),
        ),
        Value::Null => Value::Null,
    };
    Node { value, ..node.clone() }
}

fn replace(text: &str, values: &IndexMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, after)) = from.split_once("}}") else {
            filled.push_str("{{");
            rest = from;
            continue;
        };
        match values.get(name.trim()) {
            // A value is text: braces in it are not looked at again.
            Some(value) => filled.push_str(value),
            None => filled.push_str(&format!("{{{{{name}}}}}")),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}
