//! The write-ahead journal of a run: what it is about to do, what it did, what was there before.
//!
//! Not a reader of events: an intent is durable here and on the target before its effect begins. Each record carries
//! the hash of the one before, so that a lost or changed record shows. Progress and statuses are not in it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

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
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        let whole = line.ends_with('\n');
        let record: Record = match serde_json::from_str(line.trim_end()) {
            Ok(record) => record,
            Err(_) if !whole && number == lines.len() => break,
            Err(error) => return Err(ReadError::Malformed { line: number, reason: error.to_string() }),
        };
        let prev = records.last().map_or(FIRST, |r| r.hash.as_str());
        let reason = if record.seq != records.len() as u64 + 1 {
            Some(format!("it is number {}", record.seq))
        } else if record.prev != prev {
            Some("it names another one".to_owned())
        } else if record.hash != hash(&record) {
            Some("its content was changed".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(ReadError::Broken { line: number, reason });
        }
        records.push(record);
    }
    Ok(records)
}

/// Appends records behind a chain.
pub struct Writer<'a> {
    journal: &'a dyn Journal,
    clock: &'a dyn Clock,
    last: Mutex<(u64, String)>,
}

impl<'a> Writer<'a> {
    /// Returns a writer that goes on after the records read.
    pub fn after(records: &[Record], journal: &'a dyn Journal, clock: &'a dyn Clock) -> Self {
        let last = records.last().map_or_else(|| (0, FIRST.to_owned()), |r| (r.seq, r.hash.clone()));
        Self { journal, clock, last: Mutex::new(last) }
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
        let line = serde_json::to_string(&record).map_err(|error| JournalError {
            operation: "write",
            run: String::new(),
            reason: error.to_string(),
            source: None,
        })?;
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
    /// Effects that were intended and never confirmed.
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
        for record in &records {
            match &record.entry {
                Entry::StepDone { step, outcome, .. } if outcome.lets_go_on() => {
                    replay.done.insert(step.clone());
                }
                Entry::EffectIntent { effect, .. } => replay.in_doubt.push(effect.clone()),
                Entry::EffectDone { effect, .. } => replay.in_doubt.retain(|open| open != effect),
                Entry::RollbackDecided { reason, .. } => replay.rolling_back = Some(reason.clone()),
                Entry::Closed { outcome, .. } => replay.closed = Some(*outcome),
                _ => {}
            }
        }
        replay.records = records;
        Ok(replay)
    }
}
