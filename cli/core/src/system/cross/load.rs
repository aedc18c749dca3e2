//! Load profiles, KPIs and alerts: names, templates and units they use.

use super::Checker;
use crate::system::shape::LOAD_MEASURES;
use crate::system::template::load_variables;
use crate::system::units::Threshold;
use crate::yaml::{KeyPath, Node, Value, shown};

/// Variables every template may use.
const BUILT_IN: [&str; 2] = ["uuid", "seq"];

pub(super) fn check(checker: &mut Checker<'_>) {
    let fronts = checker.services().filter(|(_, service)| service.text_of("gateway") == Some("true")).count();
    for entry in checker.map("load") {
        let path = KeyPath::default().key("load").key(&entry.key);
        if fronts == 0 {
            let message = "found a load profile, expected a service with `gateway: true` to send it to";
            checker.tell(&entry.node, &path, message.to_owned());
        }
        thresholds(checker, &entry.node, &path);
        templates(checker, &entry.node, &path);
        for part in ["setup", "mix", "teardown"] {
            unique_names(checker, &entry.node, part, &path);
        }
    }
    for entry in checker.map("kpis") {
        kpi_unit(checker, &entry.node, &KeyPath::default().key("kpis").key(&entry.key));
    }
    let scalable: Vec<_> = checker.names("services").into_iter().chain(checker.names("stores")).collect();
    for entry in checker.map("alerts") {
        if let Some(scale) = entry.node.get("run").and_then(|run| run.get("scale")) {
            let path = KeyPath::default().key("alerts").key(&entry.key).key("run").key("scale");
            checker.one_of(scale, &path, "service or store", &scalable);
        }
    }
}

fn unique_names(checker: &mut Checker<'_>, profile: &Node, part: &str, path: &KeyPath) {
    let items = profile.get(part).map_or(&[][..], Node::items);
    for (index, item) in items.iter().enumerate() {
        let Some(name) = item.get("name") else { continue };
        if items.iter().take(index).any(|earlier| earlier.text_of("name") == name.text()) {
            let found = name.describe();
            checker.tell(
                name,
                &path.key(part).item(index).key("name"),
                format!("found the name {found} again, expected it once"),
            );
        }
    }
}

fn thresholds(checker: &mut Checker<'_>, profile: &Node, path: &KeyPath) {
    let names: Vec<_> = profile
        .get("mix")
        .map_or(&[][..], Node::items)
        .iter()
        .filter_map(|item| item.text_of("name"))
        .collect();
    for (index, node) in profile.get("thresholds").map_or(&[][..], Node::items).iter().enumerate() {
        let Some(scope) =
            node.text().and_then(|text| text.parse::<Threshold>().ok()).and_then(|each| each.scope)
        else {
            continue;
        };
        if !names.contains(&scope.as_str()) {
            let suggestion = checker.near(&scope, &names);
            let scope = shown(&scope);
            let message =
                format!("unknown request `{scope}`, expected a name of the mix: {}", super::names(&names));
            checker.suggest(node, &path.key("thresholds").item(index), message, suggestion);
        }
    }
}

/// A KPI that a load judges is compared in the unit of that figure.
fn kpi_unit(checker: &mut Checker<'_>, kpi: &Node, path: &KeyPath) {
    let (Some(measure), Some(target)) = (kpi.text_of("load"), kpi.get("target")) else { return };
    let Some(bound) = target.text().filter(|text| text.parse::<crate::system::units::Bound>().is_ok()) else {
        return;
    };
    if !LOAD_MEASURES.iter().any(|each| each.word == measure) {
        return;
    }
    if let Err(error) = format!("{measure}{bound}").parse::<Threshold>() {
        checker.tell(
            target,
            &path.key("target"),
            format!("found {}, expected {}", target.describe(), error.expected),
        );
    }
}

/// What templates may refer to grows with each request of the setup.
fn templates(checker: &mut Checker<'_>, profile: &Node, path: &KeyPath) {
    let mut known: Vec<String> = BUILT_IN.iter().map(ToString::to_string).collect();
    known.extend(checker.names("secrets").iter().map(|name| format!("secret:{name}")));
    for (index, request) in profile.get("setup").map_or(&[][..], Node::items).iter().enumerate() {
        request_templates(checker, request, &path.key("setup").item(index), &known);
        known
            .extend(request.get("save").map_or(&[][..], Node::entries).iter().map(|entry| entry.key.clone()));
    }
    if let Some(headers) = profile.get("headers") {
        texts(checker, headers, &path.key("headers"), &known);
    }
    for part in ["mix", "teardown"] {
        for (index, request) in profile.get(part).map_or(&[][..], Node::items).iter().enumerate() {
            request_templates(checker, request, &path.key(part).item(index), &known);
        }
    }
}

fn request_templates(checker: &mut Checker<'_>, request: &Node, path: &KeyPath, known: &[String]) {
    for key in ["get", "post", "put", "patch", "delete", "headers", "body"] {
        if let Some(node) = request.get(key) {
            texts(checker, node, &path.key(key), known);
        }
    }
}

/// Looks at every text below a node.
fn texts(checker: &mut Checker<'_>, node: &Node, path: &KeyPath, known: &[String]) {
    match &node.value {
        Value::Null => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                texts(checker, item, &path.item(index), known);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                texts(checker, &entry.node, &path.key(&entry.key), known);
            }
        }
        Value::Scalar { text, .. } => {
            let Some(variables) = load_variables(text) else {
                let message = "found `{{` without `}}`, expected {{name}}".to_owned();
                return checker.tell(node, path, message);
            };
            for name in variables {
                if !known.iter().any(|each| each == name) {
                    let known: Vec<_> = known.iter().map(String::as_str).collect();
                    let suggestion = checker.near(name, &known).map(|name| format!("{{{{{name}}}}}"));
                    let message = format!(
                        "unknown variable `{}`, expected {} (setup saves more)",
                        shown(name),
                        super::names(&known)
                    );
                    checker.suggest(node, path, message, suggestion);
                }
            }
        }
    }
}
