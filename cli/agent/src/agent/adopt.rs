//! Takes over what an earlier agent left: workloads, replicas that run, those that ended meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Settings;
use super::event_log::EventLog;
use super::relay_keeper::RelayKeeper;
use super::replica::Replica;
use super::runs::{end_of_run, running, take_over};
use super::supervisor::{Message, Supervisor, Views};
use super::workload::Workload;
use crate::record::{Intent, ReplicaFolder, ReplicaRecord, ShimStatus, WorkloadRecord};
use crate::{AgentError, disk};
use jiff::Timestamp;
use mlctl_core::local_protocol::Layout;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

/// How long a shim may hold its folder before it tells of its program: it may wait for its listening socket.
const SETTLE_WAIT: Duration = Duration::from_secs(6);
/// Between two looks at such a folder.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

impl Supervisor {
    /// Reads the folder and takes over what runs in it.
    pub(super) async fn open(
        settings: &Settings,
        layout: Layout,
        tell: mpsc::Sender<Message>,
    ) -> Result<Self, AgentError> {
        for folder in [layout.workloads(), layout.replicas(), layout.data()] {
            disk::make_private_folder(&folder)?;
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let relay = RelayKeeper::adopt(&layout, &settings.runtime, tell.clone()).await?;
        let mut supervisor = Self {
            lease: disk::read_json(&layout.lease())?.unwrap_or_default(),
            events: EventLog::open(layout.events()),
            build: settings.build.clone(),
            host: host.trim().to_owned(),
            workloads: BTreeMap::new(),
            retired: disk::read_json(&layout.generations())?.unwrap_or_default(),
            replicas: BTreeMap::new(),
            relay,
            views: watch::Sender::new(Views::default()),
            stopping: Vec::new(),
            ended: BTreeMap::new(),
            measured: Instant::now(),
            approximate: BTreeSet::new(),
            tell,
            layout,
        };
        supervisor.load_workloads()?;
        supervisor.load_replicas().await?;
        Ok(supervisor)
    }

    fn load_workloads(&mut self) -> Result<(), AgentError> {
        for path in entries(&self.layout.workloads())? {
            if path.extension().is_some_and(|e| e == "json")
                && let Some(record) = disk::read_json::<WorkloadRecord>(&path)?
            {
                self.workloads.insert(record.spec.name.clone(), Workload::new(record));
            }
        }
        Ok(())
    }

    async fn load_replicas(&mut self) -> Result<(), AgentError> {
        let mut ended: Vec<(Timestamp, String, String)> = Vec::new();
        for path in entries(&self.layout.replicas())? {
            let folder = ReplicaFolder(path);
            let name = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = match disk::read_json::<ReplicaRecord>(&folder.record()) {
                Ok(Some(record)) => record,
                // Something runs there that we cannot read about: nothing may be started beside it.
                Err(error) if disk::is_locked(&folder.shim_lock()) => return Err(error),
                // Its maker died before it had begun, or the power went.
                Ok(None) | Err(AgentError::Json { .. }) => {
                    let _ = std::fs::remove_dir_all(folder.path());
                    continue;
                }
                Err(error) => return Err(error),
            };
            if record.intent == Intent::Ended {
                ended.push((record.created_at, record.service, name));
                continue;
            }
            let mut replica = Replica::new(name.clone(), folder, record);
            match settled(&replica.folder).await {
                Some(status) => take_over(&mut replica, &status, &self.tell),
                None => {
                    let exit = end_of_run(&replica.folder);
                    self.events.note(
                        &replica.record.service,
                        Some(&name),
                        "exited",
                        format!("{} while there was no agent", exit.words()),
                    );
                    replica.ended(exit);
                }
            }
            self.replicas.insert(name, replica);
        }
        ended.sort();
        for (_, service, name) in ended {
            self.ended.entry(service).or_default().push_back(name);
        }
        Ok(())
    }
}

/// Returns who runs in a folder. A shim that was started just before its agent died holds the folder already and has
/// not told of its program yet: it is waited for, or its program would run on known to nobody.
pub(super) async fn settled(folder: &ReplicaFolder) -> Option<ShimStatus> {
    let deadline = Instant::now() + SETTLE_WAIT;
    loop {
        let running = running(folder);
        if running.is_some() || !disk::is_locked(&folder.shim_lock()) || Instant::now() >= deadline {
            return running;
        }
        sleep(SETTLE_LOOK).await;
    }
}

fn entries(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>, AgentError> {
    let entries = std::fs::read_dir(folder).map_err(AgentError::file("list", folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_has_not_told_of_its_program_yet_is_waited_for() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = ReplicaFolder(temporary.path().to_owned());
        assert_eq!(settled(&folder).await, None, "nobody holds it");
        let lock = disk::lock(&folder.shim_lock()).unwrap();
        let status = ShimStatus {
            shim: Process::own(),
            program: Process::own(),
            started_at: Timestamp::UNIX_EPOCH,
            approximate: None,
        };
        let tell = async {
            sleep(Duration::from_secs(4)).await;
            disk::write_json(&folder.status(), &status, disk::Durability::Process).unwrap();
        };
        let (found, ()) = tokio::join!(settled(&folder), tell);
        assert_eq!(found, Some(status));
        disk::write(&folder.status(), b"", disk::Durability::Process).unwrap();
        assert_eq!(settled(&folder).await, None, "it never tells");
        drop(lock);
        let begun = Instant::now();
        assert_eq!(settled(&folder).await, None);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
