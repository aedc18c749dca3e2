//! Evidence at home: one readable file per item and sort below the run's folder, and an index.
//!
//! Stands before the other readers of a run's events: it keeps what an `evidence` event tells and passes the event on
//! with the file's path in it. A disk that is full costs the file, never the run.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use mlctl_core::event::{Event, EventKind, EventSink};
use mlctl_core::item::ItemId;
use serde::{Deserialize, Serialize};

use super::{private_file, safe};

/// Bytes of evidence of one run, however often it is resumed.
const MOST_BYTES: u64 = 8 * 1024 * 1024;
/// The name of the index.
const INDEX: &str = "index.json";

/// What there is in a folder of evidence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceIndex {
    /// The version of this file.
    pub v: u32,
    /// The run.
    pub run: String,
    /// Its failures, in order.
    pub failures: Vec<FailureIndex>,
}

/// What there is about one failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureIndex {
    /// Its folder, below that of the index.
    pub folder: String,
    /// The phase.
    pub phase: String,
    /// The step.
    pub step: String,
    /// Why it failed.
    pub cause: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// The files.
    pub files: Vec<FileIndex>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIndex {
    /// Its path, below the folder of the index.
    pub file: String,
    /// The item it is about.
    pub item: ItemId,
    /// What it is.
    pub what: String,
    /// Its lines.
    pub lines: usize,
    /// Its size.
    pub bytes: u64,
    /// What was left out to bound it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

impl EvidenceIndex {
    /// Reads the index of a folder; none when there is none that can be read.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(folder.join(INDEX)).ok()?).ok()
    }

    fn bytes(&self) -> u64 {
        self.failures.iter().flat_map(|failure| &failure.files).map(|file| file.bytes).sum()
    }
}

/// Keeps evidence, and passes every event on.
pub struct EvidenceFolder<'a> {
    folder: PathBuf,
    inner: &'a dyn EventSink,
    warn: &'a (dyn Fn(&str) + Send + Sync),
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    index: Option<EvidenceIndex>,
    /// Says which failure the last piece belonged to: a step may fail once more after a resume.
    current: Option<(String, String)>,
    warned: bool,
}

impl<'a> EvidenceFolder<'a> {
    /// Returns a keeper that makes its folder with the first evidence; `warn` is told once when it cannot.
    pub fn new(folder: PathBuf, inner: &'a dyn EventSink, warn: &'a (dyn Fn(&str) + Send + Sync)) -> Self {
        Self { folder, inner, warn, kept: Mutex::default() }
    }

    /// Writes the file of a piece and the index; returns the file's path.
    fn keep(&self, event: &Event) -> Option<PathBuf> {
        let EventKind::Evidence { phase, step, item, what, lines, cut, .. } = &event.kind else {
            return None;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { index, current, warned } = &mut *kept;
        let index = index.get_or_insert_with(|| {
            let before = EvidenceIndex::read(&self.folder).unwrap_or_default();
            EvidenceIndex { v: 1, run: event.run.clone(), failures: before.failures }
        });
        let place = (phase.clone(), step.clone());
        if what == "failure" || current.as_ref() != Some(&place) {
            *current = Some(place);
            index.failures.push(FailureIndex {
                folder: format!("{}-{}", index.failures.len() + 1, safe(step)),
                phase: phase.clone(),
                step: step.clone(),
                cause: if what == "failure" { lines.join(" ") } else { String::new() },
                at: event.at,
                files: Vec::new(),
            });
        }
        let room = MOST_BYTES.saturating_sub(index.bytes());
        let folder = index.failures.last().map(|failure| failure.folder.clone()).unwrap_or_default();
        let name = |nth: &str| format!("{folder}/{}.{}{nth}.{what}.txt", item.kind.word(), safe(&item.name));
        // Two items may be alike once their names are safe for a file.
        let taken =
            |file: &String| index.failures.iter().flat_map(|each| &each.files).any(|each| each.file == *file);
        let later = (2..).map(|nth| name(&format!("-{nth}")));
        let file = std::iter::once(name("")).chain(later).find(|file| !taken(file)).unwrap_or_default();
        let mut text: String = cut.iter().map(|cut| format!("({cut})\n")).collect();
        lines.iter().for_each(|line| text.extend([line, "\n"]));
        let bytes = text.len() as u64;
        let path = self.folder.join(&file);
        let written = if bytes > room {
            Err(io::Error::other(format!("a run keeps {MOST_BYTES} bytes of evidence at most")))
        } else {
            write(&path, text.as_bytes())
        };
        let listed = written.and_then(|()| {
            let (item, what, cut) = (item.clone(), what.clone(), cut.clone());
            let entry = FileIndex { file, item, what, lines: lines.len(), bytes, cut };
            index.failures.last_mut().into_iter().for_each(|failure| failure.files.push(entry.clone()));
            write(&self.folder.join(INDEX), &serde_json::to_vec_pretty(index).unwrap_or_default())
        });
        match listed {
            Ok(()) => Some(path),
            Err(error) => {
                if !*warned {
                    *warned = true;
                    let path = path.display();
                    (self.warn)(&format!(
                        "keep evidence in {path}: {error}; the run goes on, its events tell the evidence"
                    ));
                }
                None
            }
        }
    }
}

impl EventSink for EvidenceFolder<'_> {
    fn take(&self, event: &Event) {
        let Some(path) = self.keep(event) else { return self.inner.take(event) };
        let mut event = event.clone();
        if let EventKind::Evidence { file, .. } = &mut event.kind {
            *file = Some(path.display().to_string());
        }
        self.inner.take(&event);
    }
}

/// Writes a file whole or not at all: a full disk leaves no half of one.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let written = private_file(&beside, OpenOptions::new().write(true).truncate(true))
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&beside, path));
    written.inspect_err(|_| {
        // What cannot be written may well be removed.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use mlctl_core::event::Recorder;

    use super::*;

    fn piece(step: &str, item: &str, what: &str, lines: &[&str]) -> Event {
        Event {
            v: 1,
            run: "run".into(),
            seq: 1,
            at: Timestamp::UNIX_EPOCH,
            elapsed_ms: 1,
            kind: EventKind::Evidence {
                phase: "applications".into(),
                step: step.into(),
                item: ItemId::workload(item),
                named: true,
                what: what.into(),
                lines: lines.iter().map(|&line| line.to_owned()).collect(),
                cut: (lines.len() > 2).then(|| "3 earlier lines are left out".to_owned()),
                file: None,
            },
        }
    }

    fn files(recorder: &Recorder) -> Vec<Option<String>> {
        let file = |event: Event| match event.kind {
            EventKind::Evidence { file, .. } => file,
            _ => panic!("{event:?}"),
        };
        recorder.events().into_iter().map(file).collect()
    }

    #[test]
    fn one_file_per_item_and_sort_and_an_index() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("evidence");
        let warn = |text: &str| panic!("{text}");
        let recorder = Recorder::default();
        let keeper = EvidenceFolder::new(folder.clone(), &recorder, &warn);
        keeper.take(&piece("services:api", "api", "failure", &["it exited"]));
        keeper.take(&piece("services:api", "api", "log", &["a", "b", "c"]));
        let log = folder.join("1-services_api/workload.api.log.txt");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "(3 earlier lines are left out)\na\nb\nc\n");
        assert_eq!(files(&recorder)[1], Some(log.display().to_string()));
        // Another process resumes the run, and the same step fails again.
        let keeper = EvidenceFolder::new(folder.clone(), &recorder, &warn);
        keeper.take(&piece("services:api", "../up", "failure", &["again"]));
        let index = EvidenceIndex::read(&folder).unwrap();
        let folders: Vec<(&str, &str)> =
            index.failures.iter().map(|f| (f.folder.as_str(), f.cause.as_str())).collect();
        assert_eq!(folders, [("1-services_api", "it exited"), ("2-services_api", "again")]);
        let file = &index.failures[0].files[1];
        assert_eq!((file.lines, file.bytes, file.cut.is_some()), (3, 37, true));
        assert_eq!(index.failures[1].files[0].file, "2-services_api/workload.___up.failure.txt");
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_file_and_one_warning() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let warnings = Mutex::new(Vec::new());
        let warn = |text: &str| warnings.lock().unwrap().push(text.to_owned());
        let recorder = Recorder::default();
        // Below a file there can be no folder.
        let keeper = EvidenceFolder::new(root.path().join("file/evidence"), &recorder, &warn);
        keeper.take(&piece("s", "api", "failure", &["it exited"]));
        keeper.take(&piece("s", "api", "log", &["a"]));
        assert_eq!(files(&recorder), [None, None], "every event is passed on");
        let warnings = warnings.into_inner().unwrap();
        assert!(warnings.len() == 1 && warnings[0].contains("the run goes on"), "{warnings:?}");
    }

    #[test]
    fn a_run_that_fails_again_and_again_fills_no_disk() {
        let root = tempfile::tempdir().unwrap();
        let warnings = Mutex::new(Vec::new());
        let warn = |text: &str| warnings.lock().unwrap().push(text.to_owned());
        let recorder = Recorder::default();
        let keeper = EvidenceFolder::new(root.path().join("evidence"), &recorder, &warn);
        let megabyte = "x".repeat(1024 * 1024);
        for nth in 0..12 {
            keeper.take(&piece(&format!("s{nth}"), "api", "log", &[&megabyte]));
        }
        assert_eq!(files(&recorder).iter().filter(|file| file.is_some()).count(), 7);
        assert_eq!(warnings.into_inner().unwrap().len(), 1);
    }
}
