//! Services among each other: ports, needs, bounds, the gateway.

use std::collections::{HashMap, HashSet};

use super::{Checker, service_path};
use crate::system::units::{ByteSize, Cpu};
use crate::yaml::{KeyPath, Node, shown};

pub(super) fn check(checker: &mut Checker<'_>) {
    names_apart(checker);
    gateways(checker);
    ports(checker);
    needs(checker);
    cycles(checker);
    for (name, service) in checker.services() {
        let path = service_path(name);
        bounds(checker, service, &path);
        something_to_run(checker, service, &path);
        migrations_have_a_store(checker, service, &path);
        expected_series_have_an_endpoint(checker, service, &path);
    }
}

/// `needs` names services and stores, so the two may not share names.
fn names_apart(checker: &mut Checker<'_>) {
    let stores = checker.names("stores");
    for entry in checker.map("services") {
        if stores.contains(&entry.key.as_str()) {
            let message =
                format!("found a service and a store named `{}`, expected different names", entry.key);
            checker.tell(&entry.node, &service_path(&entry.key), message);
        }
    }
}

fn gateways(checker: &mut Checker<'_>) {
    let mut first: Option<&str> = None;
    for (name, service) in checker.services() {
        let Some(flag) = service.get("gateway").filter(|flag| flag.text() == Some("true")) else { continue };
        match first {
            None => first = Some(name),
            Some(first) => {
                let message = format!("found a second gateway besides `{first}`, expected one");
                checker.tell(flag, &service_path(name).key("gateway"), message);
            }
        }
    }
}

fn ports(checker: &mut Checker<'_>) {
    let mut taken: HashMap<&str, String> = HashMap::new();
    for (name, service) in checker.services() {
        let path = service_path(name);
        let metrics = service.get("metrics").and_then(|metrics| metrics.get("port"));
        let both = [(service.get("port"), path.key("port")), (metrics, path.key("metrics").key("port"))];
        for (node, path) in both {
            let Some((node, port)) = node.and_then(|node| Some((node, node.text()?))) else { continue };
            match taken.get(port) {
                Some(first) => {
                    let message =
                        format!("found the port {port} again, expected one of its own; `{first}` has it");
                    checker.tell(node, &path, message);
                }
                None => drop(taken.insert(port, path.to_string())),
            }
        }
    }
}

fn needs(checker: &mut Checker<'_>) {
    let stores = checker.names("stores");
    let services = checker.names("services");
    let known: Vec<_> =
        services.iter().chain(stores.iter().filter(|store| !services.contains(store))).copied().collect();
    for (name, service) in checker.services() {
        let path = service_path(name).key("needs");
        let mut seen = HashSet::new();
        for (index, need) in service.get("needs").map_or(&[][..], Node::items).iter().enumerate() {
            let Some(needed) = need.text() else { continue };
            let path = path.item(index);
            if !seen.insert(needed) {
                checker.tell(need, &path, format!("found `{}` again, expected it once", shown(needed)));
            } else if needed == name {
                checker.tell(need, &path, "found the service itself, expected another one".to_owned());
            } else if !known.contains(&needed) {
                checker.one_of(need, &path, "service or store", &known);
            } else if needs_a_later_phase(checker, service, needed) {
                let message =
                    format!("found `{needed}`, which comes in a later phase, expected something of phase 1");
                checker.tell(need, &path, message);
            }
        }
    }
}

fn needs_a_later_phase(checker: &Checker<'_>, service: &Node, needed: &str) -> bool {
    let phase_of_needed = (checker.services())
        .find(|(name, _)| *name == needed)
        .and_then(|(_, service)| service.text_of("phase"));
    service.text_of("phase") == Some("infrastructure") && phase_of_needed == Some("applications")
}

/// Tells each cycle once, at the need that closes it, with its members in order.
fn cycles(checker: &mut Checker<'_>) {
    let needs = |service: &'_ Node, name: &str| -> Vec<_> {
        let path = service_path(name).key("needs");
        let items = service.get("needs").map_or(&[][..], Node::items).iter().enumerate();
        items.map(|(index, need)| (need.clone(), path.item(index))).collect()
    };
    let graph: HashMap<&str, Vec<(Node, KeyPath)>> =
        checker.services().map(|(name, service)| (name, needs(service, name))).collect();
    let mut done: HashSet<&str> = HashSet::new();
    for (start, _) in checker.services() {
        // Services on the way from the start, each with the need that is looked at next. A list and no recursion:
        // a chain may be as long as the file allows.
        let mut trail: Vec<(&str, usize)> = if done.contains(start) { Vec::new() } else { vec![(start, 0)] };
        while let Some((name, at)) = trail.last_mut() {
            let name = *name;
            let Some((node, path)) = graph.get(name).and_then(|needs| needs.get(*at)) else {
                done.insert(name);
                trail.pop();
                continue;
            };
            *at += 1;
            let Some((needed, _)) = node.text().and_then(|needed| graph.get_key_value(needed)) else {
                continue;
            };
            match trail.iter().position(|(each, _)| each == needed) {
                // A service that needs itself was told with its own words.
                Some(_) if *needed == name => {}
                Some(from) => {
                    let members: Vec<_> = trail.iter().skip(from).map(|(each, _)| *each).collect();
                    let message =
                        format!("found a cycle, expected none: {} needs {needed}", members.join(" needs "));
                    checker.tell(node, path, message);
                }
                None if done.contains(needed) => {}
                None => trail.push((needed, 0)),
            }
        }
    }
}

fn bounds(checker: &mut Checker<'_>, service: &Node, path: &KeyPath) {
    let number = |node: &Node, key: &str| node.text_of(key).and_then(|text| text.parse::<u32>().ok());
    if let Some(replicas) = service.get("replicas")
        && let (Some(min), Some(max)) = (number(replicas, "min"), number(replicas, "max"))
        && min > max
    {
        let place = replicas.get("min").unwrap_or(replicas);
        checker.tell(
            place,
            &path.key("replicas").key("min"),
            format!("found min {min} above max {max}, expected min <= max"),
        );
    }
    if let Some(update) = service.get("update")
        && number(update, "surge") == Some(0)
        && number(update, "unavailable") == Some(0)
    {
        let message =
            "found surge 0 and unavailable 0, expected one of them above 0: nothing could ever be replaced";
        checker.tell(update, &path.key("update"), message.to_owned());
    }
    let Some(resources) = service.get("resources") else { return };
    let (Some(requests), Some(limits)) = (resources.get("requests"), resources.get("limits")) else { return };
    let more = |key: &str| -> Option<bool> {
        let (request, limit) = (requests.text_of(key)?, limits.text_of(key)?);
        Some(match key {
            "cpu" => request.parse::<Cpu>().ok()? > limit.parse::<Cpu>().ok()?,
            _ => request.parse::<ByteSize>().ok()? > limit.parse::<ByteSize>().ok()?,
        })
    };
    for key in ["cpu", "memory"] {
        if more(key) == Some(true) {
            let (request, limit) =
                (requests.text_of(key).unwrap_or_default(), limits.text_of(key).unwrap_or_default());
            let place = requests.get(key).unwrap_or(requests);
            let message = format!(
                "found a request of {request} above the limit of {limit}, expected at most the limit"
            );
            checker.tell(place, &path.key("resources").key("requests").key(key), message);
        }
    }
}

fn something_to_run(checker: &mut Checker<'_>, service: &Node, path: &KeyPath) {
    let command = service.get("command").is_some_and(|command| !command.items().is_empty());
    if !command && service.get("build").is_none() && service.get("image").is_none() {
        let message = "found nothing to run, expected `build`, `command` or `image`";
        checker.tell(service, path, message.to_owned());
    }
}

/// mlctl finds the database of a service's migrations by its environment.
fn migrations_have_a_store(checker: &mut Checker<'_>, service: &Node, path: &KeyPath) {
    let Some(migrations) = service.get("migrations") else { return };
    let of_kind = |name: &str| {
        checker
            .map("stores")
            .iter()
            .any(|entry| entry.key == name && entry.node.text_of("kind") == Some("postgresql"))
    };
    let env = service.get("env").map_or(&[][..], Node::entries);
    if !env.iter().any(|entry| entry.node.text_of("store").is_some_and(of_kind)) {
        let message =
            "found migrations without a database, expected a variable {store: NAME} of a postgresql store";
        checker.tell(migrations, &path.key("migrations"), message.to_owned());
    }
}

/// Nothing a validator can see is wrong with it, but nobody could ever scrape it either.
fn expected_series_have_an_endpoint(checker: &mut Checker<'_>, service: &Node, path: &KeyPath) {
    let asks = |node: &Node| node.text().is_some_and(|text| text.contains("{metrics_port}"));
    if service.get("metrics").is_some() {
        return;
    }
    let command = service.get("command").map_or(&[][..], Node::items).iter().enumerate();
    let found: Vec<_> = (command.map(|(index, node)| (node, path.key("command").item(index))))
        .chain(
            service
                .get("env")
                .map_or(&[][..], Node::entries)
                .iter()
                .map(|entry| (&entry.node, path.key("env").key(&entry.key))),
        )
        .filter(|(node, _)| asks(node))
        .collect();
    for (node, path) in found {
        let message = "found {metrics_port}, expected the key `metrics` of the service to give one";
        checker.tell(node, &path, message.to_owned());
    }
}
