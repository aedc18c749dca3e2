//! One agent per state folder: takes requests, drives rolling updates, probes replicas.
//!
//! One task, `supervisor`, owns all state and handles one message at a time; probes, ended shims and client
//! connections reach it through one channel. Two pure functions hold the rules: `rollout::decide` says which
//! replicas come and go, `diagnose::diagnose` what to tell about it. Everything that must outlive the agent is on
//! disk before it is acted on, so killing the agent loses nothing.

mod adopt;
mod diagnose;
mod event_log;
mod files;
mod fill;
mod lease;
mod needs;
mod ports;
mod probe;
mod relay_keeper;
mod replica;
mod requests;
mod rollout;
mod runs;
mod server;
mod shims;
mod start;
mod supervisor;
mod view;
mod workload;

use std::path::PathBuf;

use mlctl_core::local_protocol::Layout;
use nix::sys::resource::{Resource, getrlimit};

use crate::{AgentError, disk, runtime};

pub(crate) use probe::PROBE_USER;

/// Files that an agent of a few dozen replicas has open: three a replica, and its clients.
const OPEN_FILES: u64 = 256;

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state folder, absolute.
    pub folder: PathBuf,
    /// The folder of the sockets.
    pub runtime: PathBuf,
    /// The build, told to clients: one of another build asks this agent to make way.
    pub build: String,
}

/// Serves as the agent of a folder until asked to end. Replicas go on without it.
///
/// # Errors
/// Another agent has the folder ([`AgentError::Held`]), or its files or sockets cannot be used.
pub fn run(settings: Settings) -> Result<(), AgentError> {
    // An agent that starves half-way could neither go on nor be asked to end.
    let (_, files) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(AgentError::process("read the limits of", "the agent"))?;
    if files < OPEN_FILES {
        return Err(AgentError::Limit {
            what: "open files",
            has: files,
            needs: OPEN_FILES,
            how: "ulimit -Hn",
        });
    }
    let layout = Layout::new(&settings.folder);
    disk::make_private_folder(layout.root())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::process("start", "the agent's runtime"))?;
    runtime.block_on(async {
        let lock = disk::lock_soon(&layout.agent_lock()).await?;
        runtime::prepare(&settings.runtime)?;
        let result = server::serve(settings, layout).await;
        drop(lock);
        result
    })
}
