//! Temporary folders of servers, and what is left of those whose owner was killed.

use std::path::Path;

use tempfile::TempDir;

use super::{cache, mongodb, postgresql};
use crate::alive;

/// Every folder's name begins so; the id of the process that it ends with follows.
const PREFIX: &str = "mlctl-stores";

/// Returns a new folder.
pub(crate) fn new(name: &str) -> Result<TempDir, String> {
    new_in(&std::env::temp_dir(), name)
}

/// Returns a new folder in another place than the usual one.
pub(crate) fn new_in(place: &Path, name: &str) -> Result<TempDir, String> {
    sweep();
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}-{}-{name}-", std::process::id()))
        .tempdir_in(place)
        .map_err(|error| format!("{name}: making a temporary folder: {error}"))
}

/// Removes what owners left behind that were killed: they had no time to. Of others only what may be removed is.
pub fn sweep() {
    for place in [std::env::temp_dir(), cache::place().join(mongodb::CHROOT).join("srv")] {
        let entries = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
        for folder in entries.map(|entry| entry.path()).filter(|folder| is_left(folder)) {
            postgresql::remove_shared_memory(&folder.join("data"));
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn is_left(folder: &Path) -> bool {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let owner =
        name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next()?.parse().ok());
    owner.is_some_and(|pid: i32| !alive(pid))
}
