//! Words about where a release has its stores.

use mlctl_core::item::{Desired, ItemKind};

/// Returns the line that plan, summary and status show of a release whose stores are not all embedded.
#[must_use]
pub fn stores(desired: &Desired) -> Option<String> {
    if desired.stores.is_embedded() {
        return None;
    }
    let stores = desired.items.iter().filter(|item| item.id.kind == ItemKind::Store);
    let (servers, files): (Vec<_>, Vec<_>) = stores.partition(|item| item.payload.get("server").is_some());
    let names = |items: Vec<&mlctl_core::item::Item>| {
        let names: Vec<&str> = items.iter().map(|item| item.id.name.as_str()).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => "none".to_owned(),
        }
    };
    let embedded = match files.len() {
        0 => String::new(),
        1 => format!("; {} stays embedded", names(files)),
        _ => format!("; {} stay embedded", names(files)),
    };
    Some(format!("stores: real ({}){embedded}", names(servers)))
}

#[cfg(test)]
mod tests {
    use mlctl_core::item::{Digest, Item, ItemId, Tier};
    use mlctl_core::ports::StoreMode;
    use serde_json::json;

    use super::*;

    fn store(name: &str, payload: serde_json::Value) -> Item {
        Item {
            id: ItemId::new(ItemKind::Store, name),
            tier: Tier::Infrastructure,
            needs: Vec::new(),
            digest: Digest::of(b""),
            replicas: None,
            progress_deadline_ms: None,
            payload,
        }
    }

    #[test]
    fn what_runs_and_what_stays_is_named() {
        let server = || json!({"server": {}});
        let mut desired = Desired { items: vec![store("db", server())], stores: StoreMode::Real };
        assert_eq!(stores(&desired).as_deref(), Some("stores: real (db)"));
        desired.items.extend([store("cache", server()), store("state", server()), store("bus", json!({}))]);
        assert_eq!(
            stores(&desired).as_deref(),
            Some("stores: real (db, cache and state); bus stays embedded")
        );
        desired.items.push(store("docs", json!({})));
        assert!(stores(&desired).unwrap().ends_with("; bus and docs stay embedded"));
        assert_eq!(stores(&Desired::default()), None);
    }
}
