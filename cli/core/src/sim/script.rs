//! The script of a simulation, as TOML: how fast things are, what goes wrong and when.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::item::{Item, ItemId};
use crate::ports::ErrorKind;
use crate::status::Cause;
use crate::system::units::{Percent, TimeSpan};
use crate::yaml::{LARGEST, Problems, typed};

/// A text that is not a script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It is not the TOML that a script is made of.
    #[error("{0}")]
    Script(Problems),
    /// A saved world does not read back.
    #[error("read the saved world of the simulation")]
    World(#[source] serde_json::Error),
}

/// A whole script. Everything in it may be left out: an empty text is a healthy, quick target.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Script {
    /// The wall time at which the simulation begins; 2026-01-01 when absent.
    pub now: Option<Timestamp>,
    /// How long things take, where `timing` of the item does not say otherwise.
    pub pace: Pace,
    /// How long things take for single items, by id or by the name of a workload.
    pub timing: BTreeMap<String, Pace>,
    /// Values of secrets by name; others get one made from their name.
    pub secrets: BTreeMap<String, String>,
    /// What goes wrong with items.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
    /// Calls that fail.
    #[serde(rename = "error")]
    pub errors: Vec<CallError>,
    /// Times in which nothing answers.
    pub unavailable: Vec<Window>,
    /// What HTTP paths answer, where it is not plain 200.
    #[serde(rename = "answer")]
    pub answers: Vec<Answer>,
    /// What happens to the lease.
    pub lease: LeaseScript,
    /// What happens to watch streams.
    pub watch: WatchScript,
    /// What happens to journals.
    pub journal: JournalScript,
    /// Figures of load runs.
    pub load: LoadScript,
    /// When the process that works with the target dies.
    pub kill: Option<KillPoint>,
}

impl Script {
    /// Reads a script. `file` is what problems call it.
    ///
    /// # Errors
    /// A text that is not TOML, an unknown key, a value that makes no sense.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let text = typed::text_of(file, bytes, LARGEST)?;
        toml::from_str(text).map_err(|error| {
            typed::refused(file, text, error.span().map_or(0, |span| span.start), error.message())
        })
    }

    /// Returns how long things take for an item, in milliseconds.
    pub(super) fn tempo(&self, id: &ItemId) -> Tempo {
        let own = self.timing.iter().find(|(name, _)| names(name, id)).map(|(_, pace)| pace);
        let millis = |of: fn(&Pace) -> Option<TimeSpan>, default: u64| {
            own.and_then(of).or_else(|| of(&self.pace)).map_or(default, TimeSpan::as_millis)
        };
        Tempo {
            observe: millis(|p| p.observe, 20),
            start: millis(|p| p.start, 200),
            ready: millis(|p| p.ready, 300),
            stop: millis(|p| p.stop, 100),
        }
    }

    /// Returns the faults that hit one revision of an item; `nth` counts its revisions from 1.
    pub(super) fn faults_of(&self, item: &Item, nth: usize) -> impl Iterator<Item = &Fault> {
        let payload = item.payload.to_string();
        self.faults.iter().filter(move |fault| {
            names(&fault.item, &item.id)
                && fault.revision.is_none_or(|revision| revision == nth)
                && fault.contains.as_ref().is_none_or(|text| payload.contains(text.as_str()))
        })
    }
}

/// Says whether a script's name means an item: its id, or the bare name of a workload.
pub(super) fn names(name: &str, id: &ItemId) -> bool {
    *id == ItemId::workload(name) || id.to_string() == name
}

/// How long the parts of a change take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// Until the target notices a write: the old status is told as long.
    pub observe: Option<TimeSpan>,
    /// From the notice until the process of a replica runs.
    pub start: Option<TimeSpan>,
    /// From then until it is ready.
    pub ready: Option<TimeSpan>,
    /// Until a replica that goes is gone.
    pub stop: Option<TimeSpan>,
}

/// [`Pace`] with everything said, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tempo {
    pub(super) observe: u64,
    pub(super) start: u64,
    pub(super) ready: u64,
    pub(super) stop: u64,
}

/// What goes wrong with an item. Several may hit one revision.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fault {
    /// The item: its id, or the bare name of a workload.
    pub item: String,
    /// Only the revision that is the so-manieth the target saw of it, from 1.
    pub revision: Option<usize>,
    /// Only revisions whose payload holds this text.
    pub contains: Option<String>,
    /// Each process exits so long after it began to run.
    pub crash: Option<TimeSpan>,
    /// The exit code of a crash; 1 when absent.
    pub exit: Option<i32>,
    /// The crash after which the target gives up; the second when absent.
    pub give_up: Option<u32>,
    /// New replicas never become ready.
    pub never_ready: bool,
    /// A cause that shows some time after the notice.
    pub cause: Option<Trouble>,
    /// How often readiness is lost and comes back after the item was current.
    pub flaps: u32,
    /// How long each half of a flap takes; 500 ms when absent.
    pub flap: Option<TimeSpan>,
    /// Start and readiness take so many times longer; 0 = 1.
    pub slow: u32,
    /// The status that HTTP questions to it get.
    pub health: Option<u16>,
    /// The body of that answer.
    pub body: Option<String>,
    /// Series that its replicas do not export.
    pub series_missing: Vec<String>,
    /// The p99 that load shows while it runs.
    pub p99: Option<TimeSpan>,
    /// The share of failed requests that load shows while it runs.
    pub errors: Option<Percent>,
    /// What its processes write before they crash.
    pub log: Vec<String>,
}

/// A cause with its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Trouble {
    /// Time after the notice; at once when absent.
    #[serde(default)]
    pub after: TimeSpan,
    /// The code.
    pub code: String,
    /// The sentence.
    pub text: String,
    /// True when waiting cannot help.
    #[serde(default)]
    pub terminal: bool,
}

impl Trouble {
    pub(super) fn cause(&self) -> Cause {
        Cause { code: self.code.clone(), terminal: self.terminal, since: None, text: self.text.clone() }
    }
}

/// Calls of one port that fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CallError {
    /// The verb: `apply`, `observe`, `watch`, `lock`, `renew`, `create`, `mark`, `set_head`, `migrate`, `probe`, ...
    pub port: String,
    /// Only calls about this item, service or release; all when absent.
    #[serde(default)]
    pub item: Option<String>,
    /// So many calls work before.
    #[serde(default)]
    pub skip: u32,
    /// So many calls fail.
    #[serde(default = "once")]
    pub count: u32,
    /// How.
    #[serde(default = "unavailable")]
    pub kind: ErrorKind,
    /// The sentence.
    #[serde(default = "reset")]
    pub reason: String,
}

fn reset() -> String {
    "the connection was reset".to_owned()
}

const fn once() -> u32 {
    1
}

const fn unavailable() -> ErrorKind {
    ErrorKind::Unavailable
}

/// A time in which nothing answers, counted from the begin of the simulation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Begin.
    pub from: TimeSpan,
    /// End.
    pub until: TimeSpan,
}

impl Window {
    pub(super) fn holds(self, now_ms: u64) -> bool {
        (self.from.as_millis()..self.until.as_millis()).contains(&now_ms)
    }
}

/// What one path answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The path asked.
    pub path: String,
    /// The status.
    #[serde(default = "ok")]
    pub status: u16,
    /// The body.
    #[serde(default)]
    pub body: String,
    /// From when on, counted from the begin of the simulation; the last one that holds wins.
    #[serde(default)]
    pub from: TimeSpan,
}

const fn ok() -> u16 {
    200
}

/// What happens to the lease.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LeaseScript {
    /// When somebody else takes it by force, counted from the begin of the simulation.
    pub lost_at: Option<TimeSpan>,
}

/// What happens to watch streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchScript {
    /// When every open stream breaks, counted from the begin of the simulation.
    pub breaks: Vec<TimeSpan>,
    /// How late streams tell.
    pub lag: TimeSpan,
}

/// What happens to journals.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct JournalScript {
    /// The record, over all journals and from 1, from which on none can be written.
    pub fails_at: Option<u64>,
}

/// Figures of load runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoadScript {
    /// Median latency; half of `p99` when absent.
    pub p50: Option<TimeSpan>,
    /// Latency that 99 of 100 requests keep; 12 ms when absent.
    pub p99: Option<TimeSpan>,
    /// Share of failed requests.
    pub errors: Option<Percent>,
    /// True when the client could not keep its schedule: nothing can be told then.
    pub late: bool,
}

/// When the process that works with the target dies: from then on nothing answers it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillPoint {
    /// Right after that effect, before its answer; from 1.
    Effect(u64),
    /// Right after that journal record is durable; from 1, over all journals.
    Record(u64),
    /// Right before that journal record is durable: whoever appends it never learns what became of it.
    Append(u64),
}
