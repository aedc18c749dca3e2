//! RunStore on disk: per run a write-ahead journal and an event file, both JSON lines, mirrored on the target.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mlctl_core::event::{Event, EventSink};
use mlctl_core::ports::{Journal, JournalError, RunMirror};
use mlctl_core::run::journal;
use mlctl_core::run::journal::Replay;

use crate::error::{CommandError, ExitStatus};

/// Finds and makes run folders.
#[derive(Debug, Clone)]
pub struct RunStore {
    folder: PathBuf,
}

/// The journal of one run, open for appending.
pub struct RunJournal {
    run: String,
    path: PathBuf,
    file: Mutex<File>,
    mirror: Arc<dyn RunMirror>,
}

/// The event file of one run.
pub struct EventFile(Mutex<File>);

impl RunStore {
    /// Returns the store of one target below a state folder.
    #[must_use]
    pub fn new(state: &Path, target: &str, system: &str) -> Self {
        let safe =
            |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "_");
        Self { folder: state.join("runs").join(safe(target)).join(safe(system)) }
    }

    /// Makes the files of a run, before anything is locked or changed: a folder that cannot be written shows now.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn begin(&self, run: &str) -> Result<(), CommandError> {
        for name in ["journal.jsonl", "events.jsonl"] {
            let path = self.folder.join(run).join(name);
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
        let folder = self.folder.join(run);
        if std::fs::metadata(folder.join("journal.jsonl")).is_ok_and(|file| file.len() == 0) {
            // An empty folder left behind is no harm.
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    /// Opens the journal of a run for appending. `so_far` is what the mirror holds and this folder may have lost.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn journal(
        &self,
        run: &str,
        so_far: &str,
        mirror: Arc<dyn RunMirror>,
    ) -> Result<RunJournal, JournalError> {
        let path = self.folder.join(run).join("journal.jsonl");
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        let file = open(&path).map_err(|error| failed("open", run, &path, &error))?;
        if present != so_far {
            file.set_len(0)
                .and_then(|()| (&file).write_all(so_far.as_bytes()))
                .and_then(|()| file.sync_data())
                .map_err(|error| failed("restore", run, &path, &error))?;
        }
        Ok(RunJournal { run: run.to_owned(), path, file: Mutex::new(file), mirror })
    }

    /// Opens the event file of a run.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn events(&self, run: &str) -> Result<EventFile, JournalError> {
        let path = self.folder.join(run).join("events.jsonl");
        open(&path)
            .map(|file| EventFile(Mutex::new(file)))
            .map_err(|error| failed("open the events beside", run, &path, &error))
    }

    /// Returns the events of a run, oldest first; what cannot be read is passed over.
    #[must_use]
    pub fn read_events(&self, run: &str) -> Vec<Event> {
        let text = std::fs::read_to_string(self.folder.join(run).join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
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
        let before = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let written = file.metadata().and_then(|metadata| {
                file.write_all(format!("{line}\n").as_bytes())
                    .and_then(|()| file.sync_data())
                    .inspect_err(|_| take_back(&file, metadata.len()))?;
                Ok(metadata.len())
            });
            written.map_err(|error| failed("write", &self.run, &self.path, &error))?
        };
        self.mirror.append(&self.run, line).await.map_err(|error| {
            take_back(&self.file.lock().unwrap_or_else(PoisonError::into_inner), before);
            JournalError {
                operation: "mirror",
                run: self.run.clone(),
                reason: error.to_string(),
                source: None,
            }
        })
    }
}

/// Takes a record away again that is not durable everywhere: the next one will have its number.
fn take_back(file: &File, before: u64) {
    // Where even that fails, the target's copy is the one that counts.
    let _ = file.set_len(before);
}

impl EventSink for EventFile {
    fn take(&self, event: &Event) {
        // Events can be told again from the journal's point of view: a full disk here must not stop a run.
        let line = serde_json::to_string(event).unwrap_or_default();
        let _ =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes());
    }
}

/// One run as its mirrored journal tells it.
#[derive(Debug, Clone)]
pub struct KeptRun {
    /// What the journal says.
    pub replay: Replay,
    /// Its text, whole lines only.
    pub text: String,
}

/// Reads the runs that the target keeps, oldest first. A journal that does not hold together is told, not hidden.
///
/// # Errors
/// A target that cannot be read.
pub async fn kept_runs(
    mirror: &dyn RunMirror,
) -> Result<Vec<Result<KeptRun, (String, String)>>, CommandError> {
    let mut runs = Vec::new();
    for run in mirror.list().await? {
        let Some(text) = mirror.read(&run).await? else { continue };
        runs.push(keep(&text).map_err(|reason| (run, reason)));
    }
    Ok(runs)
}

fn keep(text: &str) -> Result<KeptRun, String> {
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let records = journal::read(whole).map_err(|error| error.to_string())?;
    let replay = Replay::of(records).map_err(|error| error.to_string())?;
    Ok(KeptRun { replay, text: whole.to_owned() })
}

/// Returns the run that `--resume` carries on: the newest one, when it did not end.
///
/// A run that another one came after is not carried on: its plan is for a world that is gone.
///
/// # Errors
/// No run is open, or the open one was overtaken.
pub async fn unfinished(mirror: &dyn RunMirror, operations: &[&str]) -> Result<KeptRun, CommandError> {
    let mut runs: Vec<KeptRun> = kept_runs(mirror).await?.into_iter().filter_map(Result::ok).collect();
    let resumable = |run: &KeptRun| {
        run.replay.closed.is_none() && operations.contains(&run.replay.plan.operation.as_str())
    };
    let Some(at) = runs.iter().rposition(resumable) else {
        return Err(CommandError::new(ExitStatus::NotFound, "resume: no interrupted run on this target")
            .hint("`mlctl runs` lists the runs and how they ended"));
    };
    if let Some(later) = runs.get(at + 1..).and_then(<[KeptRun]>::last) {
        let (open, later) = (&runs[at].replay, &later.replay);
        let text = format!(
            "resume run {}: {} by {} (run {}) came after it",
            open.run, later.plan.operation, later.operator, later.run
        );
        return Err(CommandError::refused(text).hint("`mlctl deploy` brings the present files to the target"));
    }
    Ok(runs.swap_remove(at))
}
