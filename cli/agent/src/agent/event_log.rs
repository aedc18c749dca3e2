//! What happened lately: in memory for questions, on disk for the next agent. Both bounded.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use mlctl_core::item::ItemId;
use mlctl_core::ports::TargetEvent;

use crate::disk;

/// Events kept.
const KEPT: usize = 2_000;

/// The last events, oldest first.
pub(super) struct EventLog {
    path: PathBuf,
    events: VecDeque<TargetEvent>,
    /// Lines in the file; it is written anew at twice what is kept.
    lines: usize,
}

impl EventLog {
    /// Reads what earlier agents left; a line that is cut off by a crash is skipped.
    pub(super) fn open(path: PathBuf) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut events: VecDeque<TargetEvent> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines = text.lines().count();
        events.drain(..events.len().saturating_sub(KEPT));
        Self { path, events, lines }
    }

    /// Notes one event. A disk that is full costs the line on disk, never the supervision.
    pub(super) fn note(
        &mut self,
        service: &str,
        replica: Option<&str>,
        reason: &str,
        text: impl Into<String>,
    ) {
        let event = TargetEvent {
            at: Timestamp::now(),
            id: ItemId::workload(service),
            replica: replica.map(ToOwned::to_owned),
            reason: reason.to_owned(),
            text: text.into(),
        };
        let line = encode(&event);
        self.events.push_back(event);
        if self.events.len() > KEPT {
            self.events.pop_front();
        }
        self.lines += 1;
        if self.lines > 2 * KEPT {
            let all: String = self.events.iter().map(encode).collect();
            if disk::write(&self.path, all.as_bytes(), disk::Durability::Process).is_ok() {
                self.lines = self.events.len();
            }
            return;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }

    /// Returns the events after `since`, oldest first.
    pub(super) fn since(&self, since: Option<Timestamp>) -> Vec<TargetEvent> {
        self.events.iter().filter(|e| since.is_none_or(|s| e.at > s)).cloned().collect()
    }
}

fn encode(event: &TargetEvent) -> String {
    serde_json::to_string(event).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_outlive_their_agent_and_stay_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(path.clone());
        for number in 0..2 * KEPT + 10 {
            log.note("api", None, "started", number.to_string());
        }
        assert_eq!(log.since(None).len(), KEPT);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"at\":").unwrap();
        let again = EventLog::open(path.clone());
        assert_eq!(again.since(None), log.since(None));
        assert!(std::fs::read_to_string(&path).unwrap().lines().count() <= 2 * KEPT);
        let last = log.since(None).last().unwrap().clone();
        assert_eq!(last.text, (2 * KEPT + 9).to_string());
        assert!(again.since(Some(last.at)).is_empty());
    }
}
