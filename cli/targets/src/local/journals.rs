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

/// Journals kept; a new one beyond removes the oldest.
const JOURNALS_KEPT: usize = 1_000;
/// Bytes read at a time, from the end.
const BLOCK: u64 = 16 << 10;

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
        if is_new {
            let kept = RunMirror::list(self).await?;
            for oldest in kept.iter().take((kept.len() + 1).saturating_sub(JOURNALS_KEPT)) {
                files::remove(&self.journal(oldest)?)?;
            }
        }
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
        file.write_all(format!("{line}\n").as_bytes()).map_err(failed())?;
        file.sync_data().map_err(failed())?;
        // The first line is durable once its file has a name.
        if is_new { files::sync(&self.journals()).map_err(failed()) } else { Ok(()) }
    }

    async fn read(&self, run: &str) -> Result<Option<String>> {
        let path = self.journal(run)?;
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(files::failed("read", &path)(error)),
        }
    }

    async fn list(&self) -> Result<Vec<String>> {
        // Runs are named by ULIDs, which sort by time.
        let names = files::names(&self.journals())?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".jsonl")).map(ToOwned::to_owned).collect())
    }
}

/// Puts a copy in the place of a journal. Whoever still has the old file open, such as a process that was stopped in
/// the middle of a write, writes where nobody reads.
fn take_over(path: &Path) -> std::io::Result<()> {
    let fresh = path.with_extension(format!("{}.tmp", std::process::id()));
    match std::fs::copy(path, &fresh) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        copied => copied?,
    };
    files::sync(&fresh)?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), files::sync)
}

/// Returns the last whole line.
fn last_line(file: &mut File) -> std::io::Result<Option<String>> {
    let mut end = file.metadata()?.len();
    let mut tail: Vec<u8> = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - begin).unwrap_or_default()];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block)?;
        block.append(&mut tail);
        tail = block;
        end = begin;
        let whole = tail.strip_suffix(b"\n").unwrap_or(&tail);
        if let Some(at) = whole.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(String::from_utf8_lossy(&whole[at + 1..]).into_owned()));
        }
    }
    let whole = tail.strip_suffix(b"\n").unwrap_or(&tail);
    Ok((!whole.is_empty()).then(|| String::from_utf8_lossy(whole).into_owned()))
}

/// Takes away what a kill left of a last line: a record behind it would make the whole journal unreadable.
fn drop_torn_tail(file: &mut File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let Some(last) = length.checked_sub(1) else { return Ok(()) };
    let mut byte = [0];
    file.seek(SeekFrom::Start(last))?;
    file.read_exact(&mut byte)?;
    if byte == [b'\n'] {
        return Ok(());
    }
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    file.set_len(whole as u64)
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Write as _;
    use std::path::Path;

    use super::{BLOCK, drop_torn_tail, last_line, take_over};

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
        for (text, last) in [
            (String::new(), None),
            ("a\n".to_owned(), Some("a")),
            ("a\nb\n".to_owned(), Some("b")),
            (format!("a\n{long}\n"), Some(long.as_str())),
            (format!("{long}\nb\n"), Some("b")),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_line(&mut open(&path)).unwrap().as_deref(), last);
        }
    }

    #[test]
    fn only_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        for (before, after) in [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("torn", "")] {
            std::fs::write(&path, before).unwrap();
            drop_torn_tail(&mut open(&path)).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }
}
