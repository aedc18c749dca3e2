//! Takes over what an earlier agent left: workloads, replicas that run, those that ended meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Settings;
use super::event_log::EventLog;
use super::lease::{LeaseBook, Moment};
use super::relay_keeper::RelayKeeper;
use super::replica::Replica;
use super::runs::{end_of_run, follow, running, take_over};
use super::supervisor::{Message, Supervisor, Views};
use super::workload::Workload;
use crate::process::{Process, boot, kill_orphans, kill_shim};
use crate::record::{Intent, ReplicaFolder, ReplicaRecord, ShimStatus, WorkloadRecord};
use crate::{AgentError, disk};
use jiff::Timestamp;
use mlctl_core::local_protocol::Layout;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// How long somebody may hold a folder and not tell who that is.
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
        disk::sweep(layout.root());
        // What clients keep here is swept too: nobody else would, and there are secrets among it.
        for name in ["artifacts", "files", "items", "journals", "releases", "secrets", "workloads"] {
            disk::sweep_below(&layout.root().join(name));
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let relay = RelayKeeper::adopt(&layout, &settings.runtime, tell.clone()).await?;
        let mut supervisor = Self {
            lease: LeaseBook::open(
                disk::read_json(&layout.lease())?.unwrap_or_default(),
                boot(),
                Moment::now(),
            ),
            events: EventLog::open(layout.events()),
            build: settings.build.clone(),
            host: host.trim().to_owned(),
            workloads: BTreeMap::new(),
            retired: disk::read_json(&layout.generations())?.unwrap_or_default(),
            replicas: BTreeMap::new(),
            relay,
            views: watch::Sender::new(Views::default()),
            stopping: Vec::new(),
            ending: None,
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
        let mut cut_off = Vec::new();
        for path in entries(&self.layout.replicas())? {
            let folder = ReplicaFolder(path);
            disk::sweep(folder.path());
            let name = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = match disk::read_json::<ReplicaRecord>(&folder.record()) {
                Ok(Some(record)) => record,
                // Its maker died before it had begun, or the power went.
                Ok(None) | Err(AgentError::Json { .. }) => {
                    put_out(&folder).await?;
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
                Tenant::Running(status) => take_over(&mut replica, &status, &self.tell),
                Tenant::Starting(shim) => {
                    follow(&mut replica, shim, &self.tell);
                    if is_torn(&replica.folder) {
                        // It told, and nobody can read it any more: its program can only be started anew.
                        kill_shim(shim);
                    }
                }
                Tenant::Nobody if replica.record.intent == Intent::Run && has_no_trace(&replica.folder) => {
                    cut_off.push(name.clone());
                }
                Tenant::Nobody => {
                    let exit = end_of_run(&replica.folder, None, None);
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
        // Their agent died while it started them: nothing of them has ended.
        for name in cut_off {
            self.start(&name);
        }
        ended.sort();
        for (_, service, name) in ended {
            self.ended.entry(service).or_default().push_back(name);
        }
        Ok(())
    }
}

/// Who has a replica's folder.
#[derive(Debug, PartialEq)]
pub(super) enum Tenant {
    /// Nobody.
    Nobody,
    /// A shim that has not told of its program yet.
    Starting(Process),
    /// A shim and its program.
    Running(ShimStatus),
}

/// Returns who has a folder. A shim that was started just before its agent died is found too, or its program would run
/// on known to nobody; one that only begins to hold the folder is waited for.
pub(super) async fn settled(folder: &ReplicaFolder) -> Tenant {
    let deadline = Instant::now() + SETTLE_WAIT;
    loop {
        if let Some(status) = running(folder) {
            return Tenant::Running(status);
        }
        if let Some(shim) = disk::holder(&folder.shim_lock()) {
            return Tenant::Starting(shim);
        }
        if !disk::is_locked(&folder.shim_lock()) || Instant::now() >= deadline {
            return Tenant::Nobody;
        }
        sleep(SETTLE_LOOK).await;
    }
}

/// Says whether what a shim told cannot be read.
fn is_torn(folder: &ReplicaFolder) -> bool {
    matches!(disk::read_json::<ShimStatus>(&folder.status()), Err(AgentError::Json { .. }))
}

/// Says whether no run of a replica has left anything: its start was cut off before its shim had begun.
fn has_no_trace(folder: &ReplicaFolder) -> bool {
    !folder.status().exists() && !folder.exit().exists()
}

/// Ends whatever runs in a folder whose record cannot be read: nobody could say what it is, and nothing may be started
/// beside it.
async fn put_out(folder: &ReplicaFolder) -> Result<(), AgentError> {
    let shim = match settled(folder).await {
        Tenant::Running(status) => status.shim,
        Tenant::Starting(shim) => shim,
        Tenant::Nobody if disk::is_locked(&folder.shim_lock()) => {
            return Err(AgentError::Held { path: folder.shim_lock() });
        }
        Tenant::Nobody => return Ok(()),
    };
    kill_shim(shim);
    // One that not even that ends hangs in the kernel, and so would we.
    if timeout(SETTLE_WAIT, shim.ended()).await.is_err() {
        return Err(AgentError::Held { path: folder.shim_lock() });
    }
    kill_orphans(shim);
    Ok(())
}

fn entries(folder: &std::path::Path) -> Result<Vec<std::path::PathBuf>, AgentError> {
    let entries = std::fs::read_dir(folder).map_err(AgentError::file("list", folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;

    fn status(shim: Process) -> ShimStatus {
        ShimStatus {
            shim,
            program: shim,
            started_at: Timestamp::UNIX_EPOCH,
            approximate: None,
            ports: None,
            boot: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_shim_is_known_from_the_moment_it_holds_its_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = ReplicaFolder(temporary.path().to_owned());
        assert_eq!(settled(&folder).await, Tenant::Nobody);
        let lock = disk::lock(&folder.shim_lock()).unwrap();
        assert_eq!(
            settled(&folder).await,
            Tenant::Starting(Process::own()),
            "it has not told of its program yet"
        );
        let status = status(Process::own());
        disk::write_json(&folder.status(), &status, disk::Durability::Process).unwrap();
        assert_eq!(settled(&folder).await, Tenant::Running(status));
        disk::write(&folder.status(), b"{\"shim\":", disk::Durability::Process).unwrap();
        assert_eq!(settled(&folder).await, Tenant::Starting(Process::own()), "torn is as good as not told");
        // Held, and the one who holds it does not say who it is until later.
        std::fs::write(folder.shim_lock(), "").unwrap();
        let begun = Instant::now();
        assert_eq!(settled(&folder).await, Tenant::Nobody);
        assert_eq!(begun.elapsed(), SETTLE_WAIT);
        let tell = async {
            sleep(SETTLE_WAIT / 2).await;
            std::fs::write(folder.shim_lock(), serde_json::to_vec(&Process::own()).unwrap()).unwrap();
        };
        let (found, ()) = tokio::join!(settled(&folder), tell);
        assert_eq!(found, Tenant::Starting(Process::own()));
        drop(lock);
        let begun = Instant::now();
        assert_eq!(settled(&folder).await, Tenant::Nobody);
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_that_is_another_processs_by_now_is_nobody() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = ReplicaFolder(temporary.path().to_owned());
        // A living process has the number of the shim that wrote these files, and another start.
        let reused = Process { start: Process::own().start + 1, ..Process::own() };
        disk::write_json(&folder.status(), &status(reused), disk::Durability::Process).unwrap();
        std::fs::write(folder.shim_lock(), serde_json::to_vec(&reused).unwrap()).unwrap();
        assert_eq!(settled(&folder).await, Tenant::Nobody);
        assert_eq!(running(&folder), None);
        put_out(&folder).await.unwrap();
        // And if it were killed for what the files say, this test would be no more.
        let exit = end_of_run(&folder, Some(reused), None);
        assert_eq!(exit.words(), "unknown end (its shim died)");
    }
}
