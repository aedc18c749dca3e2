//! The write-ahead journal of a run: what it is about to do, what it did, what was there before.
//!
//! Not a reader of events: an intent is durable on the target before its effect begins; the copy at home follows and
//! may end early. Each record carries the hash of the one before, so that a lost or changed record shows. Progress and
//! statuses are not in it.

mod chain;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use self::chain::{Break, Link, parse};
pub use self::chain::{Fault, Findings, Inspection, LONGEST, Seen, Tail, Wrong, inspect};
use crate::clock::Clock;
use crate::event::{Outcome, RunOutcome};
use crate::item::Digest;
use crate::plan::Plan;
use crate::ports::{Journal, JournalError};
use crate::release::Operator;

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Hash of the record before; 64 zeros for the first.
    pub prev: String,
    /// Digest over everything else in this record.
    pub hash: String,
    /// What is recorded.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Entry {
    /// The run begins with this plan.
    Opened {
        /// The run.
        run: String,
        /// Who runs it.
        operator: Operator,
        /// Seed of everything random.
        seed: u64,
        /// The whole plan.
        plan: Box<Plan>,
    },
    /// Another process carries the run on.
    Resumed {
        /// Who.
        operator: Operator,
    },
    /// The release record is about to be created.
    ReleaseIntent {
        /// Its number.
        release: u32,
    },
    /// A step is about to begin.
    StepIntent {
        /// Its phase.
        phase: String,
        /// Its id.
        step: String,
    },
    /// A write is about to happen.
    EffectIntent {
        /// The step.
        step: String,
        /// The effect, as people read it.
        effect: String,
        /// Digest of what was there.
        before: Option<Digest>,
    },
    /// A write has happened.
    EffectDone {
        /// The step.
        step: String,
        /// The effect.
        effect: String,
        /// The generation it led to.
        generation: Option<u64>,
    },
    /// A step has ended.
    StepDone {
        /// Its phase.
        phase: String,
        /// Its id.
        step: String,
        /// How.
        outcome: Outcome,
        /// One sentence.
        note: String,
    },
    /// The release is about to become the head.
    HeadIntent {
        /// Its number.
        release: u32,
    },
    /// The run failed and goes back from here on.
    RollbackDecided {
        /// Why.
        reason: String,
        /// Where to.
        release: u32,
    },
    /// The run was stopped and can be carried on.
    Interrupted,
    /// The run ended; nothing follows.
    Closed {
        /// How.
        outcome: RunOutcome,
        /// Why.
        reason: String,
    },
}

impl Entry {
    /// Says what is recorded, as people read it.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Opened { operator, plan, .. } => {
                format!("opened by {operator}: {} of {}", plan.operation, plan.system)
            }
            Self::Resumed { operator } => format!("resumed by {operator}"),
            Self::ReleaseIntent { release } => format!("record release {release}"),
            Self::StepIntent { phase, step } => format!("begin {phase}/{step}"),
            Self::EffectIntent { effect, .. } => format!("about to {effect}"),
            Self::EffectDone { effect, .. } => format!("did {effect}"),
            Self::StepDone { phase, step, outcome, note } => {
                format!("{phase}/{step} {}: {note}", outcome.word())
            }
            Self::HeadIntent { release } => format!("make release {release} the head"),
            Self::RollbackDecided { reason, release } => format!("go back to release {release}: {reason}"),
            Self::Interrupted => "interrupted".to_owned(),
            Self::Closed { outcome, reason } => format!("closed: {} {reason}", outcome.words()),
        }
    }
}

/// A journal that does not hold together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// A line is no record.
    #[error("read the journal: line {line} is not a record: {reason}")]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A record does not follow the one before.
    #[error("read the journal: line {line} does not follow the line before: {reason}")]
    Broken {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing in it.
    #[error("read the journal: it holds no plan")]
    Empty,
}

/// Returns the hash of a record whose `hash` is still empty.
fn hash(record: &Record) -> String {
    let mut bare = serde_json::to_value(record).unwrap_or_default();
    if let Some(map) = bare.as_object_mut() {
        map.remove("hash");
    }
    Digest::of_json(&bare).as_str().to_owned()
}

const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Reads a journal and checks its chain. A torn last line, without its newline, is what a kill leaves: it is dropped.
///
/// # Errors
/// The first line that is malformed or does not follow.
pub fn read(text: &str) -> Result<Vec<Record>, ReadError> {
    let mut records: Vec<Record> = Vec::new();
    let mut link = Link::default();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let number = index + 1;
        let added = parse(line.as_bytes()).and_then(|record| link.add(&record).map(|()| record));
        let reason = match added {
            Ok(record) => {
                records.push(record);
                continue;
            }
            // Only the last line can be without its newline.
            Err(Break::Malformed(_)) if !line.ends_with('\n') => break,
            Err(Break::Malformed(reason)) => return Err(ReadError::Malformed { line: number, reason }),
            Err(Break::Content) => "its content was changed".to_owned(),
            Err(Break::Number(seq)) => format!("it is number {seq}"),
            Err(Break::Predecessor) => "it names another one".to_owned(),
            Err(Break::AfterEnd) => "the run ended before it".to_owned(),
        };
        return Err(ReadError::Broken { line: number, reason });
    }
    Ok(records)
}

/// Says whether a line is the first record of a process that carries on what another has begun.
#[must_use]
pub fn takes_over(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        record: String,
    }
    serde_json::from_str::<Kind>(line).is_ok_and(|kind| kind.record == "resumed")
}

/// Says whether a line may follow the last one of a journal. What is no record, such as a damaged line, is for
/// [`read`] to tell.
#[must_use]
pub fn follows(last: Option<&str>, line: &str) -> bool {
    #[derive(Deserialize)]
    struct Link {
        prev: String,
        hash: String,
    }
    let link = |line: &str| serde_json::from_str::<Link>(line).ok();
    let Some(next) = link(line) else { return true };
    match last {
        None => next.prev == FIRST,
        Some(last) => link(last).is_none_or(|last| last.hash == next.prev),
    }
}

/// Appends records behind a chain.
pub struct Writer<'a> {
    run: &'a str,
    journal: &'a dyn Journal,
    clock: &'a dyn Clock,
    last: Mutex<(u64, String)>,
}

impl<'a> Writer<'a> {
    /// Returns a writer that goes on after the records read.
    pub fn after(run: &'a str, records: &[Record], journal: &'a dyn Journal, clock: &'a dyn Clock) -> Self {
        let last = records.last().map_or_else(|| (0, FIRST.to_owned()), |r| (r.seq, r.hash.clone()));
        Self { run, journal, clock, last: Mutex::new(last) }
    }

    /// Returns the number of the last record.
    pub async fn last(&self) -> u64 {
        self.last.lock().await.0
    }

    /// Appends one record; it is durable when this returns.
    ///
    /// # Errors
    /// A journal that cannot be written; the chain then stays where it was.
    pub async fn append(&self, entry: Entry) -> Result<(), JournalError> {
        let mut last = self.last.lock().await;
        let mut record = Record {
            seq: last.0 + 1,
            at: self.clock.now(),
            prev: last.1.clone(),
            hash: String::new(),
            entry,
        };
        record.hash = hash(&record);
        let failed = |reason: String| JournalError {
            operation: "write",
            run: self.run.to_owned(),
            reason,
            source: None,
        };
        let line = serde_json::to_string(&record).map_err(|error| failed(error.to_string()))?;
        if line.len() > LONGEST {
            // It could be written, and never be read again.
            return Err(failed(format!("a record of {} bytes; {LONGEST} are the most", line.len())));
        }
        self.journal.append(&line).await?;
        *last = (record.seq, record.hash);
        Ok(())
    }
}

/// What a journal says about a run that is to be carried on.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The run.
    pub run: String,
    /// Its plan.
    pub plan: Plan,
    /// Its seed.
    pub seed: u64,
    /// Who began it.
    pub operator: Operator,
    /// Steps that ended well.
    pub done: BTreeSet<String>,
    /// Why it was going back, when it was.
    pub rolling_back: Option<String>,
    /// How it ended, when it did.
    pub closed: Option<RunOutcome>,
    /// Effects that were intended and never confirmed, neither by themselves nor by the good end of their step. Each
    /// is there once, however often it was tried.
    pub in_doubt: Vec<String>,
    /// When it was last written to.
    pub last_at: Timestamp,
    /// The records.
    pub records: Vec<Record>,
}

impl Replay {
    /// Folds the records of one run.
    ///
    /// # Errors
    /// A journal without a plan.
    pub fn of(records: Vec<Record>) -> Result<Self, ReadError> {
        let Some((first, last)) = records.first().zip(records.last()) else { return Err(ReadError::Empty) };
        let Entry::Opened { run, operator, seed, plan } = first.entry.clone() else {
            return Err(ReadError::Broken { line: 1, reason: "it does not open a run".to_owned() });
        };
        let mut replay = Self {
            run,
            plan: *plan,
            seed,
            operator,
            done: BTreeSet::new(),
            rolling_back: None,
            closed: None,
            in_doubt: Vec::new(),
            last_at: last.at,
            records: Vec::new(),
        };
        // Effects that are open, each with its step.
        let mut open: Vec<(&str, &str)> = Vec::new();
        for record in &records {
            match &record.entry {
                Entry::StepDone { step, outcome, .. } => {
                    if outcome.lets_go_on() {
                        replay.done.insert(step.clone());
                    } else {
                        // It ended well before an interruption, and not when it was looked at again.
                        replay.done.remove(step);
                    }
                    // A step that ends well has seen everything it is about as it should be.
                    if matches!(outcome, Outcome::Success | Outcome::Skipped) {
                        open.retain(|(of, _)| of != step);
                    }
                }
                Entry::EffectIntent { step, effect, .. } => {
                    open.retain(|(_, known)| known != effect);
                    open.push((step, effect));
                }
                Entry::EffectDone { effect, .. } => open.retain(|(_, known)| known != effect),
                Entry::RollbackDecided { reason, .. } => replay.rolling_back = Some(reason.clone()),
                Entry::Closed { outcome, .. } => replay.closed = Some(*outcome),
                _ => {}
            }
        }
        replay.in_doubt = open.into_iter().map(|(_, effect)| effect.to_owned()).collect();
        replay.records = records;
        Ok(replay)
    }
}
