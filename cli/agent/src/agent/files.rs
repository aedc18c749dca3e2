//! Files beside the replicas of a workload: written before a start, rewritten live, changed when their time has come.

use jiff::Timestamp;
use mlctl_core::local_protocol::{FileSpec, StateChange};
use mlctl_core::ports::ErrorKind;
use tokio::time::Instant;

use super::fill::file_path;
use super::lease::Refusal;
use super::requests::{is_plain, refusal};
use super::supervisor::Supervisor;
use crate::{AgentError, disk};

impl Supervisor {
    /// Rewrites a live file that a workload has, without rolling it.
    pub(super) fn put_file(&mut self, name: &str, mut file: FileSpec) -> Result<(), Refusal> {
        if !is_plain(&file.name) || !file.live {
            return Err(refusal(ErrorKind::Invalid, format!("{:?} is no live file", file.name)));
        }
        let Some(workload) = self.workloads.get(name) else {
            return Err(refusal(ErrorKind::NotFound, format!("there is no workload {name}")));
        };
        let mut record = workload.record.clone();
        let Some(known) = record.spec.files.iter_mut().find(|f| f.name == file.name && f.live) else {
            let reason = format!("{name} has no live file {}", file.name);
            return Err(refusal(ErrorKind::NotFound, reason));
        };
        file.advance(Timestamp::now());
        known.clone_from(&file);
        self.write_file(name, &file)?;
        if let Some(workload) = self.workloads.get_mut(name) {
            workload.keep(&self.layout, record)?;
        }
        Ok(())
    }

    /// Changes files that clients keep in the state folder, in order; each lasts when this returns.
    pub(super) fn keep(&self, changes: &[StateChange]) -> Result<(), Refusal> {
        if let Some(change) = changes.iter().find(|change| !change.is_allowed()) {
            let reason = format!("{:?} is not among what clients keep in the state folder", change.path());
            return Err(refusal(ErrorKind::Invalid, reason));
        }
        for change in changes {
            let path = self.layout.root().join(change.path());
            if let Some(folder) = path.parent() {
                disk::make_private_folder(folder)?;
            }
            match change {
                StateChange::Write { content, .. } => {
                    disk::write(&path, content.as_bytes(), disk::Durability::Power)?;
                }
                StateChange::Link { to, .. } => disk::link(&path, to)?,
                StateChange::Remove { .. } if path.is_dir() => {
                    std::fs::remove_dir_all(&path).map_err(AgentError::file("remove", &path))?;
                    disk::sync_parent(&path).map_err(AgentError::file("remove", &path))?;
                }
                StateChange::Remove { .. } => {
                    disk::remove(&path)?;
                    disk::sync_parent(&path).map_err(AgentError::file("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn write_file(&self, service: &str, file: &FileSpec) -> Result<(), AgentError> {
        let path = file_path(&self.layout, service, file);
        if let Some(folder) = path.parent() {
            disk::make_private_folder(folder)?;
        }
        disk::write(&path, file.content.as_bytes(), disk::Durability::Process)
    }

    /// Rewrites the live files whose next content is due. What cannot be written is tried again by a later round.
    pub(super) fn advance_files(&mut self, now: Timestamp) {
        let due: Vec<String> = self
            .workloads
            .iter()
            .filter(|(_, w)| w.record.spec.files.iter().any(|f| f.changes_at().is_some_and(|at| at <= now)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(workload) = self.workloads.get(&name) else { continue };
            let mut record = workload.record.clone();
            let changed: Vec<FileSpec> =
                record.spec.files.iter_mut().filter_map(|f| f.advance(now).then(|| f.clone())).collect();
            let written = changed.iter().try_for_each(|file| self.write_file(&name, file));
            if let (Ok(()), Some(workload)) = (written, self.workloads.get_mut(&name))
                && workload.keep(&self.layout, record).is_ok()
            {
                for file in changed {
                    self.events.note(&name, None, "file", format!("{} changed at its time", file.name));
                }
            }
        }
    }

    /// Returns when the next content of a live file is due.
    pub(super) fn next_file(&self) -> Option<Instant> {
        let files = self.workloads.values().flat_map(|w| &w.record.spec.files);
        let next = files.filter_map(FileSpec::changes_at).min()?;
        // One that is overdue could not be written: the next round at rest tries again.
        let left = std::time::Duration::try_from(next.duration_since(Timestamp::now())).ok()?;
        Instant::now().checked_add(left)
    }
}
