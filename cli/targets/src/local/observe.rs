//! What runs now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mlctl_core::item::{ItemId, ItemKind};
use mlctl_core::local_protocol::{Layout, Request, Response, WorkloadView};
use mlctl_core::ports::Result;
use mlctl_core::snapshot::{Live, Snapshot};
use mlctl_core::status::{Cause, Status, WorkloadStatus};

use super::items::{self, ItemRecord};
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
                snapshot.items.insert(id, live_static(&self.layout, &record)?);
            }
        }
        for view in self.workloads().await? {
            snapshot.items.insert(ItemId::workload(&view.name), live_workload(&view));
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
    pub(super) fn statics(&self, ids: &[ItemId]) -> Result<BTreeMap<ItemId, Live>> {
        let mut lives = BTreeMap::new();
        for id in ids.iter().filter(|id| id.kind != ItemKind::Workload) {
            let record = items::find(&self.layout, id)?.filter(|record| !record.removed);
            let live = match record {
                Some(record) => live_static(&self.layout, &record)?,
                None => Live::missing(),
            };
            lives.insert(id.clone(), live);
        }
        Ok(lives)
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
