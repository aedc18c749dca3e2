//! The chain of a journal, looked at line by line: the first line that breaks it, and what is wrong with it.
//!
//! [`Inspection`] takes lines one after another and keeps of each only its hash and a few words, so that a journal of
//! any size can be looked at. It tells an edited line from a missing, moved, copied or forked one by looking at the
//! lines behind; [`super::read`] only needs the first break.

use std::collections::HashMap;

use super::{Entry, FIRST, Record, hash};

/// The longest line that is read as a record: a plan with all its migrations is far below it.
pub const LONGEST: usize = 64 * 1024 * 1024;

/// Why a record cannot follow the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Break {
    /// It is no record.
    Malformed(String),
    /// Its content is not what its hash says.
    Content,
    /// It has another number than the next one.
    Number(u64),
    /// It names another record as the one before.
    Predecessor,
    /// The run ended before it.
    AfterEnd,
}

/// The end of a chain that holds.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) hash: String,
    closed: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self { seq: 0, hash: FIRST.to_owned(), closed: false }
    }
}

impl Link {
    /// Puts a record behind the chain, when it belongs there.
    pub(super) fn add(&mut self, record: &Record) -> Result<(), Break> {
        // The content first: a number that was edited is an edit, not a gap.
        if record.hash != hash(record) {
            return Err(Break::Content);
        }
        if record.seq != self.seq + 1 {
            return Err(Break::Number(record.seq));
        }
        if record.prev != self.hash {
            return Err(Break::Predecessor);
        }
        if self.closed {
            return Err(Break::AfterEnd);
        }
        self.seq = record.seq;
        self.hash.clone_from(&record.hash);
        self.closed = matches!(record.entry, Entry::Closed { .. });
        Ok(())
    }
}

/// Reads one line as a record.
pub(super) fn parse(line: &[u8]) -> Result<Record, Break> {
    let line = line.trim_ascii_end();
    if line.is_empty() {
        return Err(Break::Malformed("the line is empty".to_owned()));
    }
    let nuls = line.iter().take_while(|byte| **byte == 0).count();
    if nuls > 0 {
        // What a file system leaves after a loss of power.
        return Err(Break::Malformed(format!("{nuls} NUL bytes")));
    }
    if line.len() > LONGEST {
        return Err(Break::Malformed(format!("{} bytes, {LONGEST} are the most", line.len())));
    }
    serde_json::from_slice(line).map_err(|error| Break::Malformed(error.to_string()))
}

/// What is wrong with the first line that does not belong where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is no record.
    Malformed(String),
    /// Its content was changed.
    Edited,
    /// Records before it are not there.
    Missing {
        /// The first one.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// It belongs elsewhere: what belongs here comes later.
    Moved,
    /// It is there already.
    Copied {
        /// Where.
        line: usize,
    },
    /// Another record has its place: two processes wrote, or one of the two was inserted.
    Forked {
        /// Where the other one is.
        line: usize,
    },
    /// The record before was replaced by one with a hash of its own, or this line is of another journal.
    Replaced,
    /// The run ended before it.
    AfterEnd,
    /// The journal does not begin with the plan of its run.
    NoOpening,
}

/// A line that does not belong where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The number the record says it has, when it is one.
    pub seq: Option<u64>,
    /// What is wrong.
    pub wrong: Wrong,
}

impl Fault {
    /// Returns a stable word for programs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.wrong {
            Wrong::Malformed(_) => "malformed",
            Wrong::Edited => "edited",
            Wrong::Missing { .. } => "deleted",
            Wrong::Moved => "reordered",
            Wrong::Copied { .. } => "inserted",
            Wrong::Forked { .. } => "two_writers",
            Wrong::Replaced => "replaced",
            Wrong::AfterEnd => "after_end",
            Wrong::NoOpening => "no_opening",
        }
    }

    /// Says what is wrong, for people.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.wrong {
            Wrong::Malformed(reason) => format!("it is not a record: {reason}"),
            Wrong::Edited => "its content was changed after it was written".to_owned(),
            Wrong::Missing { from, to } if from == to => format!("record {from} before it was deleted"),
            Wrong::Missing { from, to } => format!("records {from} to {to} before it were deleted"),
            Wrong::Moved => "it is not in its place: the records were reordered".to_owned(),
            Wrong::Copied { line } => format!("it is a copy of line {line}, inserted here"),
            Wrong::Forked { line } => {
                format!(
                    "it has the place of line {line}: two processes wrote, or one of the two was inserted"
                )
            }
            Wrong::Replaced => {
                "it follows another record than the line before, which was replaced or inserted".to_owned()
            }
            Wrong::AfterEnd => "the run had ended before it".to_owned(),
            Wrong::NoOpening => "it is the first and holds no plan: the beginning is missing".to_owned(),
        }
    }
}

/// What stands behind the last newline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// A line that was never finished.
    Torn(usize),
    /// NUL bytes, which a file system leaves after a loss of power.
    Nuls(usize),
}

impl Tail {
    /// Returns its length in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Torn(bytes) | Self::Nuls(bytes) => bytes,
        }
    }

    /// Says what it is, for people.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Torn(bytes) => format!("a torn last line of {bytes} bytes, never acknowledged"),
            Self::Nuls(bytes) => format!("{bytes} NUL bytes at the end, as a loss of power leaves them"),
        }
    }
}

/// A record of the intact part, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its hash.
    pub hash: String,
    /// Its kind, and what it is about.
    pub what: String,
    /// True for one that carries the run on.
    pub resumes: bool,
}

/// What an inspection found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// The run that the first record opens.
    pub run: Option<String>,
    /// The records up to the first fault.
    pub intact: Vec<Seen>,
    /// The first line that does not belong where it is.
    pub fault: Option<Fault>,
    /// What stands behind the last newline.
    pub tail: Option<Tail>,
    /// Lines in all, a torn one apart.
    pub lines: usize,
    /// True when the run ended.
    pub closed: bool,
}

/// Looks at a journal line by line.
#[derive(Debug, Default)]
pub struct Inspection {
    found: Findings,
    link: Link,
    /// Where each hash of the intact part stands.
    places: HashMap<String, usize>,
    /// The first break, with the record when there was one.
    broken: Option<(usize, Break, Option<Box<Record>>)>,
    /// A record behind the break has the number that was due there.
    due_comes_later: bool,
}

impl Inspection {
    /// Takes the next line, with its newline when it has one.
    pub fn line(&mut self, line: &[u8]) {
        let Some(whole) = line.strip_suffix(b"\n") else {
            if !line.is_empty() {
                let nuls = line.iter().all(|byte| *byte == 0);
                self.found.tail = Some(if nuls { Tail::Nuls(line.len()) } else { Tail::Torn(line.len()) });
            }
            return;
        };
        self.found.lines += 1;
        match parse(whole) {
            Ok(record) => self.record(record),
            Err(broken) => self.breaks(broken, None),
        }
    }

    /// Takes the next line where it is too long to be held.
    pub fn too_long(&mut self, bytes: u64) {
        self.found.lines += 1;
        self.breaks(Break::Malformed(format!("{bytes} bytes, {LONGEST} are the most")), None);
    }

    fn record(&mut self, record: Record) {
        if self.broken.is_some() {
            self.due_comes_later |= record.seq == self.link.seq + 1 && record.hash == hash(&record);
            return;
        }
        if let Err(broken) = self.link.add(&record) {
            self.breaks(broken, Some(record));
            return;
        }
        self.places.insert(record.hash.clone(), self.found.lines);
        if let Entry::Opened { run, .. } = &record.entry {
            self.found.run.get_or_insert_with(|| run.clone());
        }
        self.found.closed |= matches!(record.entry, Entry::Closed { .. });
        let (hash, what) = (record.hash, record.entry.words());
        let resumes = matches!(record.entry, Entry::Resumed { .. });
        self.found.intact.push(Seen { hash, what, resumes });
    }

    fn breaks(&mut self, broken: Break, record: Option<Record>) {
        if self.broken.is_none() {
            self.broken = Some((self.found.lines, broken, record.map(Box::new)));
        }
    }

    /// Ends it.
    #[must_use]
    pub fn end(mut self) -> Findings {
        if let Some((line, broken, record)) = self.broken.take() {
            let seq = record.as_ref().map(|record| record.seq);
            let wrong = self.judge(broken, record.as_deref());
            self.found.fault = Some(Fault { line, seq, wrong });
        } else if self.found.run.is_none() && !self.found.intact.is_empty() {
            self.found.fault = Some(Fault { line: 1, seq: Some(1), wrong: Wrong::NoOpening });
        }
        self.found
    }

    /// Tells what happened from what follows and what came before.
    fn judge(&self, broken: Break, record: Option<&Record>) -> Wrong {
        let record = match (broken, record) {
            (Break::Malformed(reason), _) => return Wrong::Malformed(reason),
            (Break::AfterEnd, _) => return Wrong::AfterEnd,
            (Break::Number(_) | Break::Predecessor, Some(record)) => record,
            _ => return Wrong::Edited,
        };
        let seq = record.seq;
        let due = self.link.seq + 1;
        if let Some(line) = self.places.get(&record.hash) {
            return Wrong::Copied { line: *line };
        }
        if seq == due {
            return Wrong::Replaced;
        }
        if seq > due {
            return if self.due_comes_later {
                Wrong::Moved
            } else {
                Wrong::Missing { from: due, to: seq - 1 }
            };
        }
        // It follows the same record as one that is there: both cannot be.
        let line = usize::try_from(seq).unwrap_or(usize::MAX);
        let before = line.checked_sub(2).and_then(|at| self.found.intact.get(at));
        let before = before.map_or(FIRST, |seen| seen.hash.as_str());
        if record.prev == before { Wrong::Forked { line } } else { Wrong::Moved }
    }
}

/// Looks at a whole text.
#[must_use]
pub fn inspect(text: &[u8]) -> Findings {
    let mut inspection = Inspection::default();
    text.split_inclusive(|byte| *byte == b'\n').for_each(|line| inspection.line(line));
    inspection.end()
}
