//! Files of the state folder: whole or not there, closed to others, errors in the words of a target.

use std::fs::{self, File};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use mlctl_core::local_protocol::StateChange;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns a closure for `map_err`: the file, and that trying again may help only for what passes by itself.
pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OrchestratorError {
    let subject = path.display().to_string();
    move |source| {
        let kind = match source.kind() {
            Io::PermissionDenied => ErrorKind::Denied,
            Io::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Unavailable,
        };
        OrchestratorError::new(kind, operation, subject, source.to_string())
    }
}

/// Makes a folder and its parents.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))
}

/// Makes what a file holds, or which names a folder has, last beyond a loss of power.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Returns the change that writes a value as JSON to a path in the state folder.
pub(crate) fn change<T: Serialize>(path: &str, value: &T) -> Result<StateChange> {
    let content =
        serde_json::to_string_pretty(value).map_err(|e| failed("write", Path::new(path))(e.into()))?;
    Ok(StateChange::Write { path: path.to_owned(), content })
}

/// Reads a JSON file; none when it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == Io::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let reason = format!("not what mlctl writes there ({error}): restore the file, or remove it");
        OrchestratorError::new(ErrorKind::Invalid, "read", path.display().to_string(), reason)
    })
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != Io::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Returns the names in a folder, sorted; a folder that is not there is empty.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == Io::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", folder)(error)),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
