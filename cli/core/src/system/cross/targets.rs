//! Targets and profiles: what they name has to exist.

use super::Checker;
use crate::system::shape::TARGET_KINDS;
use crate::yaml::{KeyPath, Node, shown};

/// Keys that only one kind of target understands.
const KEYS_OF_KIND: [(&str, &[&str]); 2] =
    [("kubernetes", &["context", "namespace", "overlay"]), ("swarm", &["host", "stack"])];

pub(super) fn check(checker: &mut Checker<'_>) {
    let profiles = checker.names("profiles");
    for entry in checker.map("targets") {
        let path = KeyPath::default().key("targets").key(&entry.key);
        if let Some(profile) = entry.node.get("profile") {
            checker.one_of(profile, &path.key("profile"), "profile", &profiles);
        }
        let Some(kind) = kind(&entry.key, &entry.node) else {
            let message = format!(
                "the key `kind` is missing, expected {} because the name says none",
                super::names(&kinds())
            );
            checker.tell(&entry.node, &path, message);
            continue;
        };
        if !kinds().contains(&kind) {
            continue;
        }
        for (owner, keys) in KEYS_OF_KIND.iter().filter(|(owner, _)| *owner != kind) {
            for key in *keys {
                if let Some(node) = entry.node.get(key) {
                    let message = format!(
                        "found `{key}` on a target of kind `{kind}`, expected it on kind `{owner}` only"
                    );
                    checker.tell(node, &path.key(key), message);
                }
            }
        }
    }
    for entry in checker.map("profiles") {
        let path = KeyPath::default().key("profiles").key(&entry.key);
        for (key, what) in
            [("services", "service"), ("stores", "store"), ("kpis", "KPI"), ("load", "load profile")]
        {
            let known = checker.names(key);
            for part in entry.node.get(key).map_or(&[][..], Node::entries) {
                if !known.contains(&part.key.as_str()) {
                    let suggestion = checker.near(&part.key, &known);
                    let name = shown(&part.key);
                    let message = format!("unknown {what} `{name}`, expected {}", super::names(&known));
                    let place = Node { line: part.line, column: part.column, ..part.node.clone() };
                    checker.suggest(&place, &path.key(key).key(&part.key), message, suggestion);
                }
            }
        }
    }
}

fn kinds() -> Vec<&'static str> {
    TARGET_KINDS.iter().map(|kind| kind.word).collect()
}

/// Returns the kind of a target: its own key, else its name when that is a kind.
pub(in crate::system) fn kind<'a>(name: &'a str, target: &'a Node) -> Option<&'a str> {
    target.text_of("kind").or_else(|| kinds().contains(&name).then_some(name))
}
