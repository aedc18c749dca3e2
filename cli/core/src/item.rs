//! Items: the pieces a release consists of, whatever the orchestrator calls them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ports::StoreMode;

/// Says what kind of thing an item is; the planner orders by it, only a target knows what it means there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// The place everything else lives in: a Kubernetes namespace, a Swarm stack, a local state folder.
    Namespace,
    /// A secret by name and version; never its value.
    Secret,
    /// Configuration that several workloads share.
    Config,
    /// A store: PostgreSQL, Redis, Kafka, MongoDB, or what stands in for it on the embedded target.
    Store,
    /// The database migrations of one service, as files of the release.
    Migration,
    /// A replicated process: Deployment, Swarm service, supervised local processes.
    Workload,
}

impl ItemKind {
    /// Every kind, in the order in which a target creates them.
    pub const ALL: [Self; 6] =
        [Self::Namespace, Self::Secret, Self::Config, Self::Store, Self::Migration, Self::Workload];

    /// Returns the word used in identifiers and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Store => "store",
            Self::Migration => "migration",
            Self::Workload => "workload",
        }
    }
}

/// Names an item: `workload/api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// What kind of thing it is.
    pub kind: ItemKind,
    /// Its name as `mlctl.yaml` says it.
    pub name: String,
}

impl ItemId {
    /// Returns the id of `name` of the given kind.
    pub fn new(kind: ItemKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// Returns the id of a workload.
    pub fn workload(name: impl Into<String>) -> Self {
        Self::new(ItemKind::Workload, name)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.word(), self.name)
    }
}

/// A text that is not an item id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an item id: expected KIND/NAME, such as workload/api")]
pub struct ItemIdError(String);

impl FromStr for ItemId {
    type Err = ItemIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ItemIdError(text.to_owned());
        let (kind, name) = text.split_once('/').ok_or_else(error)?;
        let kind = ItemKind::ALL.into_iter().find(|k| k.word() == kind).ok_or_else(error)?;
        if name.is_empty() {
            return Err(error());
        }
        Ok(Self::new(kind, name))
    }
}

impl Serialize for ItemId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The SHA-256 of some content, as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Returns the digest of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// Returns the digest of a JSON value, independent of the order of its keys.
    #[must_use]
    pub fn of_json(value: &serde_json::Value) -> Self {
        let mut hasher = Sha256::new();
        feed(&mut hasher, value);
        Self(hex(&hasher.finalize()))
    }

    /// Returns all 64 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first twelve digits, enough for people and file names.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Feeds a value so that two objects differing only in key order give the same digest.
fn feed(hasher: &mut Sha256, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            hasher.update(b"{");
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            for key in keys {
                hasher.update(serde_json::Value::String(key.clone()).to_string());
                hasher.update(b":");
                feed(hasher, &map[key]);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        serde_json::Value::Array(list) => {
            hasher.update(b"[");
            for element in list {
                feed(hasher, element);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        scalar => hasher.update(scalar.to_string()),
    }
}

/// Says in which of the two deploying phases an item belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// What everything stands on; never rolled back by itself.
    Infrastructure,
    /// What changes with each release.
    Applications,
}

/// The bounds inside which the live replica count may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRange {
    /// The count at create, and the least a scale may set.
    pub min: u32,
    /// The most a scale may set.
    pub max: u32,
}

impl ReplicaRange {
    /// Returns the count to run: the live one where it is inside the range, else the nearer bound; `min` when new.
    #[must_use]
    pub fn settle(self, live: Option<u32>) -> u32 {
        live.map_or(self.min, |count| count.clamp(self.min, self.max.max(self.min)))
    }
}

/// One thing that should exist on the target. Immutable: a changed thing is another item with another digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub id: ItemId,
    /// The phase it belongs to.
    pub tier: Tier,
    /// What must be there before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<ItemId>,
    /// Digest of what makes a live thing equal to this one; replica counts and live-reloaded files are not in it.
    pub digest: Digest,
    /// The replica bounds of a workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaRange>,
    /// How long the item may make no progress before its step fails, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_ms: Option<u64>,
    /// What the target needs to make it; opaque to core, and free of secret values.
    pub payload: serde_json::Value,
}

/// Everything that should run: what `resolve` makes of a system, and what a release keeps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// The items, in the order in which the system names them.
    pub items: Vec<Item>,
    /// How its stores are had: part of a release, so that a rollback brings it back.
    #[serde(default, skip_serializing_if = "StoreMode::is_embedded")]
    pub stores: StoreMode,
}

impl Desired {
    /// Returns the item of that id.
    #[must_use]
    pub fn get(&self, id: &ItemId) -> Option<&Item> {
        self.items.iter().find(|item| item.id == *id)
    }

    /// Returns the workloads that change with each release.
    pub fn applications(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.id.kind == ItemKind::Workload && item.tier == Tier::Applications)
    }

    /// Says whether two states run the same applications; infrastructure is not looked at.
    #[must_use]
    pub fn same_applications(&self, other: &Self) -> bool {
        self.applications().count() == other.applications().count()
            && self
                .applications()
                .all(|item| other.get(&item.id).is_some_and(|same| same.digest == item.digest))
    }

    /// Returns one digest over all items, so that two releases can be compared at once.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut lines: Vec<_> = self.items.iter().map(|i| format!("{} {}", i.id, i.digest)).collect();
        lines.sort();
        Digest::of(lines.join("\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_as_they_print() {
        for kind in ItemKind::ALL {
            let id = ItemId::new(kind, "a-name");
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in ["", "workload", "workload/", "pod/x"] {
            assert!(bad.parse::<ItemId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_ignores_key_order_and_sees_every_value() {
        let digest = |text: &str| Digest::of_json(&serde_json::from_str(text).unwrap());
        assert_eq!(digest(r#"{"a":1,"b":[1,2]}"#), digest(r#"{"b":[1,2],"a":1}"#));
        for other in [r#"{"a":1,"b":[2,1]}"#, r#"{"a":"1","b":[1,2]}"#, r#"{"a":1}"#, r#"{"a":1,"b":[12]}"#] {
            assert_ne!(digest(r#"{"a":1,"b":[1,2]}"#), digest(other), "{other}");
        }
    }

    #[test]
    fn the_live_count_wins_inside_the_range() {
        let range = ReplicaRange { min: 2, max: 5 };
        for (live, settled) in [(None, 2), (Some(0), 2), (Some(2), 2), (Some(4), 4), (Some(9), 5)] {
            assert_eq!(range.settle(live), settled, "{live:?}");
        }
    }
}
