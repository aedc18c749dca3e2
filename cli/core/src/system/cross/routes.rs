//! Public routes: no two may claim the same requests, and somebody has to serve them.

use std::collections::HashMap;

use super::{Checker, service_path};
use crate::yaml::{KeyPath, Node, shown};

/// A route as far as a clash is concerned.
struct Claim<'a> {
    kind: &'a str,
    methods: Vec<&'a str>,
    at: KeyPath,
}

impl Claim<'_> {
    fn clashes(&self, other: &Self) -> bool {
        let any_method = self.methods.is_empty() || other.methods.is_empty();
        self.kind == other.kind
            && (any_method || self.methods.iter().any(|method| other.methods.contains(method)))
    }
}

pub(super) fn check(checker: &mut Checker<'_>) {
    let gateway = checker.services().any(|(_, service)| service.text_of("gateway") == Some("true"));
    // By path: only routes of one path can clash.
    let mut claims: HashMap<&str, Vec<Claim<'_>>> = HashMap::new();
    let mut told = gateway;
    for (name, service) in checker.services() {
        let routes = service.get("routes");
        if let Some(routes) = routes.filter(|routes| !routes.items().is_empty() && !told) {
            told = true;
            let message = "found routes, expected one service with `gateway: true` to serve them";
            checker.tell(routes, &service_path(name).key("routes"), message.to_owned());
        }
        for (index, route) in routes.map_or(&[][..], Node::items).iter().enumerate() {
            let (Some(path), Some(kind)) = (route.text_of("path"), route.text_of("match")) else { continue };
            let methods =
                route.get("methods").map_or(&[][..], Node::items).iter().filter_map(Node::text).collect();
            let claim = Claim { kind, methods, at: service_path(name).key("routes").item(index) };
            let same_path = claims.entry(path.trim_end_matches('/')).or_default();
            if let Some(first) = same_path.iter().find(|first| first.clashes(&claim)) {
                let path = shown(path);
                let message =
                    format!("found the route `{path}` again, expected one owner; `{}` has it", first.at);
                checker.tell(route.get("path").unwrap_or(route), &claim.at.key("path"), message);
            }
            same_path.push(claim);
        }
    }
}
