//! Public routes: no two may claim the same requests, and somebody has to serve them.

use super::{Checker, service_path};
use crate::yaml::{KeyPath, Node};

/// A route as far as a clash is concerned.
struct Claim<'a> {
    path: &'a str,
    kind: &'a str,
    methods: Vec<&'a str>,
    at: KeyPath,
}

impl Claim<'_> {
    fn clashes(&self, other: &Self) -> bool {
        let same_path = self.path.trim_end_matches('/') == other.path.trim_end_matches('/');
        let any_method = self.methods.is_empty() || other.methods.is_empty();
        same_path
            && self.kind == other.kind
            && (any_method || self.methods.iter().any(|method| other.methods.contains(method)))
    }
}

pub(super) fn check(checker: &mut Checker<'_>) {
    let gateway = checker.services().any(|(_, service)| service.text_of("gateway") == Some("true"));
    let mut claims: Vec<Claim<'_>> = Vec::new();
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
            let claim = Claim { path, kind, methods, at: service_path(name).key("routes").item(index) };
            if let Some(first) = claims.iter().find(|first| first.clashes(&claim)) {
                let message =
                    format!("found the route `{path}` again, expected one owner; `{}` has it", first.at);
                checker.tell(route.get("path").unwrap_or(route), &claim.at.key("path"), message);
            }
            claims.push(claim);
        }
    }
}
