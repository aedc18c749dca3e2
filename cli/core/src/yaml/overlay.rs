//! One tree laid over another.

use super::node::{Entry, Node, Value};
use super::shape::Kind;

/// Lays `over` on `base`: maps are merged key by key, everything else is replaced. What `over` says wins.
///
/// A value that is one of several forms is replaced as a whole, never mixed from two.
pub fn overlay(base: &Node, over: &Node, kind: &Kind) -> Node {
    let (Value::Map(low), Value::Map(high)) = (&base.value, &over.value) else {
        return over.clone();
    };
    let kind_of = |key: &str| match kind {
        Kind::Struct(shape) | Kind::Partial(shape) => {
            shape.keys.iter().find(|each| each.name == key).map(|each| each.kind)
        }
        Kind::Map { of, .. } => Some(**of),
        _ => None,
    };
    if !matches!(kind, Kind::Struct(_) | Kind::Partial(_) | Kind::Map { .. }) {
        return over.clone();
    }
    let mut entries = low.clone();
    for entry in high {
        match entries.iter_mut().find(|each| each.key == entry.key) {
            Some(existing) => {
                let merged = kind_of(&entry.key)
                    .map_or_else(|| entry.node.clone(), |kind| overlay(&existing.node, &entry.node, &kind));
                *existing = Entry { node: merged, ..entry.clone() };
            }
            None => entries.push(entry.clone()),
        }
    }
    Node { value: Value::Map(entries), ..base.clone() }
}
