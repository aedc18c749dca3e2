//! RunStore on disk: per run a write-ahead journal, an event file and the evidence of its failures. The journal is
//! mirrored on the target; events and evidence are not (why: `mlctl_core::run`, evidence).

mod evidence;
mod home;
mod kept;
mod retention;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use mlctl_core::event::{Event, EventSink};
use mlctl_core::ports::{Journal, JournalError, RunMirror};

use self::home::HomeFile;
use crate::error::{CommandError, ExitStatus};

pub use self::evidence::{EvidenceFolder, EvidenceIndex};
pub(crate) use self::home::inspect_file;
pub use self::kept::{Kept, KeptRun, kept_run, left_open, unfinished};
pub use self::retention::Elsewhere;

/// Finds and makes run folders.
#[derive(Debug, Clone)]
pub struct RunStore {
    folder: PathBuf,
}

/// The journal of one run, open for appending.
pub struct RunJournal {
    run: String,
    path: PathBuf,
    home: Mutex<HomeFile>,
    mirror: Arc<dyn RunMirror>,
}

impl RunJournal {
    /// Says what the copy at home lacks, when it lacks something.
    #[must_use]
    pub fn incomplete(&self) -> Option<String> {
        let home = self.home();
        home.ended().map(|reason| {
            let path = self.path.display();
            format!("write {path}: {reason}; the target has the whole journal of run {}", self.run)
        })
    }

    fn home(&self) -> MutexGuard<'_, HomeFile> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event file of one run.
pub struct EventFile(Mutex<File>);

impl RunStore {
    /// Returns the store of one target below a state folder.
    #[must_use]
    pub fn new(state: &Path, target: &str, system: &str) -> Self {
        Self { folder: state.join("runs").join(safe(target)).join(safe(system)) }
    }

    /// Makes the files of a run, before anything is locked or changed: a folder that cannot be written shows now.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn begin(&self, run: &str) -> Result<(), CommandError> {
        for path in [self.journal_path(run), self.run(run).join("events.jsonl")] {
            open(&path).map_err(|error| {
                let text = format!("open {}: {error}; nothing was changed on the target", path.display());
                CommandError::new(ExitStatus::Failed, text).hint(
                    "journals and events lie below $MLCTL_STATE: name a folder that this user can write to",
                )
            })?;
        }
        Ok(())
    }

    /// Takes the files of a run away again that never began.
    pub fn forget(&self, run: &str) {
        if std::fs::metadata(self.journal_path(run)).is_ok_and(|file| file.len() == 0) {
            // An empty folder left behind is no harm.
            let _ = std::fs::remove_dir_all(self.run(run));
        }
    }

    /// Opens the journal of a run for appending. `so_far` is what the mirror holds and this folder may have lost.
    ///
    /// A record is written on the target first and at home next, so that the copy at home is never ahead: the target
    /// refuses what another process has carried on, and the copy at home may be that process's too. Should it be ahead
    /// all the same, the target has lost records ([`Self::agrees`] refuses that).
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn journal(
        &self,
        run: &str,
        so_far: &str,
        mirror: Arc<dyn RunMirror>,
    ) -> Result<RunJournal, JournalError> {
        let path = self.journal_path(run);
        let home = HomeFile::open(&path, so_far).map_err(|error| failed("open", run, &path, &error))?;
        Ok(RunJournal { run: run.to_owned(), path, home: Mutex::new(home), mirror })
    }

    /// Drops that many bytes from the end of a run's journal.
    ///
    /// # Errors
    /// A file that cannot be changed.
    pub(crate) fn trim(&self, run: &str, bytes: u64) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.journal_path(run))?;
        file.set_len(file.metadata()?.len().saturating_sub(bytes)).and_then(|()| file.sync_all())
    }

    /// Makes a run's journal hold what the mirror holds.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn restore(&self, run: &str, so_far: &str) -> std::io::Result<()> {
        HomeFile::open(&self.journal_path(run), so_far).map(drop)
    }

    /// Opens the event file of a run.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn events(&self, run: &str) -> Result<EventFile, JournalError> {
        let path = self.run(run).join("events.jsonl");
        open(&path)
            .map(|file| EventFile(Mutex::new(file)))
            .map_err(|error| failed("open the events beside", run, &path, &error))
    }

    /// Returns the events of a run, oldest first; what cannot be read is passed over.
    #[must_use]
    pub fn read_events(&self, run: &str) -> Vec<Event> {
        let text = std::fs::read(self.run(run).join("events.jsonl")).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// Returns the names in the folder of runs, oldest first.
    ///
    /// # Errors
    /// A folder that cannot be listed; one that is not there has no runs.
    pub(crate) fn names(&self) -> std::io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Returns the folder of a run.
    fn run(&self, run: &str) -> PathBuf {
        self.folder.join(run)
    }

    /// Returns the file of a run's journal.
    pub(crate) fn journal_path(&self, run: &str) -> PathBuf {
        self.run(run).join("journal.jsonl")
    }

    /// Returns the folder of a run's evidence, whether there is any or not.
    #[must_use]
    pub fn evidence(&self, run: &str) -> PathBuf {
        self.run(run).join("evidence")
    }
}

/// Returns a name as one part of a path.
fn safe(text: &str) -> String {
    text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "_")
}

fn open(path: &Path) -> std::io::Result<File> {
    private_file(path, OpenOptions::new().append(true))
}

/// Opens a file that only this user may read, and makes it and its folders where they are missing.
pub(crate) fn private_file(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    options.create(true).mode(0o600).open(path)
}

/// The reason is the whole cause, so that readers of the text alone learn it; there is no source to repeat it.
fn failed(operation: &'static str, run: &str, path: &Path, error: &std::io::Error) -> JournalError {
    let reason = format!("{}: {error}", path.display());
    JournalError { operation, run: run.to_owned(), reason, source: None }
}

#[async_trait]
impl Journal for RunJournal {
    async fn append(&self, line: &str) -> Result<(), JournalError> {
        // The target first: it refuses the record of a run that another process has carried on, and the copy at home
        // may be that process's too.
        self.mirror.append(&self.run, line).await.map_err(|error| JournalError {
            operation: "mirror",
            run: self.run.clone(),
            reason: error.to_string(),
            source: None,
        })?;
        // The record is durable there: a home that is full does not stop a run half-way.
        self.home().append(line);
        Ok(())
    }
}

impl EventSink for EventFile {
    fn take(&self, event: &Event) {
        // Events can be told again from the journal's point of view: a full disk here must not stop a run.
        let line = serde_json::to_string(event).unwrap_or_default();
        let _ =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes());
    }
}
