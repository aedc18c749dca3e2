//! What the gateway lets through is described by the service that answers.

use std::path::Path;

use serde_json::Value;

use crate::{assert_none, read};

/// A line of a service's `routes` in mlctl.yaml.
struct PublicRoute {
    service: String,
    to: String,
    exact: bool,
    methods: Vec<String>,
}

/// The public routes as mlctl.yaml has them, one a line.
fn public_routes() -> Vec<PublicRoute> {
    let text = read(Path::new("mlctl.yaml"));
    let mut service = String::new();
    let mut routes = Vec::new();
    for line in text.lines() {
        let name =
            line.strip_prefix("  ").filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()));
        if let Some(name) = name.and_then(|rest| rest.strip_suffix(':')) {
            name.clone_into(&mut service);
        }
        let Some(fields) = line.trim().strip_prefix("- {path: ") else { continue };
        let field = |name: &str| fields.split_once(&format!(" {name}: ")).map(|(_, rest)| rest);
        let word = |text: &str| text.split([',', '}']).next().unwrap_or_default().trim().to_owned();
        let methods = field("methods").and_then(|rest| rest.strip_prefix('[')?.split_once(']'));
        let methods = methods.unwrap_or_else(|| panic!("a public route without methods: {line}")).0;
        routes.push(PublicRoute {
            service: service.clone(),
            to: word(field("to").unwrap_or(fields)),
            exact: field("match").is_some_and(|rest| word(rest) == "exact"),
            methods: methods.split(", ").map(str::to_lowercase).collect(),
        });
    }
    routes
}

#[test]
fn each_public_route_is_in_the_document_of_its_service() {
    let routes = public_routes();
    assert!(routes.len() >= 13, "only {} public routes: is the file read right?", routes.len());
    let mut broken = Vec::new();
    for PublicRoute { service, to, exact, methods } in routes {
        let document = read(&Path::new("services").join(&service).join("openapi.json"));
        let document: Value = serde_json::from_str(&document).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let below = |path: &str| path.strip_prefix(&*to).is_some_and(|rest| rest.starts_with('/'));
        for method in methods {
            let found = paths
                .iter()
                .any(|(path, entry)| (*path == to || !exact && below(path)) && entry.get(&method).is_some());
            if !found {
                broken.push(format!("{service} describes no {} {to}", method.to_uppercase()));
            }
        }
    }
    assert_none("what mlctl.yaml makes public is in services/*/openapi.json", &broken);
}
