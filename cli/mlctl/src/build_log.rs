//! What a build printed, kept whole when it fails: an error shows only how it ended.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::store::private_file;

/// Bytes of a log; a build that prints more has the beginning of it kept, and its end in the error.
const MOST_BYTES: usize = 64 << 20;
/// Logs of failed builds that are kept.
const KEPT: usize = 5;

/// The log of one command's builds. A log that cannot be written (a full disk) stops no build.
pub struct BuildLog {
    path: Option<PathBuf>,
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Writing {
    file: Option<File>,
    bytes: usize,
    failed: bool,
}

impl BuildLog {
    /// Returns a log below the state folder; it becomes a file with its first line.
    #[must_use]
    pub fn new(state: Option<&Path>, system: &str) -> Self {
        let name = format!("{}.log", ulid::Ulid::new());
        let path = state.map(|state| state.join("builds").join(system).join(name));
        Self { path, writing: Mutex::default() }
    }

    /// Adds a line.
    pub fn line(&self, text: &str) {
        let Some(path) = &self.path else { return };
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if writing.failed {
            return;
        }
        let room = writing.bytes <= MOST_BYTES;
        writing.bytes += text.len() + 1;
        let text = match (room, writing.bytes <= MOST_BYTES) {
            (true, true) => text,
            (true, false) => "(it prints more; the end is in the error that mlctl told)",
            _ => return,
        };
        if writing.file.is_none() {
            writing.file = private_file(path, OpenOptions::new().append(true)).ok();
        }
        let written = writing.file.as_mut().map(|file| file.write_all(format!("{text}\n").as_bytes()));
        writing.failed = !matches!(written, Some(Ok(())));
    }

    /// Ends the log; returns where it is when it is to be kept and is there.
    #[must_use]
    pub fn end(self, keep: bool) -> Option<PathBuf> {
        let path = self.path?;
        let writing = self.writing.into_inner().unwrap_or_else(PoisonError::into_inner);
        writing.file?;
        if !keep {
            // Left behind, it is one of those that the next failure removes.
            let _ = std::fs::remove_file(path);
            return None;
        }
        prune(path.parent()?);
        Some(path).filter(|_| !writing.failed)
    }
}

/// Removes the oldest logs beyond those kept; their names sort by time.
fn prune(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut logs: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    logs.sort();
    for old in logs.iter().take(logs.len().saturating_sub(KEPT)) {
        let _ = std::fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_failures_are_kept_and_not_many() {
        let state = tempfile::tempdir().unwrap();
        let log = |keep: bool, lines: &[&str]| {
            let log = BuildLog::new(Some(state.path()), "shop");
            lines.iter().for_each(|line| log.line(line));
            log.end(keep)
        };
        assert_eq!(log(true, &[]), None, "nothing was built");
        assert_eq!(log(false, &["fine"]), None);
        let kept: Vec<PathBuf> =
            (0..7).map(|n: u32| log(true, &["$ make", &n.to_string()]).unwrap()).collect();
        assert_eq!(std::fs::read_to_string(&kept[6]).unwrap(), "$ make\n6\n");
        let there = std::fs::read_dir(state.path().join("builds/shop")).unwrap().count();
        assert_eq!(there, KEPT);
        assert!(kept[6].exists());
    }

    #[test]
    fn a_log_that_cannot_be_written_is_not_named() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("builds"), "a file").unwrap();
        let log = BuildLog::new(Some(state.path()), "shop");
        log.line("lost");
        assert_eq!(log.end(true), None);
    }
}
