//! The journal: what the writer wrote is read back, and nothing else is taken for it.

use std::sync::Mutex;

use async_trait::async_trait;
use mlctl_core::clock::{Clock, SystemClock};
use mlctl_core::ports::{Journal, JournalError};
use mlctl_core::run::journal::{Entry, ReadError, Record, Replay, Writer, read};

/// Any text as a journal; and its lines as entries of one that the writer writes.
pub fn journal(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match read(&text) {
        Ok(records) => {
            written_is_read(&records);
            replayed(&records);
        }
        Err(error) => place_is_inside(&text, &error),
    }
    let mut entries: Vec<Entry> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    // Nobody writes behind the end of a run, and nothing there is read.
    let end = entries.iter().position(|entry| matches!(entry, Entry::Closed { .. }));
    entries.truncate(end.map_or(entries.len(), |end| end + 1));
    if entries.is_empty() {
        return;
    }
    let written = write(&entries);
    let records = read(&written).expect("what was written is read");
    let told: Vec<Entry> = records.iter().map(|record| record.entry.clone()).collect();
    assert_eq!(told, entries);
    written_is_read(&records);
    replayed(&records);
    damaged(&written, &records, data);
}

/// A journal cut off anywhere is a beginning of it; one with another byte is no other journal.
fn damaged(written: &str, records: &[Record], data: &[u8]) {
    let seed = data.iter().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let at = seed % written.len();
    if let Some(cut) = written.get(..at) {
        let left = read(cut).unwrap_or_else(|error| panic!("cut off at {at}: {error}"));
        assert!(records.starts_with(&left), "cut off at {at} it is another journal");
        let whole = cut.matches('\n').count();
        assert!(left.len() == whole || left.len() == whole + 1, "a whole line is lost");
    }
    let mut bytes = written.as_bytes().to_vec();
    bytes[at] ^= 1 << (seed / written.len() % 7);
    if let Ok(changed) = String::from_utf8(bytes)
        && let Ok(read) = read(&changed)
    {
        assert!(records.starts_with(&read), "a changed byte at {at} went unseen: {changed}");
    }
}

fn written_is_read(records: &[Record]) {
    let lines = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n");
    let text: String = lines.collect();
    assert_eq!(read(&text).as_deref(), Ok(records));
}

fn replayed(records: &[Record]) {
    match Replay::of(records.to_vec()) {
        Ok(replay) => {
            assert_eq!(replay.records, records);
            assert_eq!(replay.last_at, records.last().unwrap().at);
        }
        Err(ReadError::Empty) => assert!(records.is_empty()),
        Err(_) => assert!(!matches!(records[0].entry, Entry::Opened { .. })),
    }
}

fn place_is_inside(text: &str, error: &ReadError) {
    if let ReadError::Malformed { line, .. } | ReadError::Broken { line, .. } = error {
        let lines = text.split_inclusive('\n').count();
        assert!((1..=lines).contains(line), "{error} of {lines} lines");
    }
}

#[derive(Default)]
struct Kept(Mutex<String>);

#[async_trait]
impl Journal for Kept {
    async fn append(&self, line: &str) -> Result<(), JournalError> {
        let mut text = self.0.lock().unwrap();
        text.push_str(line);
        text.push('\n');
        Ok(())
    }
}

fn write(entries: &[Entry]) -> String {
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock: &dyn Clock = &SystemClock;
    let writer = Writer::after("run", &[], &kept, clock);
    runtime.block_on(async {
        for entry in entries {
            writer.append(entry.clone()).await.unwrap();
        }
    });
    kept.0.into_inner().unwrap()
}
