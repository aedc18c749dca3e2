//! What a system is on the simulated target: one item for each thing that a real target would hold.

use std::collections::BTreeMap;

use serde_json::json;

use crate::item::{Desired, Digest, Item, ItemId, ItemKind, ReplicaRange, Tier};
use crate::ports::{Artifact, ReleaseInput};
use crate::system::{EnvValue, Service, ServicePhase, System};

pub(super) fn resolve(system: &System, input: &ReleaseInput) -> Desired {
    let mut items =
        vec![item(ItemId::new(ItemKind::Namespace, &system.name), json!({ "name": system.name }))];
    for (name, secret) in &system.secrets {
        items.push(item(ItemId::new(ItemKind::Secret, name), json!({ "generate": secret.generate })));
    }
    for (name, store) in &system.stores {
        let id = ItemId::new(ItemKind::Store, name);
        let payload = json!({
            "kind": store.kind,
            "version": store.version,
            "settings": store.settings,
            "stores": input.stores,
        });
        items.push(item(id, payload));
    }
    for (name, files) in &input.migrations {
        if system.services.contains_key(name) && !files.is_empty() {
            let id = ItemId::new(ItemKind::Migration, name);
            items.push(Item { tier: Tier::Applications, ..item(id, json!({ "files": files })) });
        }
    }
    items.extend(system.services.iter().map(|(name, service)| workload(system, name, service, input)));
    Desired { items, stores: input.stores }
}

fn item(id: ItemId, payload: serde_json::Value) -> Item {
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

fn workload(system: &System, name: &str, service: &Service, input: &ReleaseInput) -> Item {
    let need = |need: &String| {
        let kind = if system.stores.contains_key(need) { ItemKind::Store } else { ItemKind::Workload };
        ItemId::new(kind, need)
    };
    let env: BTreeMap<&String, String> =
        service.env.iter().map(|(name, value)| (name, shown(value))).collect();
    let payload = json!({
        "artifact": input.artifacts.get(name).map(|Artifact { digest, .. }| digest),
        "image": input.images.get(name).or(service.image.as_ref()),
        "command": service.command,
        "port": service.port,
        "gateway": service.gateway,
        "env": env,
        "check": service.health.check,
        "series": service.metrics.as_ref().map(|metrics| &metrics.expect),
    });
    let tier = match service.phase {
        ServicePhase::Infrastructure => Tier::Infrastructure,
        ServicePhase::Applications => Tier::Applications,
    };
    Item {
        tier,
        needs: service.needs.iter().map(need).collect(),
        replicas: Some(ReplicaRange { min: service.replicas.min, max: service.replicas.max }),
        progress_deadline_ms: Some(service.update.progress_deadline.as_millis()),
        ..item(ItemId::workload(name), payload)
    }
}

/// Returns the value of a variable as a revision keeps it: a reference, never the value of a secret.
fn shown(value: &EnvValue) -> String {
    match value {
        EnvValue::Store { store } => format!("store {store}"),
        EnvValue::Secret { secret, .. } => format!("secret {secret}"),
        EnvValue::Text(text) => text.clone(),
    }
}
