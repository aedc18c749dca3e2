//! Copies of journals, beside the lease: a home folder that is lost loses no run.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result, RunMirror};

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
        drop_torn_tail(&path).map_err(failed())?;
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed())?;
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
        drop_torn_tail(&path).map_err(files::failed("trim", &path))
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

/// Takes away what a kill left of a last line: a record behind it would make the whole journal unreadable.
fn drop_torn_tail(path: &Path) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = Vec::new();
    let whole = loop {
        let begin = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(begin))?;
        (&mut file).take(end - begin).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            break begin + at as u64 + 1;
        }
        if begin == 0 {
            break 0;
        }
        end = begin;
    };
    if whole == length { Ok(()) } else { file.set_len(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        drop_torn_tail(&path).unwrap();
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
            drop_torn_tail(&path).unwrap();
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
