//! What a system is on this target: one item for each thing it holds. Pure but for looking whether artifacts are there.

use std::collections::BTreeMap;

use mlctl_core::item::{Desired, Digest, Item, ItemId, ItemKind, ReplicaRange, Tier};
use mlctl_core::local_protocol::{
    ArtifactRef, EnvSource, FileSpec, HealthSpec, Layout, Limits, ProbeProtocol, SocketMode, UpdateSpec,
    WorkloadSpec,
};
use mlctl_core::ports::{ErrorKind, OrchestratorError, ReleaseInput, Result};
use mlctl_core::system::{
    EnvValue, Generate, SecretForm, Service, ServicePhase, Signal, Socket, Store, StoreKind, System,
};
use serde_json::{Value, json};

use super::items::LocalWorkload;
use super::routes::{self, ROUTES_FILE, address};
use super::secrets::SecretPlan;
use super::servers::{self, LocalStore, Servers};

/// Turns a system into items.
pub(super) fn resolve(
    layout: &Layout,
    system: &System,
    input: &ReleaseInput,
    servers: &Servers,
) -> Result<Desired> {
    let namespace = ItemId::new(ItemKind::Namespace, &system.name);
    let mut items = vec![plain(namespace, json!({ "name": system.name }))];
    for (name, secret) in &system.secrets {
        let plan = SecretPlan { generate: secret.generate, env: secret.env.clone() };
        items.push(plain(ItemId::new(ItemKind::Secret, name), to_value(&plan)));
    }
    for store in servers.keys() {
        let plan = SecretPlan { generate: Generate::Token, env: None };
        items.push(plain(ItemId::new(ItemKind::Secret, servers::password(store)), to_value(&plan)));
    }
    for (name, store) in &system.stores {
        items.push(store_item(layout, system, name, store, servers)?);
    }
    let whole = Whole { layout, system, input, servers };
    for (name, service) in &system.services {
        if let Some(item) = migration(&whole, name, service)? {
            items.push(item);
        }
    }
    for (name, service) in &system.services {
        items.push(workload(&whole, name, service)?);
    }
    Ok(Desired { items, stores: input.stores })
}

/// What all items of a system are made from.
struct Whole<'a> {
    layout: &'a Layout,
    system: &'a System,
    input: &'a ReleaseInput,
    servers: &'a Servers,
}

/// A store: a file that its services make, or a server of this machine.
fn store_item(
    layout: &Layout,
    system: &System,
    name: &str,
    store: &Store,
    servers: &Servers,
) -> Result<Item> {
    let server =
        servers.get(name).map(|server| servers::spec(system, name, store, server)).transpose()?.flatten();
    let embedded = if server.is_some() { None } else { url(layout, name, store) };
    let deadline = server.as_ref().map(|spec| spec.update.progress_deadline_ms);
    let secret = server.as_ref().map(|_| ItemId::new(ItemKind::Secret, servers::password(name)));
    let payload = LocalStore { kind: store.kind, embedded, server };
    let mut item = plain(ItemId::new(ItemKind::Store, name), to_value(&payload));
    item.needs.extend(secret);
    item.progress_deadline_ms = deadline;
    Ok(item)
}

fn to_value<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn plain(id: ItemId, payload: Value) -> Item {
    Item {
        id,
        tier: Tier::Infrastructure,
        needs: Vec::new(),
        digest: Digest::of_json(&payload),
        replicas: None,
        progress_deadline_ms: None,
        payload,
    }
}

/// The file of an embedded store below the data folder; none for stores that have no address of their own here.
fn store_file(name: &str, store: &Store) -> Option<String> {
    (store.kind == StoreKind::Postgresql).then(|| format!("{name}.db"))
}

fn url(layout: &Layout, name: &str, store: &Store) -> Option<String> {
    store_file(name, store).map(|file| format!("sqlite:{}", layout.data().join(file).display()))
}

/// The migrations of a service and the store they are for: the one relational store it refers to.
fn migration(whole: &Whole<'_>, name: &str, service: &Service) -> Result<Option<Item>> {
    let Whole { layout, system, input, servers } = whole;
    let Some(files) = input.migrations.get(name).filter(|files| !files.is_empty()) else { return Ok(None) };
    let used = service.env.values().filter_map(|value| match value {
        EnvValue::Store { store } => Some(store),
        _ => None,
    });
    let address = |store: &String| {
        let known = system.stores.get(store).filter(|known| known.kind == StoreKind::Postgresql)?;
        match servers.get(store) {
            Some(server) => Some(servers::shown_url(system, known.kind, server)),
            None => url(layout, store, known),
        }
    };
    let Some((store, url)) = used.chain(&service.needs).find_map(|store| Some((store, address(store)?)))
    else {
        let reason =
            "it has migrations and refers to no store of kind postgresql: add one to its `env` or `needs`";
        let subject = format!("service {name}");
        return Err(OrchestratorError::new(ErrorKind::Invalid, "resolve", subject, reason));
    };
    let mut payload = json!({ "service": name, "url": url, "files": files });
    if servers.contains_key(store) {
        payload["password"] = json!(servers::password(store));
    }
    let mut item = plain(ItemId::new(ItemKind::Migration, name), payload);
    item.tier = Tier::Applications;
    item.needs = vec![ItemId::new(ItemKind::Store, store)];
    Ok(Some(item))
}

fn workload(whole: &Whole<'_>, name: &str, service: &Service) -> Result<Item> {
    let Whole { system, input, .. } = whole;
    let (mut spec, source) = spec(whole, name, service)?;
    // The digest is over what makes a revision: no live file, no count, no path of the build.
    let mut fixed = spec.clone();
    fixed.files.retain(|file| !file.live);
    let digest = Digest::of_json(&to_value(&fixed));
    spec.env
        .entry("SERVICE_REVISION".to_owned())
        .or_insert_with(|| EnvSource::Text(digest.short().to_owned()));

    let mut needs: Vec<ItemId> = service
        .needs
        .iter()
        .map(|need| {
            let kind = if system.stores.contains_key(need) { ItemKind::Store } else { ItemKind::Workload };
            ItemId::new(kind, need)
        })
        .collect();
    if input.migrations.get(name).is_some_and(|files| !files.is_empty()) {
        needs.push(ItemId::new(ItemKind::Migration, name));
    }
    let secrets = spec.env.values().filter_map(EnvSource::secret);
    needs.extend(secrets.map(|secret| ItemId::new(ItemKind::Secret, secret)));
    needs.dedup();

    let payload = LocalWorkload { spec, source, gateway: service.gateway };
    Ok(Item {
        id: ItemId::workload(name),
        tier: match service.phase {
            ServicePhase::Infrastructure => Tier::Infrastructure,
            ServicePhase::Applications => Tier::Applications,
        },
        needs,
        digest,
        replicas: Some(ReplicaRange { min: service.replicas.min, max: service.replicas.max }),
        // What the agent waits by itself, so that both come to one verdict.
        progress_deadline_ms: Some(
            payload
                .spec
                .update
                .progress_deadline_ms
                .max(payload.spec.health.budget_ms() + payload.spec.update.min_ready_ms),
        ),
        payload: to_value(&payload),
    })
}

fn spec(
    whole: &Whole<'_>,
    name: &str,
    service: &Service,
) -> Result<(WorkloadSpec, Option<std::path::PathBuf>)> {
    let Whole { system, input, servers, .. } = whole;
    let invalid = |reason: &str| {
        let subject = format!("service {name}");
        OrchestratorError::new(ErrorKind::Invalid, "resolve", subject, reason.to_owned())
    };
    let built = input.artifacts.get(name);
    if service.build.is_some() && built.is_none() {
        return Err(invalid("artifact_missing: nothing was built for it"));
    }
    let artifact = built.map(|artifact| ArtifactRef {
        digest: artifact.digest.clone(),
        file: artifact.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    });
    let is_folder = built.is_some_and(|artifact| artifact.path.is_dir());
    let (argv, directory) = match (&service.command[..], &artifact) {
        ([], None) => {
            let reason = "it has neither `build` nor `command`, and this target runs no images: give it one of the two";
            return Err(invalid(reason));
        }
        ([], Some(_)) if is_folder => {
            return Err(invalid("its artifact is a folder: say in `command` what to run in it"));
        }
        ([], Some(_)) => (vec!["{artifact}".to_owned()], None),
        (command, None) => (addresses(system, command), None),
        (command, Some(_)) => {
            let directory = if is_folder { "{artifact}" } else { "{artifact_folder}" };
            (addresses(system, command), Some(directory.to_owned()))
        }
    };
    let files = if service.gateway {
        vec![FileSpec {
            name: ROUTES_FILE.to_owned(),
            content: routes::render(system),
            live: true,
            later: Vec::new(),
        }]
    } else {
        Vec::new()
    };
    let spec = WorkloadSpec {
        name: name.to_owned(),
        argv,
        artifact,
        directory,
        env: environment(system, service, servers),
        files,
        port: Some(service.port),
        socket: match service.socket {
            Socket::Relay => SocketMode::Relay,
            Socket::Passed => SocketMode::Passed,
        },
        metrics_path: service.metrics.as_ref().map(|metrics| metrics.path.clone()),
        health: health(service),
        update: update(service),
        limits: Limits {
            cpu_millis: service.resources.limits.cpu.map(|cpu| u64::from(cpu.millis())),
            memory_bytes: service.resources.limits.memory.map(|memory| memory.bytes()),
        },
        needs: servers.keys().filter(|store| uses(service, store)).cloned().collect(),
        while_needed: false,
    };
    Ok((spec, built.map(|artifact| artifact.path.clone())))
}

/// Says whether a service reads or writes a store.
fn uses(service: &Service, store: &String) -> bool {
    let named = |value: &EnvValue| matches!(value, EnvValue::Store { store: named } if named == store);
    service.needs.contains(store) || service.env.values().any(named)
}

fn health(service: &Service) -> HealthSpec {
    let health = &service.health;
    HealthSpec {
        protocol: ProbeProtocol::Http,
        startup: health.startup.clone(),
        live: health.live.clone(),
        ready: health.ready.clone(),
        period_ms: health.period.as_millis(),
        timeout_ms: health.timeout.as_millis(),
        failures: health.failures,
        grace_ms: health.grace.as_millis(),
    }
}

fn update(service: &Service) -> UpdateSpec {
    let (update, stop) = (&service.update, &service.stop);
    UpdateSpec {
        surge: update.surge,
        unavailable: update.unavailable,
        min_ready_ms: update.min_ready.as_millis(),
        drain_ms: update.drain.as_millis(),
        stop_grace_ms: stop.grace.as_millis(),
        stop_signal: match stop.signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Quit => "QUIT",
            Signal::Hup => "HUP",
        }
        .to_owned(),
        progress_deadline_ms: update.progress_deadline.as_millis(),
    }
}

/// The variables of a service: its own, then what every program may want to know and has not set itself.
fn environment(system: &System, service: &Service, servers: &Servers) -> BTreeMap<String, EnvSource> {
    let mut env = BTreeMap::new();
    for (name, value) in &service.env {
        match value {
            EnvValue::Text(text) => {
                env.insert(name.clone(), EnvSource::Text(with_addresses(system, text)));
            }
            EnvValue::Secret { secret, form: SecretForm::File } => {
                env.insert(format!("{name}_FILE"), EnvSource::SecretFile(secret.clone()));
            }
            EnvValue::Secret { secret, form: SecretForm::Env } => {
                env.insert(name.clone(), EnvSource::SecretValue(secret.clone()));
            }
            // Its address holds a password, so it is told by a file.
            EnvValue::Store { store } if servers.contains_key(store) => {
                let (known, server) = (&system.stores[store], &servers[store]);
                let text = servers::url(system, known.kind, server);
                let source = EnvSource::SecretText { secret: servers::password(store), text };
                env.insert(format!("{name}_FILE"), source);
            }
            // A store without an address of its own is reached through the data folder; its variable is left out.
            EnvValue::Store { store } => {
                if let Some(file) = system.stores.get(store).and_then(|kind| store_file(store, kind)) {
                    env.insert(name.clone(), EnvSource::Text(format!("sqlite:{{data}}/{file}")));
                }
            }
        }
    }
    let mut default = |name: String, text: String| {
        // Given as a file counts as given.
        if !env.contains_key(&format!("{name}_FILE")) {
            env.entry(name).or_insert(EnvSource::Text(text));
        }
    };
    default("PORT".to_owned(), "{port}".to_owned());
    if service.metrics.is_some() {
        default("METRICS_PORT".to_owned(), "{metrics_port}".to_owned());
    }
    default("DRAIN_SECONDS".to_owned(), service.update.drain.get().as_secs().to_string());
    for (other, found) in &system.services {
        let variable = other.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        default(format!("MLCTL_ADDR_{variable}"), address(found.port));
    }
    env
}

fn addresses(system: &System, command: &[String]) -> Vec<String> {
    command.iter().map(|word| with_addresses(system, word)).collect()
}

/// Replaces `{addr:SERVICE}`; all other placeholders are the agent's, and doubled braces stay doubled for it.
fn with_addresses(system: &System, text: &str) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = rest.strip_prefix("{addr:").and_then(|inner| {
            let (name, after) = inner.split_once('}')?;
            Some((system.services.get(name)?.port, after))
        });
        if let Some((port, after)) = found {
            filled.push_str(&address(port));
            rest = after;
        } else {
            let length = if rest.starts_with("{{") { 2 } else { 1 };
            filled.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests;
