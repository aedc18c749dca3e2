//! Holds one replica: its log, its wait status, its limits and its stop signal.
//!
//! Signals to the shim: SIGTERM asks the replica to end and kills it after its grace; SIGQUIT, or SIGTERM again,
//! kills it at once. SIGHUP and SIGINT are for terminals and ignored. The shim ends when its replica has ended, and
//! whatever the program started ends with it, in whichever group or session it is: the shim is their reaper. When the
//! shim is killed from outside, what is left of its session is killed by the agent; what had left the session is not
//! known to anybody then, and lives on. The agent itself kills a shim with all that is below it. The shim of the relay starts it again unless it was asked to end, so that addresses come back without an agent.

mod cgroup;
mod hold;
mod limit;
mod log;
mod remains;

use std::path::Path;

pub(crate) use remains::END_WAIT;

use crate::record::ReplicaFolder;
use crate::{AgentError, disk};

/// Runs the program of a replica's folder and holds it until it has ended. One shim a folder: a second one is
/// refused before it touches anything.
///
/// # Errors
/// The folder is held already, or cannot be read or written. That the program fails is no error: it is recorded.
pub fn run(folder: &Path) -> Result<(), AgentError> {
    let folder = ReplicaFolder(folder.to_owned());
    // Fails when we lead a session already.
    let _ = nix::unistd::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AgentError::process("start", "the shim's runtime"))?;
    runtime.block_on(async {
        let lock = disk::lock_soon(&folder.shim_lock()).await?;
        let result = hold::hold(&folder).await;
        drop(lock);
        result
    })
}
