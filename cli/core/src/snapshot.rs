//! Snapshot: what a target runs at one moment, each item with its generation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::item::{Desired, Digest, Item, ItemId};
use crate::overrides::Override;
use crate::release::ReleaseHead;
use crate::status::{Status, WorkloadStatus};

/// One live item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Digest of the item it was made from; none when mlctl did not make it.
    pub digest: Option<Digest>,
    /// Counts the writes to it; each accepted `apply` returns a higher one.
    pub generation: u64,
    /// The generation that `status` speaks of.
    pub observed_generation: u64,
    /// The replica count asked for, when it has replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Where it stands.
    pub status: WorkloadStatus,
}

impl Live {
    /// Returns an item that is not there.
    #[must_use]
    pub const fn missing() -> Self {
        Self {
            digest: None,
            generation: 0,
            observed_generation: 0,
            replicas: None,
            status: WorkloadStatus::simple(Status::NotFound),
        }
    }

    /// Says whether it is there and works.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.status.status == Status::Current
    }
}

/// What runs on a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken.
    pub taken_at: jiff::Timestamp,
    /// Live items by id; an absent id is an item that is not there.
    pub items: BTreeMap<ItemId, Live>,
    /// The release the target says it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<ReleaseHead>,
    /// Overrides in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

impl Snapshot {
    /// Returns an empty world.
    #[must_use]
    pub const fn empty(taken_at: jiff::Timestamp) -> Self {
        Self { taken_at, items: BTreeMap::new(), head: None, overrides: Vec::new() }
    }

    /// Returns the live item, or "not found".
    #[must_use]
    pub fn get(&self, id: &ItemId) -> Live {
        self.items.get(id).cloned().unwrap_or_else(Live::missing)
    }

    /// Returns the applications that do not run as a desired state says, with what is wrong about each.
    #[must_use]
    pub fn strays(&self, desired: &Desired) -> Vec<(ItemId, String)> {
        let stray = |item: &Item| {
            let live = self.get(&item.id);
            if live.status.status == Status::NotFound {
                return Some((item.id.clone(), Status::NotFound.word().to_owned()));
            }
            (live.digest.as_ref() != Some(&item.digest))
                .then(|| (item.id.clone(), "of another release".to_owned()))
        };
        desired.applications().filter_map(stray).collect()
    }

    /// Returns a digest of what a plan stands on: items by digest and generation, and the head.
    ///
    /// Statuses and counts of ready replicas are left out: they move without anybody having changed the world.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut lines: Vec<String> = self
            .items
            .iter()
            .filter(|(_, live)| live.status.status != Status::NotFound)
            .map(|(id, live)| {
                let digest = live.digest.as_ref().map_or("-", Digest::as_str);
                format!("{id} {digest} {} {:?}", live.generation, live.replicas)
            })
            .collect();
        lines.push(self.head.as_ref().map_or_else(|| "head -".to_owned(), |h| format!("head {}", h.number)));
        lines.extend(self.overrides.iter().map(|o| format!("override {}", o.id)));
        Digest::of(lines.join("\n").as_bytes())
    }
}
