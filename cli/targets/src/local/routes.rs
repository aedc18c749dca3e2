//! The route table of the public front, rendered from all services' routes. Pure.

use mlctl_core::system::{MatchKind, System};
use serde_json::{Map, Value, json};

/// The name of the file, as `{file:routes.json}` asks for it.
pub(super) const ROUTES_FILE: &str = "routes.json";

/// Returns the table: which services there are, where, and which public paths lead to them.
pub(super) fn render(system: &System) -> String {
    let behind = system.services.iter().filter(|(_, service)| !service.gateway);
    let mut services = Vec::new();
    let mut routes = Vec::new();
    for (name, service) in behind {
        let health = service.health.check.as_ref().or(service.health.ready.as_ref());
        if !service.routes.is_empty() || health.is_some() {
            services.push(json!({
                "name": name,
                "upstream": address(service.port),
                "health_path": health.map_or("/", String::as_str),
            }));
        }
        for route in &service.routes {
            let mut entry = Map::new();
            entry.insert("path".to_owned(), json!(route.path));
            entry.insert("service".to_owned(), json!(name));
            entry.insert("to".to_owned(), json!(route.to.as_ref().unwrap_or(&route.path)));
            let kind = match route.kind {
                MatchKind::Prefix => "prefix",
                MatchKind::Exact => "exact",
            };
            entry.insert("match".to_owned(), json!(kind));
            if !route.methods.is_empty() {
                let methods: Vec<&str> = route.methods.iter().map(|m| m.as_str()).collect();
                entry.insert("methods".to_owned(), json!(methods));
            }
            if let Some(timeout) = route.timeout {
                entry.insert("timeout_ms".to_owned(), json!(timeout.as_millis()));
            }
            routes.push(Value::Object(entry));
        }
    }
    json!({ "version": 1, "services": services, "routes": routes, "maintenance": null }).to_string()
}

/// Returns the stable address of a port.
pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
