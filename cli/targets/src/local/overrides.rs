//! Overrides, one file; the maintenance of the public front takes effect here.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mlctl_core::local_protocol::Request;
use mlctl_core::overrides::{Override, OverrideKind};
use mlctl_core::ports::{ErrorKind, Fence, OrchestratorError, OverrideStore, Result};
use tokio::time::{Instant, sleep};

use super::items::{self, LocalWorkload};
use super::{Local, files, lease, maintenance};

/// For another mlctl that changes overrides, or puts a workload with them.
const LOCK_WAIT: Duration = Duration::from_secs(15);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(20);
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

    /// Takes the lock of the overrides for as long as the returned file lives. Who changes them holds it until the
    /// fronts are told, and who puts a workload from reading them to writing it: whoever is second sees what the
    /// first has done.
    pub(super) async fn lock_overrides(&self) -> Result<File> {
        files::make_folder(self.layout.root())?;
        let path = self.layout.root().join("overrides.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(files::failed("open", &path))?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(source)) => return Err(files::failed("lock", &path)(source)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOOK).await,
                Err(TryLockError::WouldBlock) => {
                    let reason = format!(
                        "another mlctl has held it for {} s: wait for it, or end it (`fuser -v` names it)",
                        LOCK_WAIT.as_secs()
                    );
                    let subject = path.display().to_string();
                    return Err(OrchestratorError::new(ErrorKind::Timeout, "lock", subject, reason));
                }
            }
        }
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
        let _lock = self.lock_overrides().await?;
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
        let _lock = self.lock_overrides().await?;
        let mut all = self.overrides()?;
        let Some(ended) = take(&mut all, id) else { return Ok(false) };
        self.keep_overrides("end", id, &all, fence).await?;
        if is_maintenance(&ended) {
            self.tell_fronts(&all, fence).await?;
        }
        Ok(true)
    }
}
