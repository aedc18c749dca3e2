//! What environment values and commands refer to.

use super::{Checker, service_path};
use crate::system::template::{Placeholder, RENDERED_FILES, Template, TemplateError};
use crate::yaml::{KeyPath, Node, shown};

pub(super) fn check(checker: &mut Checker<'_>) {
    let stores = checker.names("stores");
    let secrets = checker.names("secrets");
    for (name, service) in checker.services() {
        let env = service_path(name).key("env");
        for entry in service.get("env").map_or(&[][..], Node::entries) {
            let path = env.key(&entry.key);
            if let Some(store) = entry.node.get("store") {
                checker.one_of(store, &path.key("store"), "store", &stores);
            } else if let Some(secret) = entry.node.get("secret") {
                checker.one_of(secret, &path.key("secret"), "secret", &secrets);
                named_twice(checker, service, &entry.key, &entry.node, &path);
            } else {
                template(checker, &entry.node, &path);
            }
        }
        for (index, argument) in service.get("command").map_or(&[][..], Node::items).iter().enumerate() {
            template(checker, argument, &service_path(name).key("command").item(index));
        }
    }
}

/// A secret given as a file is in `NAME_FILE`, which may not be set by hand too.
fn named_twice(checker: &mut Checker<'_>, service: &Node, name: &str, value: &Node, path: &KeyPath) {
    let file = format!("{name}_FILE");
    if value.text_of("as") != Some("env") && service.get("env").and_then(|env| env.get(&file)).is_some() {
        checker.tell(
            value,
            path,
            format!("found `{file}` besides, expected one of the two: the secret is given as a file"),
        );
    }
}

fn template(checker: &mut Checker<'_>, node: &Node, path: &KeyPath) {
    let Some(text) = node.text() else { return };
    let template = match text.parse::<Template>() {
        Ok(template) => template,
        Err(error) => {
            let suggestion = match &error {
                TemplateError::Unknown { suggestion, .. } => suggestion.clone(),
                TemplateError::Brace(_) => None,
            };
            return checker.suggest(node, path, error.to_string(), suggestion);
        }
    };
    let services: Vec<_> = checker.services().map(|(name, _)| name).collect();
    for placeholder in template.placeholders() {
        let (what, found, known) = match placeholder {
            Placeholder::Addr(service) => ("service", service, services.as_slice()),
            Placeholder::File(file) => ("rendered file", file, RENDERED_FILES),
            Placeholder::Port | Placeholder::MetricsPort | Placeholder::Data => continue,
        };
        if known.contains(&found.as_str()) {
            continue;
        }
        let disabled = what == "service" && checker.names("services").contains(&found.as_str());
        let message = if disabled {
            format!("found {placeholder}, expected a service that is enabled: `{found}` is not")
        } else {
            let (found, inside) = (shown(found), shown(&placeholder.to_string()));
            format!("unknown {what} `{found}` in {inside}, expected {}", super::names(known))
        };
        let suggestion = if disabled { None } else { checker.near(found, known) };
        checker.suggest(node, path, message, suggestion);
    }
}
