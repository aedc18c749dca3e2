//! Small JSON files that are whole or not there: written beside, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::AgentError;

/// Whether a write has to survive a loss of power, or only the death of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced before the rename.
    Power,
    /// Renamed only: what it speaks of is gone after a loss of power anyhow.
    Process,
}

/// Writes a value as JSON; readers see the old file or the new one, never half of it.
pub(crate) fn write_json<T: Serialize>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> Result<(), AgentError> {
    let text =
        serde_json::to_vec(value).map_err(|source| AgentError::Json { path: path.to_owned(), source })?;
    write(path, &text, durability)
}

/// Writes bytes; readers see the old file or the new one.
pub(crate) fn write(path: &Path, content: &[u8], durability: Durability) -> Result<(), AgentError> {
    let error = || AgentError::file("write", path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(error())?;
    file.write_all(content).map_err(error())?;
    if durability == Durability::Power {
        file.sync_all().map_err(error())?;
    }
    fs::rename(&temporary, path).map_err(error())?;
    if durability == Durability::Power
        && let Some(folder) = path.parent()
    {
        File::open(folder).and_then(|f| f.sync_all()).map_err(error())?;
    }
    Ok(())
}

/// Makes a symbolic link to a name beside it, in place of one that is there.
pub(crate) fn link(path: &Path, to: &str) -> Result<(), AgentError> {
    let error = || AgentError::file("write", path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    remove(&temporary)?;
    std::os::unix::fs::symlink(to, &temporary).map_err(error())?;
    fs::rename(&temporary, path).map_err(error())?;
    match path.parent() {
        Some(folder) => File::open(folder).and_then(|f| f.sync_all()).map_err(error()),
        None => Ok(()),
    }
}

/// Reads a JSON file; `None` when it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AgentError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| AgentError::Json { path: path.to_owned(), source }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AgentError::file("read", path)(error)),
    }
}

/// Reads a file that was written with [`Durability::Process`]; after a loss of power it may be empty, which is as good
/// as not there.
pub(crate) fn read_volatile<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AgentError> {
    match read_json(path) {
        Err(AgentError::Json { .. }) => Ok(None),
        other => other,
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<(), AgentError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(AgentError::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a folder and its parents, closed to other users.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(AgentError::file("create", path))
}

/// Says whether somebody holds the lock of a file now.
pub(crate) fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Takes an exclusive lock for as long as the returned file lives.
pub(crate) fn lock(path: &Path) -> Result<File, AgentError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(AgentError::file("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::Held { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(AgentError::file("lock", path)(source)),
    }
}
