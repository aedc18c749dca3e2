//! Small JSON files that are whole or not there: written beside, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::{AgentError, Process};

/// How long a lock may be in the way that is only being looked at.
const LOOKED_AT: Duration = Duration::from_millis(200);
/// Between two tries to take it.
const LOCK_RETRY: Duration = Duration::from_millis(5);

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
    let written = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Power {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    };
    written().map_err(|source| given_up(&temporary, error()(source)))?;
    if durability == Durability::Power { sync_parent(path).map_err(error()) } else { Ok(()) }
}

/// Removes the half of a write that failed, which may hold half a secret.
fn given_up(temporary: &Path, error: AgentError) -> AgentError {
    let _ = fs::remove_file(temporary);
    error
}

/// Makes which names there are beside a file last beyond a loss of power.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Makes a symbolic link to a name beside it, in place of one that is there.
pub(crate) fn link(path: &Path, to: &str) -> Result<(), AgentError> {
    let error = || AgentError::file("write", path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    remove(&temporary)?;
    std::os::unix::fs::symlink(to, &temporary).map_err(error())?;
    fs::rename(&temporary, path).map_err(|source| given_up(&temporary, error()(source)))?;
    sync_parent(path).map_err(error())
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

/// Removes what writers that were killed in the middle have left beside a folder's files.
pub(crate) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let writer =
            name.to_str().and_then(|name| name.strip_suffix(".tmp")?.rsplit_once('.')?.1.parse().ok());
        // Left in place when in doubt: a file too many harms nobody.
        if writer.is_some_and(|pid: u32| pid == std::process::id() || Process::find(pid).is_none()) {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Sweeps a folder and the folders in it.
pub(crate) fn sweep_below(folder: &Path) {
    sweep(folder);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&entry.path());
        }
    }
}

/// Says whether somebody holds the lock of a file now.
pub(crate) fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Takes an exclusive lock as [`lock`] does, and tries again for a moment: whoever asks [`is_locked`] has it for that
/// long.
pub(crate) async fn lock_soon(path: &Path) -> Result<File, AgentError> {
    let deadline = Instant::now() + LOOKED_AT;
    loop {
        match lock(path) {
            Err(AgentError::Held { .. }) if Instant::now() < deadline => sleep(LOCK_RETRY).await,
            done => return done,
        }
    }
}

/// Returns the process that holds the lock of a file. None also for the moment between its taking the lock and telling
/// its name: the file names an earlier holder then, which has ended.
pub(crate) fn holder(path: &Path) -> Option<Process> {
    if !is_locked(path) {
        return None;
    }
    read_volatile::<Process>(path).ok().flatten().filter(|process| process.is_alive())
}

/// Takes an exclusive lock for as long as the returned file lives, and leaves our name in it.
pub(crate) fn lock(path: &Path) -> Result<File, AgentError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(AgentError::file("open", path))?;
    match file.try_lock() {
        Ok(()) => {
            // Told for whoever has to end a holder that says nothing else. A full disk costs only that.
            let own = serde_json::to_vec(&Process::own()).unwrap_or_default();
            let _ = file.set_len(0).and_then(|()| file.write_all(&own));
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::Held { path: path.to_owned() }),
        Err(fs::TryLockError::Error(source)) => Err(AgentError::file("lock", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_writer_leaves_the_old_file_whole_and_its_half_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.json");
        write_json(&path, &[1, 2, 3], Durability::Power).unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let dead = ended.id();
        ended.wait().unwrap();
        let mut living = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let half = |pid: u32| folder.path().join(format!("api.json.{pid}.tmp"));
        for pid in [dead, living.id()] {
            fs::write(half(pid), "[1, 2").unwrap();
        }
        fs::write(folder.path().join("notes.tmp"), "not ours").unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]));
        let copied = folder.path().join("secrets").join(format!("sha.{dead}.tmp"));
        fs::create_dir_all(copied.join("folder")).unwrap();
        sweep(folder.path());
        assert!(!half(dead).exists() && half(living.id()).exists());
        assert!(copied.exists());
        sweep_below(folder.path());
        assert!(!copied.exists());
        assert!(path.exists() && folder.path().join("notes.tmp").exists());
        living.kill().unwrap();
        living.wait().unwrap();
    }

    #[test]
    fn a_write_that_fails_leaves_no_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        // A folder that is not empty is in its place.
        fs::create_dir_all(path.join("in")).unwrap();
        write(&path, b"hush-hush", Durability::Power).unwrap_err();
        link(&path, "1").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn torn_and_empty_files_are_told_from_absent_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        for torn in ["", "[1, 2", "[1, 2]]", "\0\0\0\0"] {
            fs::write(&path, torn).unwrap();
            let error = read_json::<Vec<u32>>(&path).unwrap_err();
            assert!(error.to_string().contains("restore the file, or remove it"), "{error}");
            assert_eq!(read_volatile::<Vec<u32>>(&path).unwrap(), None, "{torn:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_looks_at_a_lock_is_not_in_the_way_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.lock");
        let looking = lock(&path).unwrap();
        let (taken, ()) = tokio::join!(lock_soon(&path), async {
            sleep(LOOKED_AT / 2).await;
            drop(looking);
        });
        let _held = taken.unwrap();
        assert!(matches!(lock_soon(&path).await, Err(AgentError::Held { .. })), "held for longer is held");
    }

    #[test]
    fn a_lock_names_its_living_holder_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shim.lock");
        assert_eq!(holder(&path), None, "nobody ever held it");
        let held = lock(&path).unwrap();
        assert_eq!(holder(&path), Some(Process::own()));
        assert!(matches!(lock(&path), Err(AgentError::Held { .. })));
        assert_eq!(holder(&path), Some(Process::own()), "who was refused leaves no name");
        // What an earlier holder left there: its number belongs to another process by now.
        let reused = Process { start: Process::own().start + 1, ..Process::own() };
        fs::write(&path, serde_json::to_vec(&reused).unwrap()).unwrap();
        assert!(is_locked(&path));
        assert_eq!(holder(&path), None);
        fs::write(&path, "{\"pid\":1").unwrap();
        assert_eq!(holder(&path), None, "torn");
        drop(held);
        assert!(!is_locked(&path));
        drop(lock(&path).unwrap());
        assert_eq!(holder(&path), None, "named, and free");
    }
}
