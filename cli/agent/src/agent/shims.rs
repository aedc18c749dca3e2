//! Starts shims.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::AgentError;
use crate::record::ReplicaFolder;

/// Starts the shim of a folder, from our own binary even when its file was replaced meanwhile.
pub(super) fn start_shim(folder: &ReplicaFolder) -> Result<Child, AgentError> {
    let path = folder.shim_log();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(AgentError::file("open", &path))?;
    let again = log.try_clone().map_err(AgentError::file("open", &path))?;
    Command::new("/proc/self/exe")
        .arg0("mlctl")
        .arg("shim")
        .arg("--folder")
        .arg(folder.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(again)
        .spawn()
        .map_err(AgentError::process("start", "a shim"))
}
