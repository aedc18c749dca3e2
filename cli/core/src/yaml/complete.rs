//! Defaults, and the step from a checked tree to plain data.

use serde_json::{Map, Number, Value as Json};

use super::check::pick;
use super::node::{Entry, Node, Origin, Value};
use super::shape::{Kind, Presence};

/// Returns the tree with every default filled in, each marked as one. A part stays a part.
pub fn complete(node: &Node, kind: &Kind) -> Node {
    let value = match (&node.value, kind) {
        (Value::Map(entries), Kind::Struct(shape)) => {
            // In the order of the shape, so that two ways to write one thing give one result.
            let keys = shape.keys.iter().filter_map(|key| {
                if let Some(entry) = entries.iter().find(|entry| entry.key == key.name) {
                    return Some(Entry { node: complete(&entry.node, &key.kind), ..entry.clone() });
                }
                let (line, column) = (node.line, node.column);
                let absent = match key.presence {
                    Presence::Required | Presence::Optional => return None,
                    Presence::Default(text) => Node::default_scalar(text, line, column),
                    Presence::Empty => {
                        let value = match key.kind {
                            Kind::List { .. } => Value::List(Vec::new()),
                            _ => Value::Map(Vec::new()),
                        };
                        Node { value, line, column, origin: Origin::Default }
                    }
                };
                Some(Entry { key: key.name.to_owned(), line, column, node: complete(&absent, &key.kind) })
            });
            Value::Map(keys.collect())
        }
        (Value::Map(entries), Kind::Map { of, .. }) => Value::Map(
            entries.iter().map(|entry| Entry { node: complete(&entry.node, of), ..entry.clone() }).collect(),
        ),
        (Value::List(items), Kind::List { of, .. }) => {
            Value::List(items.iter().map(|item| complete(item, of)).collect())
        }
        (value, Kind::OneOf(one_of)) => match pick(node, one_of) {
            Some(form) => return complete(node, form),
            None => value.clone(),
        },
        (value, _) => value.clone(),
    };
    Node { value, ..node.clone() }
}

/// Returns a checked tree as JSON: numbers and booleans where the kind says so, units in canonical form.
pub fn to_json(node: &Node, kind: &Kind) -> Json {
    match (&node.value, kind) {
        (_, Kind::Json) => resolve(node),
        (_, Kind::OneOf(one_of)) => pick(node, one_of).map_or(Json::Null, |form| to_json(node, form)),
        (Value::Map(entries), Kind::Struct(shape) | Kind::Partial(shape)) => {
            let known =
                |entry: &Entry| shape.keys.iter().find(|key| key.name == entry.key).map(|key| key.kind);
            let pairs = entries.iter().filter_map(|entry| {
                known(entry).map(|kind| (entry.key.clone(), to_json(&entry.node, &kind)))
            });
            Json::Object(pairs.collect::<Map<_, _>>())
        }
        (Value::Map(entries), Kind::Map { of, .. }) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.node, of))).collect())
        }
        (Value::List(items), Kind::List { of, .. }) => {
            Json::Array(items.iter().map(|item| to_json(item, of)).collect())
        }
        (Value::Scalar { text, .. }, Kind::Bool) => Json::Bool(text == "true"),
        (Value::Scalar { text, .. }, Kind::Int { .. }) => {
            text.parse::<i64>().map_or(Json::Null, |number| Json::Number(number.into()))
        }
        (Value::Scalar { text, .. }, Kind::Unit(rule)) => {
            Json::String((rule.canonical)(text).unwrap_or_else(|_| text.clone()))
        }
        (Value::Scalar { text, .. }, _) => Json::String(text.clone()),
        _ => Json::Null,
    }
}

/// Data whose kind nobody knows: scalars by the core schema of YAML 1.2, decimal numbers only.
fn resolve(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::List(items) => Json::Array(items.iter().map(resolve).collect()),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), resolve(&entry.node))).collect())
        }
        Value::Scalar { text, plain: false } => Json::String(text.clone()),
        Value::Scalar { text, plain: true } => match text.as_str() {
            "true" => Json::Bool(true),
            "false" => Json::Bool(false),
            text => number(text).map_or_else(|| Json::String(text.to_owned()), Json::Number),
        },
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
