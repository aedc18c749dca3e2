//! Checks that span keys, made on the completed tree.
//!
//! They work on nodes and not on typed structs: so each message has its place, and a file with a wrong value in
//! one corner still hears about the other corners in the same go.

mod env;
mod inline;
mod load;
mod routes;
mod services;
mod targets;

pub(super) use targets::kind as target_kind;

use std::sync::Arc;

use super::shape::NAME;
use crate::yaml::{Entry, KeyPath, Node, Problem, Problems, did_you_mean, shown};

/// Returns every contradiction within a completed tree. `file` is the name used in problems.
pub(super) fn cross_check(file: &str, root: &Node) -> Problems {
    let mut checker = Checker { file: file.into(), root, problems: Problems::default() };
    for check in [services::check, env::check, inline::check, routes::check, load::check, targets::check] {
        // More than anybody reads: what comes is not looked for.
        if !checker.problems.is_full() {
            check(&mut checker);
        }
    }
    checker.problems
}

/// Returns whether a completed service is deployed.
pub(super) fn enabled(service: &Node) -> bool {
    service.text_of("enabled") != Some("false")
}

struct Checker<'a> {
    file: Arc<str>,
    root: &'a Node,
    problems: Problems,
}

impl<'a> Checker<'a> {
    /// Returns the entries of a map of the file, such as `stores`.
    fn map(&self, key: &str) -> &'a [Entry] {
        self.root.get(key).map_or(&[], Node::entries)
    }

    /// Returns the services that are deployed.
    fn services(&self) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        self.map("services")
            .iter()
            .filter(|entry| enabled(&entry.node))
            .map(|entry| (entry.key.as_str(), &entry.node))
    }

    fn names(&self, key: &str) -> Vec<&'a str> {
        self.map(key).iter().map(|entry| entry.key.as_str()).collect()
    }

    /// Tells a problem at a node.
    fn tell(&mut self, node: &Node, path: &KeyPath, message: String) {
        self.suggest(node, path, message, None);
    }

    /// Tells a problem at a node with what was probably meant.
    fn suggest(&mut self, node: &Node, path: &KeyPath, message: String, suggestion: Option<String>) {
        let file = Arc::clone(&self.file);
        self.problems.push(Problem {
            file,
            line: node.line,
            column: node.column,
            path: path.clone(),
            message,
            suggestion,
        });
    }

    /// Tells that `found` is none of `known`, when it is not.
    fn one_of(&mut self, node: &Node, path: &KeyPath, what: &str, known: &[&str]) {
        let Some(found) = node.text() else { return };
        // What cannot be a name at all was told as that.
        if !known.contains(&found) && (NAME.accepts)(found) {
            let suggestion = self.near(found, known);
            let message = format!("unknown {what} `{}`, expected {}", shown(found), names(known));
            self.suggest(node, path, message, suggestion);
        }
    }

    /// Returns the known name that `found` is probably a slip of. Looked for only while problems are kept.
    fn near(&self, found: &str, known: &[&str]) -> Option<String> {
        if self.problems.is_full() { None } else { did_you_mean(found, known.iter().copied()) }
    }
}

/// Names that a message lists.
const MOST_NAMES: usize = 20;

/// Joins known names for a message; a long list is cut, an empty one says so.
fn names(known: &[&str]) -> String {
    match known {
        [] => "none: none is declared".to_owned(),
        [only] => format!("`{only}`"),
        [first @ .., _] if known.len() > MOST_NAMES => {
            let first: Vec<_> = first.iter().take(MOST_NAMES).map(|name| format!("`{name}`")).collect();
            format!("{} or one of {} more", first.join(", "), known.len() - first.len())
        }
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", most.join(", "))
        }
    }
}

/// Returns the path of a service of the file.
fn service_path(name: &str) -> KeyPath {
    KeyPath::default().key("services").key(name)
}
