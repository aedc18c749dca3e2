//! Copies of journals, beside the lease: a home folder that is lost loses no run.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result, RunMirror};
use mlctl_core::run::journal;

use super::Local;
use super::files;

/// Bytes of one journal that are read: a file beyond is damage, and no reason to fill the memory.
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes looked at once, from the end back, for the last whole line.
const BLOCK: u64 = 64 * 1024;

impl Local {
    fn journals(&self) -> PathBuf {
        self.layout.root().join("journals")
    }

    fn journal(&self, run: &str) -> Result<PathBuf> {
        if run.is_empty() || !run.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            let reason = "a run is named by letters, digits, dashes and underscores";
            return Err(OrchestratorError::new(ErrorKind::Invalid, "read the journal of", run, reason));
        }
        Ok(self.journals().join(format!("{run}.jsonl")))
    }
}

#[async_trait]
impl RunMirror for Local {
    async fn append(&self, run: &str, line: &str) -> Result<()> {
        let path = self.journal(run)?;
        files::make_folder(&self.journals())?;
        let is_new = !path.exists();
        let failed = || files::failed("append to", &path);
        if journal::takes_over(line) {
            take_over(&path).map_err(failed())?;
        }
        // One file from the look at its end to the write behind it: should another process take the journal over in
        // between, the write goes to a file that is nobody's any more.
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed())?;
        drop_torn_tail(&mut file).map_err(failed())?;
        let last = last_line(&mut file).map_err(failed())?;
        if !journal::follows(last.as_deref(), line) {
            let reason = "another process has carried this run on: it is no longer this one's";
            return Err(OrchestratorError::new(ErrorKind::Conflict, "append to the journal of", run, reason));
        }
        append(&mut file, line).map_err(failed())?;
        // The first line is durable once its file has a name.
        if is_new { files::sync(&self.journals()).map_err(failed()) } else { Ok(()) }
    }

    async fn read(&self, run: &str) -> Result<Option<String>> {
        let path = self.journal(run)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(files::failed("read", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(files::failed("read", &path))?;
        if bytes.len() as u64 > MOST_BYTES {
            let reason = format!("no journal is larger than {MOST_BYTES} bytes");
            let subject = path.display().to_string();
            return Err(OrchestratorError::new(ErrorKind::Invalid, "read", subject, reason));
        }
        // What is no text is damage, which whoever reads the journal tells by its line.
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn list(&self) -> Result<Vec<String>> {
        // Runs are named by ULIDs, which sort by time.
        let names = files::names(&self.journals())?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".jsonl")).map(ToOwned::to_owned).collect())
    }

    async fn trim(&self, run: &str) -> Result<()> {
        let path = self.journal(run)?;
        let failed = || files::failed("trim", &path);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(mut file) => drop_torn_tail(&mut file).map_err(failed()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed()(error)),
        }
    }

    async fn remove(&self, run: &str) -> Result<()> {
        files::remove(&self.journal(run)?)
    }
}

/// Appends a line so that it is durable, or not there at all: whoever hears of a failure writes another record with
/// the same number, and two of them would make the journal unreadable.
fn append(file: &mut File, line: &str) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
    written.inspect_err(|_| {
        // What cannot be taken back now is a torn tail at the worst, and dropped before the next record.
        let _ = file.set_len(length);
    })
}

/// Puts a copy in the place of a journal. Whoever still has the old file open, such as a process that was stopped in
/// the middle of a write, writes where nobody reads.
fn take_over(path: &Path) -> std::io::Result<()> {
    let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
    let put = match std::fs::copy(path, &fresh) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        copied => copied.and_then(|_| files::sync(&fresh)).and_then(|()| std::fs::rename(&fresh, path)),
    };
    put.inspect_err(|_| {
        let _ = std::fs::remove_file(&fresh);
    })?;
    path.parent().map_or(Ok(()), files::sync)
}

/// Returns the last line of a file of whole lines.
fn last_line(file: &mut File) -> std::io::Result<Option<String>> {
    let Some(end) = file.metadata()?.len().checked_sub(1) else { return Ok(None) };
    let begin = line_start(file, end)?;
    if end - begin > journal::LONGEST as u64 {
        // No record is that long: damage, which says nothing about what may follow.
        return Ok(Some(String::new()));
    }
    let mut line = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.take(end - begin).read_to_end(&mut line)?;
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Takes away what a kill left of a last line: a record behind it would make the whole journal unreadable.
fn drop_torn_tail(file: &mut File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let whole = line_start(file, length)?;
    if whole == length { Ok(()) } else { file.set_len(whole) }
}

/// Returns where the line begins that holds what is before `end`, looking from there back.
fn line_start(file: &mut File, mut end: u64) -> std::io::Result<u64> {
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(begin))?;
        file.take(end - begin).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> File {
        OpenOptions::new().read(true).append(true).create(true).open(path).unwrap()
    }

    #[test]
    fn one_who_was_stopped_in_the_middle_of_a_write_writes_where_nobody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        take_over(&path).unwrap();
        std::fs::write(&path, "a\n").unwrap();
        let mut sleeper = open(&path);
        take_over(&path).unwrap();
        open(&path).write_all(b"b\n").unwrap();
        sleeper.write_all(b"late\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn the_last_line_is_found_however_long_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let long = "x".repeat(3 * usize::try_from(BLOCK).unwrap());
        let damage = format!("a\n{}\n", "x".repeat(2 * journal::LONGEST));
        for (text, last) in [
            (String::new(), None),
            ("a\n".to_owned(), Some("a")),
            ("a\nb\n".to_owned(), Some("b")),
            (format!("a\n{long}\n"), Some(long.as_str())),
            (format!("{long}\nb\n"), Some("b")),
            (damage, Some("")),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_line(&mut open(&path)).unwrap().as_deref(), last);
        }
    }

    #[test]
    fn only_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        drop_torn_tail(&mut open(&path)).unwrap();
        let block = usize::try_from(BLOCK).unwrap();
        let (long, nuls) = ("x".repeat(3 * block), "\0".repeat(2 * block));
        for (before, after) in [
            (String::new(), ""),
            ("a\n".to_owned(), "a\n"),
            ("a\nb".to_owned(), "a\n"),
            ("torn".to_owned(), ""),
            (format!("a\n{nuls}"), "a\n"),
            (nuls, ""),
            (format!("a\nb\n{long}"), "a\nb\n"),
            (format!("{long}\n"), &format!("{long}\n")),
            (format!("a\n{}", "y".repeat(block)), "a\n"),
            (format!("a\n{}", "y".repeat(block - 1)), "a\n"),
        ] {
            std::fs::write(&path, &before).unwrap();
            drop_torn_tail(&mut open(&path)).unwrap();
            let left = std::fs::read_to_string(&path).unwrap();
            assert!(left == after, "{} bytes became {}", before.len(), left.len());
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_leaves_nothing() {
        // Opened for reading only, every write fails.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        std::fs::write(&path, "a\n").unwrap();
        append(&mut File::open(&path).unwrap(), "b").unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n");
        append(&mut OpenOptions::new().append(true).open(&path).unwrap(), "b").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }
}
