//! What runs now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::local_protocol::{Layout, Request, Response, WorkloadView};
use mlctl_core::ports::Result;
use mlctl_core::snapshot::{Live, Snapshot};
use mlctl_core::status::{Cause, Status, WorkloadStatus};

use super::items::{self, ItemRecord};
use super::servers::LocalStore;
use super::{Local, lease, secrets};

impl Local {
    /// Takes a snapshot. An empty target is told as one without an agent being started.
    pub(super) async fn snapshot(&self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::empty(Timestamp::now());
        if !self.client.has_state().await {
            return Ok(snapshot);
        }
        for (id, record) in items::all(&self.layout)? {
            if id.kind != ItemKind::Workload {
                snapshot.items.insert(id, self.live_store(&record, None)?);
            }
        }
        for view in self.workloads().await? {
            let store = ItemId::new(ItemKind::Store, &view.name);
            match items::find(&self.layout, &store)? {
                // Of one that is a file by now, the server that may still run is no item.
                Some(record) => drop(snapshot.items.insert(store, self.live_store(&record, Some(&view))?)),
                None => drop(snapshot.items.insert(ItemId::workload(&view.name), live_workload(&view))),
            }
        }
        snapshot.head = self.head()?;
        snapshot.overrides = self.overrides_in_force()?;
        Ok(snapshot)
    }

    pub(super) async fn workloads(&self) -> Result<Vec<WorkloadView>> {
        match self.client.ask("observe", "the target", Request::Observe).await? {
            Response::Workloads { workloads } => Ok(workloads),
            other => Err(lease::unexpected("observe", &other)),
        }
    }

    /// Tells the items without replicas among those asked for, absent ones too.
    pub(super) async fn statics(&self, ids: &[ItemId]) -> Result<BTreeMap<ItemId, Live>> {
        let mut lives = BTreeMap::new();
        let mut views = None;
        for id in ids.iter().filter(|id| id.kind != ItemKind::Workload) {
            let live = match items::find(&self.layout, id)? {
                Some(record) if id.kind == ItemKind::Store => {
                    if views.is_none() && LocalStore::of(&record.item, "observe")?.server.is_some() {
                        views = Some(self.workloads().await?);
                    }
                    let mut views = views.iter().flatten();
                    self.live_store(&record, views.find(|view| view.name == id.name && !view.gone))?
                }
                Some(record) if !record.removed => live_static(&self.layout, &record)?,
                _ => Live::missing(),
            };
            lives.insert(id.clone(), live);
        }
        Ok(lives)
    }

    /// Tells an item without replicas that may be a store: one with a server is as the agent sees that.
    fn live_store(&self, record: &ItemRecord, view: Option<&WorkloadView>) -> Result<Live> {
        let is_server = record.item.id.kind == ItemKind::Store
            && LocalStore::of(&record.item, "observe")?.server.is_some();
        Ok(match (is_server, view) {
            (false, _) if record.removed => Live::missing(),
            (false, _) => live_static(&self.layout, record)?,
            (true, None) => Live { generation: record.generation, ..Live::missing() },
            (true, Some(view)) => live_server(record, view),
        })
    }
}

/// Tells a store's server. Its generation counts what was asked of the item; the agent has seen that once its own view
/// is of the same digest.
fn live_server(record: &ItemRecord, view: &WorkloadView) -> Live {
    let seen = view.digest == record.item.digest && view.observed_generation >= view.generation;
    Live {
        digest: Some(view.digest.clone()).filter(|_| !record.removed),
        generation: record.generation,
        observed_generation: record.generation - u64::from(!seen && !record.removed),
        replicas: None,
        status: view.status.clone(),
    }
}

/// Tells a workload from the agent's view of it.
pub(super) fn live_workload(view: &WorkloadView) -> Live {
    Live {
        digest: (!view.gone).then(|| view.digest.clone()),
        generation: view.generation,
        observed_generation: view.observed_generation,
        replicas: (!view.gone).then_some(view.replicas),
        status: view.status.clone(),
    }
}

/// Tells an item without replicas: it is current when what it stands for is there.
///
/// Of an embedded store that is its folder: the database inside is made and opened by the services, and their own
/// health says whether it works.
fn live_static(layout: &Layout, record: &ItemRecord) -> Result<Live> {
    let id = &record.item.id;
    let absent = match id.kind {
        ItemKind::Secret => secrets::read(layout, &id.name)?.is_none().then_some("it has no value"),
        ItemKind::Store => {
            let folder = std::fs::metadata(layout.data());
            let usable = folder.is_ok_and(|m| m.is_dir() && !m.permissions().readonly());
            (!usable).then_some("its folder is not there or cannot be written")
        }
        ItemKind::Namespace | ItemKind::Config | ItemKind::Migration | ItemKind::Workload => None,
    };
    let mut status = WorkloadStatus::simple(Status::Current);
    if let Some(reason) = absent {
        status.status = Status::Failed;
        status.cause = Some(Cause::terminal("missing", format!("{id}: {reason}; deploy again to make it")));
    }
    Ok(Live {
        digest: Some(record.item.digest.clone()),
        generation: record.generation,
        observed_generation: record.generation,
        replicas: None,
        status,
    })
}
