//! Items as they were last written: what `preview` compares with and `observe` tells of things without replicas.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mlctl_core::item::{Item, ItemId, ItemKind};
use mlctl_core::local_protocol::{Layout, StateChange, WorkloadSpec};
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};
use serde::{Deserialize, Serialize};

use super::files;

/// An item on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ItemRecord {
    /// As it was written.
    pub(super) item: Item,
    /// Counts the writes; those of a workload are counted by the agent.
    pub(super) generation: u64,
    /// True once it was removed: the count goes on when it comes back.
    #[serde(default)]
    pub(super) removed: bool,
}

/// The payload of a workload: what the agent needs, and what only this side does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LocalWorkload {
    /// For the agent.
    pub(super) spec: WorkloadSpec,
    /// Where the build left the artifact, from which it is copied once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<PathBuf>,
    /// True for the public front.
    #[serde(default)]
    pub(super) gateway: bool,
}

impl LocalWorkload {
    /// Reads the payload of a workload.
    pub(super) fn of(item: &Item, operation: &'static str) -> Result<Self> {
        Self::deserialize(&item.payload).map_err(|error| {
            let reason = format!("it was not made by this target ({error}): deploy again");
            OrchestratorError::new(ErrorKind::Invalid, operation, item.id.to_string(), reason)
        })
    }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.root().join("items")
}

fn path(layout: &Layout, id: &ItemId) -> PathBuf {
    layout.root().join(relative(id))
}

fn relative(id: &ItemId) -> String {
    format!("items/{}/{}.json", id.kind.word(), id.name)
}

/// Returns an item as last written, removed ones too.
pub(super) fn find(layout: &Layout, id: &ItemId) -> Result<Option<ItemRecord>> {
    files::read_json(&path(layout, id))
}

/// Returns the change that keeps an item.
pub(super) fn kept(record: &ItemRecord) -> Result<StateChange> {
    files::change(&relative(&record.item.id), record)
}

/// Returns all items that were not removed.
pub(super) fn all(layout: &Layout) -> Result<BTreeMap<ItemId, ItemRecord>> {
    let mut all = BTreeMap::new();
    for kind in ItemKind::ALL {
        let folder = folder(layout).join(kind.word());
        for name in files::names(&folder)?.iter().filter(|name| name.ends_with(".json")) {
            if let Some(record) = files::read_json::<ItemRecord>(&folder.join(name))?.filter(|r| !r.removed) {
                all.insert(record.item.id.clone(), record);
            }
        }
    }
    Ok(all)
}
