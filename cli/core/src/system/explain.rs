//! Where each effective value comes from.

use std::fmt;

use crate::yaml::{KeyPath, Kind, Node, Origin, Value, to_json};

/// An effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Key, such as `services.gateway.replicas.min`.
    pub path: String,
    /// Value on one line, as JSON without quotes around a plain text.
    pub value: String,
    /// Who said so.
    pub said_by: SaidBy,
}

/// Who said a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaidBy {
    /// Nobody: the default of the format.
    Default,
    /// The file.
    File {
        /// Line, from 1.
        line: usize,
    },
    /// A profile in the file.
    Profile {
        /// Name of the profile.
        name: String,
        /// Line, from 1.
        line: usize,
    },
}

impl fmt::Display for SaidBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "line {line}"),
            Self::Profile { name, line } => write!(f, "profile {name}, line {line}"),
        }
    }
}

/// Lists the leaves of a completed tree.
pub(super) fn explain(node: &Node, kind: &Kind) -> Vec<Explained> {
    let mut leaves = Vec::new();
    walk(node, kind, &KeyPath::default(), &mut leaves);
    leaves
}

fn walk(node: &Node, kind: &Kind, path: &KeyPath, leaves: &mut Vec<Explained>) {
    match (&node.value, kind) {
        (Value::Map(entries), Kind::Struct(shape)) if !entries.is_empty() => {
            for entry in entries {
                if let Some(key) = shape.keys.iter().find(|key| key.name == entry.key) {
                    walk(&entry.node, &key.kind, &path.key(&entry.key), leaves);
                }
            }
        }
        (Value::Map(entries), Kind::Map { of, .. }) if !entries.is_empty() => {
            for entry in entries {
                walk(&entry.node, of, &path.key(&entry.key), leaves);
            }
        }
        // Lists are replaced as a whole and one-ofs chosen as a whole, so each is one value with one author.
        _ => leaves.push(Explained {
            path: path.to_string(),
            value: match to_json(node, kind) {
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            },
            said_by: match &node.origin {
                Origin::Default => SaidBy::Default,
                Origin::File => SaidBy::File { line: node.line },
                Origin::Profile(name) => SaidBy::Profile { name: name.to_string(), line: node.line },
            },
        }),
    }
}
