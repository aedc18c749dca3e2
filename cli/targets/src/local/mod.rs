//! The embedded target: service processes of this machine under mlctl's own agent.
//!
//! The agent owns workloads, replicas, the relay and the lease. What this side keeps beside them in the same state
//! folder (items as last written, releases, overrides, secrets) the agent writes for it, behind the fence. Artifacts,
//! journals and the folders of both are written here: artifacts under their digest, which nothing refers to before the
//! agent was told; journals under the rule of their records, that one process at a time carries a run on. Nothing here touches a state folder before the first write, and reading an empty
//! one starts no agent.

mod apply;
mod artifacts;
mod client;
mod files;
mod inspect;
mod items;
mod journals;
mod lease;
mod logs;
mod maintenance;
mod observe;
mod overrides;
mod preview;
mod process;
mod releases;
mod resolve;
mod routes;
mod secrets;
mod servers;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use mlctl_core::item::{Desired, Item, ItemId};
use mlctl_core::local_protocol::Layout;
use mlctl_core::plan::Difference;
use mlctl_core::ports::{
    Applied, Fence, Lease, LockRequest, Observation, Orchestrator, OrchestratorError, ReleaseInput, Result,
    StoreMode, Write,
};
use mlctl_core::secret::Secret;
use mlctl_core::snapshot::Snapshot;
use mlctl_core::system::System;

use client::Client;

/// Returns the digest of an artifact, file or folder, without holding up a task.
pub(crate) async fn artifact_digest(path: PathBuf) -> std::io::Result<mlctl_core::item::Digest> {
    artifacts::blocking(move || artifacts::digest(&path)).await
}

/// What the local target is opened with.
#[derive(Debug, Clone)]
pub struct LocalSettings {
    /// The state folder, absolute.
    pub folder: PathBuf,
    /// The program of mlctl itself, which is also agent, shim and relay.
    pub exe: PathBuf,
    /// Its build: an agent of another build is replaced, its replicas go on.
    pub build: String,
    /// The folder of the sockets: `$XDG_RUNTIME_DIR/mlctl`, or one under `/tmp` that only its owner may enter.
    pub runtime_dir: PathBuf,
    /// The system that is deployed.
    pub system: System,
    /// The folder of `mlctl.yaml`, against which its paths count.
    pub source_dir: PathBuf,
    /// Secrets whose value was given from outside, by name.
    pub secret_values: BTreeMap<String, Secret>,
}

/// The local target.
#[derive(Debug, Clone)]
pub struct Local {
    settings: Arc<LocalSettings>,
    layout: Layout,
    client: Client,
    /// Told at every write of this process, so that its watches need not wait for their next look.
    written: Arc<tokio::sync::watch::Sender<u64>>,
}

/// Opens the local target. Touches nothing.
///
/// # Errors
/// `Invalid` when the folder is not absolute: the agent runs elsewhere and would look for it there.
pub async fn connect(settings: LocalSettings) -> Result<Local> {
    if !settings.folder.is_absolute() {
        let subject = settings.folder.display().to_string();
        let reason = "the state folder must be an absolute path";
        return Err(OrchestratorError::new(mlctl_core::ports::ErrorKind::Invalid, "open", subject, reason));
    }
    let layout = Layout::new(&settings.folder);
    let client = Client::new(&settings, &layout);
    Ok(Local {
        layout,
        client,
        settings: Arc::new(settings),
        written: Arc::new(tokio::sync::watch::Sender::new(0)),
    })
}

impl Local {
    /// Ends the agent with every replica and the relay; the lease ends with them. What was applied stays on disk.
    ///
    /// # Errors
    /// The agent does not answer, does not end, or the lease is lost.
    pub async fn stop(&self, fence: Fence) -> Result<()> {
        self.client.stop("stop", fence).await
    }

    /// Says whether an agent answers now.
    pub async fn is_running(&self) -> bool {
        self.client.is_running().await
    }

    /// Removes everything the target keeps; no agent can begin in the folder meanwhile.
    ///
    /// # Errors
    /// Another agent has begun there, or a file that cannot be removed.
    pub async fn purge(&self) -> Result<()> {
        let root = self.layout.root().to_owned();
        if !root.exists() {
            return Ok(());
        }
        let _lock = self.client.keep_out("remove").await?;
        let removed = artifacts::blocking({
            let root = root.clone();
            move || remove_aside(&root)
        });
        removed.await.map_err(files::failed("remove", &root))
    }

    /// Sees that this machine has the servers that real stores need; to be asked before a long build.
    ///
    /// # Errors
    /// `Unavailable` for a program that is not there or of another version, with its Debian package.
    pub async fn check_servers(&self, system: &System) -> Result<()> {
        self.find_servers(system).await.map(drop)
    }

    async fn find_servers(&self, system: &System) -> Result<servers::Servers> {
        let path = std::env::var("PATH").unwrap_or_default();
        servers::find(&self.layout, system, &path).await
    }

    fn note_write(&self) {
        self.written.send_modify(|count| *count += 1);
    }
}

/// Removes a folder under another name: the lock vanishes with it, and whoever begins in a folder of its name then must
/// not lose files to us.
fn remove_aside(root: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
        return std::fs::remove_dir_all(root);
    };
    let prefix = format!("{}.removed-", name.to_string_lossy());
    let aside = parent.join(format!("{prefix}{}", std::process::id()));
    // What others that were killed meanwhile have left, secrets among it; one of our own number too.
    for entry in std::fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    std::fs::rename(root, &aside)?;
    std::fs::remove_dir_all(&aside)
}

#[async_trait]
impl Orchestrator for Local {
    async fn resolve(&self, system: &System, input: &ReleaseInput) -> Result<Desired> {
        let servers = match input.stores {
            StoreMode::Embedded => servers::Servers::new(),
            StoreMode::Real => self.find_servers(system).await?,
        };
        resolve::resolve(&self.layout, system, input, &servers)
    }

    async fn observe(&self) -> Result<Snapshot> {
        self.snapshot().await
    }

    async fn preview(&self, item: &Item) -> Result<Vec<Difference>> {
        self.differences(item).await
    }

    async fn apply(&self, write: &Write, fence: Fence) -> Result<Applied> {
        let applied = self.write(write, fence).await;
        self.note_write();
        applied
    }

    async fn watch(&self, ids: &[ItemId]) -> Result<BoxStream<'static, Result<Observation>>> {
        self.observations(ids).await
    }

    async fn lock(&self, request: &LockRequest) -> Result<Box<dyn Lease>> {
        lease::take(&self.client, request).await
    }
}
