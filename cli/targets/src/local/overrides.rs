//! Overrides, one file; the maintenance of the public front takes effect here.
//!
//! Only the holder of the lease changes them, and only it puts workloads with them: whoever is second sees what the
//! first has done. No file is locked for that: a process that is stopped in between would keep the next one out.

use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use mlctl_core::local_protocol::Request;
use mlctl_core::overrides::{Override, OverrideKind};
use mlctl_core::ports::{ErrorKind, Fence, OverrideStore, Result};

use super::items::{self, LocalWorkload};
use super::{Local, files, lease, maintenance};

/// The file, in the state folder.
const FILE: &str = "overrides.json";

impl Local {
    fn overrides_file(&self) -> PathBuf {
        self.layout.root().join(FILE)
    }

    /// Returns the overrides that are kept, those that are over too.
    pub(super) fn overrides(&self) -> Result<Vec<Override>> {
        Ok(files::read_json(&self.overrides_file())?.unwrap_or_default())
    }

    async fn keep_overrides(
        &self,
        operation: &'static str,
        id: &str,
        all: &[Override],
        fence: Fence,
    ) -> Result<()> {
        let change = files::change(FILE, &all)?;
        lease::keep(&self.client, operation, &format!("override {id}"), fence, vec![change]).await
    }

    /// Returns the overrides that are in force now.
    pub(super) fn overrides_in_force(&self) -> Result<Vec<Override>> {
        let now = Timestamp::now();
        Ok(self.overrides()?.into_iter().filter(|entry| entry.in_force(now)).collect())
    }

    /// Rewrites the routes of every public front that runs, without rolling it.
    async fn tell_fronts(&self, overrides: &[Override], fence: Fence) -> Result<()> {
        for record in items::all(&self.layout)?.into_values() {
            let Ok(workload) = LocalWorkload::of(&record.item, "maintain") else { continue };
            let mut spec = workload.spec;
            maintenance::overlay(&mut spec, overrides, Timestamp::now());
            for file in spec.files.into_iter().filter(|file| file.live && workload.gateway) {
                let name = record.item.id.name.clone();
                let subject = record.item.id.to_string();
                match self.client.ask("maintain", &subject, Request::File { fence, name, file }).await {
                    // It was removed by a command that died before it could note that here: nothing is left to tell.
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    told => drop(told?),
                }
            }
        }
        self.note_write();
        Ok(())
    }
}

/// Removes an override by its id.
fn take(all: &mut Vec<Override>, id: &str) -> Option<Override> {
    all.iter().position(|known| known.id == id).map(|index| all.remove(index))
}

fn is_maintenance(entry: &Override) -> bool {
    matches!(entry.kind, OverrideKind::Maintenance { .. })
}

#[async_trait]
impl OverrideStore for Local {
    async fn list(&self) -> Result<Vec<Override>> {
        self.overrides()
    }

    async fn put(&self, entry: &Override, fence: Fence) -> Result<()> {
        let mut all = self.overrides()?;
        let replaced = take(&mut all, &entry.id);
        all.push(entry.clone());
        self.keep_overrides("put", &entry.id, &all, fence).await?;
        if is_maintenance(entry) || replaced.as_ref().is_some_and(is_maintenance) {
            self.tell_fronts(&all, fence).await?;
        }
        Ok(())
    }

    async fn end(&self, id: &str, fence: Fence) -> Result<bool> {
        let mut all = self.overrides()?;
        let Some(ended) = take(&mut all, id) else { return Ok(false) };
        self.keep_overrides("end", id, &all, fence).await?;
        if is_maintenance(&ended) {
            self.tell_fronts(&all, fence).await?;
        }
        Ok(true)
    }
}
