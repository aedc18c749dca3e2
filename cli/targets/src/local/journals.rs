//! Copies of journals, beside the lease: a home folder that is lost loses no run.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result, RunMirror};

use super::Local;
use super::files;

/// Journals kept; a new one beyond removes the oldest.
const JOURNALS_KEPT: usize = 1_000;

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
        drop_torn_tail(&path).map_err(failed())?;
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(failed())?;
        let before = file.metadata().map_err(failed())?.len();
        file.write_all(format!("{line}\n").as_bytes())
            .and_then(|()| file.sync_data())
            // A record that is not durable is none: the next one will have its number.
            .inspect_err(|_| drop(file.set_len(before)))
            .map_err(failed())?;
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

/// Takes away what a kill left of a last line: a record behind it would make the whole journal unreadable.
fn drop_torn_tail(path: &Path) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
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
    use super::drop_torn_tail;

    #[test]
    fn only_whole_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        drop_torn_tail(&path).unwrap();
        for (before, after) in [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("torn", "")] {
            std::fs::write(&path, before).unwrap();
            drop_torn_tail(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after, "{before:?}");
        }
    }
}
