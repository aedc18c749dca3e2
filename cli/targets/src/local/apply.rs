//! Writes, by kind of item.

use mlctl_core::item::{Digest, Item, ItemId, ItemKind};
use mlctl_core::local_protocol::{EnvSource, Request, Response, WorkloadSpec};
use mlctl_core::ports::{Applied, ErrorKind, Fence, OrchestratorError, Result, Write};

use super::items::{self, ItemRecord, LocalWorkload};
use super::servers::LocalStore;
use super::{Local, artifacts, files, lease, maintenance, secrets};

const APPLY: &str = "apply";

impl Local {
    /// Carries out one write.
    pub(super) async fn write(&self, write: &Write, fence: Fence) -> Result<Applied> {
        match write {
            Write::Put { item, replicas } if item.id.kind == ItemKind::Workload => {
                self.put_workload(item, *replicas, fence).await
            }
            Write::Put { item, .. } if item.id.kind == ItemKind::Store => self.put_store(item, fence).await,
            Write::Put { item, .. } => {
                lease::check(&self.client, APPLY, &item.id.to_string(), fence).await?;
                self.put_static(item, fence).await
            }
            Write::Remove { id } if id.kind == ItemKind::Workload => {
                // Noted first: whoever carries on a run that ended in between finds the workload there, and removes it.
                self.note_removed(id, fence).await?;
                let name = id.name.clone();
                self.ask_write(id, Request::Remove { fence, name }).await
            }
            Write::Remove { id } => {
                lease::check(&self.client, APPLY, &id.to_string(), fence).await?;
                // What a secret or store holds stays on disk: it outlives releases. `down --purge` removes the folder.
                let generation = self.note_removed(id, fence).await?;
                if self.last_server(id)?.is_some() {
                    let name = id.name.clone();
                    self.ask_write(id, Request::Remove { fence, name }).await?;
                }
                Ok(Applied { generation })
            }
            Write::Scale { id, replicas } => {
                let name = only_workloads(id, "scale")?;
                self.ask_write(id, Request::Scale { fence, name, replicas: *replicas }).await
            }
            Write::Restart { id, token } => {
                let name = only_workloads(id, "restart")?;
                self.ask_write(id, Request::Restart { fence, name, token: token.clone() }).await
            }
        }
    }

    async fn put_workload(&self, item: &Item, replicas: Option<u32>, fence: Fence) -> Result<Applied> {
        lease::check(&self.client, APPLY, &item.id.to_string(), fence).await?;
        artifacts::ensure(&self.layout, item, APPLY).await?;
        let mut spec = LocalWorkload::of(item, APPLY)?.spec;
        maintenance::overlay(&mut spec, &self.overrides()?, jiff::Timestamp::now());
        let replicas = replicas.or_else(|| item.replicas.map(|range| range.min)).unwrap_or(1);
        // Kept first: whoever carries on a run that ended in between finds the old workload, and puts the new one.
        self.keep_item(&ItemRecord { item: item.clone(), generation: 0, removed: false }, fence).await?;
        let put = Request::Put { fence, digest: item.digest.clone(), spec: Box::new(spec), replicas };
        self.ask_write(&item.id, put).await
    }

    async fn ask_write(&self, id: &ItemId, request: Request) -> Result<Applied> {
        match self.client.ask(APPLY, &id.to_string(), request).await? {
            Response::Applied { generation } => Ok(Applied { generation }),
            other => Err(lease::unexpected(APPLY, &other)),
        }
    }

    async fn put_static(&self, item: &Item, fence: Fence) -> Result<Applied> {
        match item.id.kind {
            ItemKind::Namespace => files::make_folder(self.layout.root())?,
            ItemKind::Secret => {
                let name = &item.id.name;
                let fresh = secrets::fresh(&self.layout, name, item, &self.settings.secret_values)?;
                if let Some(value) = fresh {
                    let (version, changes) = secrets::next_version(&self.layout, name, &value)?;
                    lease::keep(&self.client, APPLY, &item.id.to_string(), fence, changes).await?;
                    self.roll_readers(name, version, fence).await?;
                }
            }
            // Migrations run in a step of their own; here it is only known which ones the release has.
            ItemKind::Config | ItemKind::Migration | ItemKind::Store | ItemKind::Workload => {}
        }
        self.keep_static(item, fence).await
    }

    /// Keeps an item that the agent does not count the writes of, unless it is kept as it is.
    async fn keep_static(&self, item: &Item, fence: Fence) -> Result<Applied> {
        let before = items::find(&self.layout, &item.id)?;
        if let Some(known) = before.as_ref().filter(|r| r.item.digest == item.digest && !r.removed) {
            return Ok(Applied { generation: known.generation });
        }
        let generation = before.map_or(0, |record| record.generation) + 1;
        let record = ItemRecord { item: item.clone(), generation, removed: false };
        self.keep_item(&record, fence).await?;
        Ok(Applied { generation })
    }

    /// Starts the server of a store. Where it has none any more, the one it had goes on for as long as somebody needs
    /// it, and begins again should a release come back that does.
    async fn put_store(&self, item: &Item, fence: Fence) -> Result<Applied> {
        lease::check(&self.client, APPLY, &item.id.to_string(), fence).await?;
        // The embedded ones are files that their services make; what they need is the folder.
        files::make_folder(&self.layout.data())?;
        let id = &item.id;
        let put = async |spec, digest| {
            let request = Request::Put { fence, digest, spec: Box::new(spec), replicas: 1 };
            self.ask_write(id, request).await
        };
        match LocalStore::of(item, APPLY)?.server {
            Some(spec) => {
                // Kept first, as a workload is.
                let applied = self.keep_static(item, fence).await?;
                put(spec, item.digest.clone()).await?;
                Ok(applied)
            }
            None => {
                if let Some((mut spec, digest)) = self.last_server(id)? {
                    spec.while_needed = true;
                    put(spec, digest).await?;
                }
                self.keep_static(item, fence).await
            }
        }
    }

    /// Returns the server of a store as it was last written, removed or not, and the digest it was written as.
    fn last_server(&self, id: &ItemId) -> Result<Option<(WorkloadSpec, Digest)>> {
        let Some(record) = items::find(&self.layout, id)?.filter(|_| id.kind == ItemKind::Store) else {
            return Ok(None);
        };
        let server = LocalStore::of(&record.item, APPLY)?.server;
        Ok(server.map(|spec| (spec, record.item.digest)))
    }

    /// Rolls every workload that reads a secret: a replica keeps the value it started with.
    async fn roll_readers(&self, secret: &str, version: u32, fence: Fence) -> Result<()> {
        for (id, record) in items::all(&self.layout)? {
            if id.kind != ItemKind::Workload || record.removed {
                continue;
            }
            let spec = LocalWorkload::of(&record.item, APPLY)?.spec;
            let reads = spec.env.values().filter_map(EnvSource::secret).any(|name| name == secret);
            if reads {
                let (name, token) = (id.name.clone(), format!("secret {secret} version {version}"));
                match self.ask_write(&id, Request::Restart { fence, name, token }).await {
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    done => drop(done?),
                }
            }
        }
        Ok(())
    }

    async fn keep_item(&self, record: &ItemRecord, fence: Fence) -> Result<()> {
        let subject = record.item.id.to_string();
        lease::keep(&self.client, APPLY, &subject, fence, vec![items::kept(record)?]).await
    }

    async fn note_removed(&self, id: &ItemId, fence: Fence) -> Result<u64> {
        let Some(mut record) = items::find(&self.layout, id)? else { return Ok(0) };
        if !record.removed {
            record.removed = true;
            record.generation += 1;
            self.keep_item(&record, fence).await?;
        }
        Ok(record.generation)
    }
}

fn only_workloads(id: &ItemId, operation: &'static str) -> Result<String> {
    if id.kind == ItemKind::Workload {
        return Ok(id.name.clone());
    }
    let reason = "only workloads have replicas";
    Err(OrchestratorError::new(ErrorKind::Unsupported, operation, id.to_string(), reason))
}
