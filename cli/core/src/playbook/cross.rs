//! Checks of a playbook that span keys.

use std::sync::Arc;

use super::bind::{self, placeholders};
use crate::system::{NAME, System};
use crate::yaml::{Entry, KeyPath, Node, Problem, Problems, Value, did_you_mean, shown};

/// Returns every contradiction within a completed playbook.
pub(super) fn cross_check(file: &str, root: &Node) -> Problems {
    let mut checker = Checker { file: file.into(), problems: Problems::default() };
    checker.params(root);
    // More than anybody reads: what comes is not looked for.
    if checker.problems.is_full() {
        return checker.problems;
    }
    let known: Vec<_> = entries(root, "params").iter().map(|entry| entry.key.as_str()).collect();
    for key in ["guards", "phases"] {
        if let Some(node) = root.get(key) {
            checker.references(node, &KeyPath::default().key(key), &known);
        }
    }
    checker.phases(root);
    checker.problems
}

/// Returns a problem for every name that a certain system does not have. Unfilled placeholders are passed over.
pub(super) fn unknown_names(file: &str, root: &Node, system: &System) -> Problems {
    let mut checker = Checker { file: file.into(), problems: Problems::default() };
    let services: Vec<_> = system.services.keys().map(String::as_str).collect();
    let kpis: Vec<_> = system.kpis.keys().map(String::as_str).collect();
    let load: Vec<_> = system.load.keys().map(String::as_str).collect();
    for (index, guard) in items(root, "guards").iter().enumerate() {
        checker.known(
            guard.get("health"),
            &KeyPath::default().key("guards").item(index).key("health"),
            "service",
            &services,
        );
    }
    for (step, path) in steps(root) {
        for action in ["scale", "restart", "env"] {
            let node = step.get(action).and_then(|action| action.get("service"));
            checker.known(node, &path.key(action).key("service"), "service", &services);
        }
        let lists = [
            ("migrate", "services", "service", &services),
            ("gate", "health", "service", &services),
            ("gate", "kpis", "KPI", &kpis),
        ];
        for (action, key, what, known) in lists {
            let Some(list) = step.get(action).and_then(|action| action.get(key)) else { continue };
            for (index, name) in list.items().iter().enumerate() {
                checker.known(Some(name), &path.key(action).key(key).item(index), what, known);
            }
        }
        if let Some(action) = step.get("load").filter(|action| action.text_of("missing") != Some("skip")) {
            checker.known(action.get("profile"), &path.key("load").key("profile"), "load profile", &load);
        }
    }
    checker.problems
}

fn entries<'a>(node: &'a Node, key: &str) -> &'a [Entry] {
    node.get(key).map_or(&[], Node::entries)
}

fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    node.get(key).map_or(&[], Node::items)
}

/// Returns every step with its path, in order.
fn steps(root: &Node) -> Vec<(&Node, KeyPath)> {
    let phases = KeyPath::default().key("phases");
    (items(root, "phases").iter().enumerate())
        .flat_map(|(phase_index, phase)| {
            let path = phases.item(phase_index).key("steps");
            items(phase, "steps").iter().enumerate().map(move |(index, step)| (step, path.item(index)))
        })
        .collect()
}

struct Checker {
    file: Arc<str>,
    problems: Problems,
}

impl Checker {
    fn tell(&mut self, node: &Node, path: &KeyPath, message: String, suggestion: Option<String>) {
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

    /// Returns the known name that `found` is probably a slip of. Looked for only while problems are kept.
    fn near(&self, found: &str, known: &[&str]) -> Option<String> {
        if self.problems.is_full() { None } else { did_you_mean(found, known.iter().copied()) }
    }

    fn known(&mut self, node: Option<&Node>, path: &KeyPath, what: &str, known: &[&str]) {
        let Some((node, name)) = node.and_then(|node| Some((node, node.text()?))) else { return };
        if !name.contains("{{") && !known.contains(&name) {
            let suggestion = self.near(name, known);
            let has = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let name = shown(name);
            self.tell(node, path, format!("unknown {what} `{name}`; the system has {has}"), suggestion);
        }
    }

    fn params(&mut self, root: &Node) {
        for entry in entries(root, "params") {
            let path = KeyPath::default().key("params").key(&entry.key);
            let Some(kind) = entry.node.text_of("type") else { continue };
            let values: Vec<_> = items(&entry.node, "values").iter().filter_map(Node::text).collect();
            match (kind, values.is_empty()) {
                ("enum", true) => {
                    self.tell(
                        &entry.node,
                        &path,
                        "found an enum without `values`, expected at least one".to_owned(),
                        None,
                    );
                }
                ("enum", false) | (_, true) => {}
                (_, false) => {
                    let place = entry.node.get("values").unwrap_or(&entry.node);
                    let message = format!(
                        "found `values` of a parameter of type `{kind}`, expected them on an enum only"
                    );
                    self.tell(place, &path.key("values"), message, None);
                }
            }
            let Some((default, text)) = entry.node.get("default").and_then(|node| Some((node, node.text()?)))
            else {
                continue;
            };
            // Without values nothing fits, and that was told.
            if kind == "enum" && values.is_empty() {
                continue;
            }
            if let Err(expected) = bind::accepts(kind, &values, text) {
                let suggestion = self.near(text, &values);
                let message = format!("found {}, expected {expected}", default.describe());
                self.tell(default, &path.key("default"), message, suggestion);
            }
        }
    }

    /// Every `{{name}}` below a node has to be a parameter.
    fn references(&mut self, node: &Node, path: &KeyPath, known: &[&str]) {
        match &node.value {
            Value::Null => {}
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.references(item, &path.item(index), known);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.references(&entry.node, &path.key(&entry.key), known);
                }
            }
            Value::Scalar { text, .. } => {
                let Some(names) = placeholders(text) else {
                    return self.tell(
                        node,
                        path,
                        "found `{{` without `}}`, expected {{name}}".to_owned(),
                        None,
                    );
                };
                for name in names.into_iter().filter(|name| !known.contains(name)) {
                    let suggestion = self.near(name, known).map(|name| format!("{{{{{name}}}}}"));
                    let name = shown(name);
                    let message = format!("unknown parameter `{name}`, expected one declared under `params`");
                    self.tell(node, path, message, suggestion);
                }
            }
        }
    }

    fn phases(&mut self, root: &Node) {
        let phases: Vec<_> = items(root, "phases").iter().filter_map(|phase| phase.get("name")).collect();
        for (index, name) in phases.iter().enumerate() {
            if phases.iter().take(index).any(|earlier| earlier.text() == name.text()) {
                let path = KeyPath::default().key("phases").item(index).key("name");
                self.tell(
                    name,
                    &path,
                    format!("found the phase {} again, expected it once", name.describe()),
                    None,
                );
            }
        }
        self.rollback(root, &phases.iter().filter_map(|name| name.text()).collect::<Vec<_>>());
        let mut seen: Vec<(&str, bool)> = Vec::new();
        for (step, path) in steps(root) {
            self.gate_follows_its_load(step, &path, &seen);
            let Some((node, id)) = step.get("id").and_then(|node| Some((node, node.text()?))) else {
                continue;
            };
            if seen.iter().any(|(earlier, _)| *earlier == id) {
                self.tell(
                    node,
                    &path.key("id"),
                    format!("found the step {} again, expected it once", node.describe()),
                    None,
                );
            }
            seen.push((id, step.get("load").is_some()));
        }
    }

    fn rollback(&mut self, root: &Node, phases: &[&str]) {
        let Some(rolls_back) = root.get("rolls_back") else { return };
        for (index, name) in rolls_back.items().iter().enumerate() {
            // What cannot be a name at all was told as that.
            let unknown = |text: &&str| !phases.contains(text) && (NAME.accepts)(text);
            let Some(text) = name.text().filter(unknown) else { continue };
            let suggestion = self.near(text, phases);
            let path = KeyPath::default().key("rolls_back").item(index);
            let message = format!("unknown phase `{}`, expected a phase of this playbook", shown(text));
            self.tell(name, &path, message, suggestion);
        }
        let asks =
            |node: &Node| node.get("on_failure").filter(|policy| policy.text() == Some("rollback")).cloned();
        let root_asks = asks(root).map(|policy| (policy, KeyPath::default().key("on_failure")));
        let steps_ask =
            steps(root).into_iter().filter_map(|(step, path)| Some((asks(step)?, path.key("on_failure"))));
        if rolls_back.items().is_empty() {
            for (policy, path) in root_asks.into_iter().chain(steps_ask) {
                let message = "found `rollback`, expected phases under `rolls_back` to take back".to_owned();
                self.tell(&policy, &path, message, None);
            }
        }
    }

    fn gate_follows_its_load(&mut self, step: &Node, path: &KeyPath, seen: &[(&str, bool)]) {
        let Some(from) = step.get("gate").and_then(|gate| gate.get("from")) else { return };
        let Some(id) = from.text().filter(|text| !text.contains("{{")) else { return };
        if !seen.iter().any(|(earlier, is_load)| *earlier == id && *is_load) {
            let loads = seen.iter().filter(|(_, is_load)| *is_load).map(|(id, _)| *id);
            let suggestion = self.near(id, &loads.collect::<Vec<_>>());
            let message = format!("found {}, expected the id of an earlier load step", from.describe());
            self.tell(from, &path.key("gate").key("from"), message, suggestion);
        }
    }
}
