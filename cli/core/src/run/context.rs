//! What a step may do: look through the ports, write behind the journal, and tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::CancelToken;
use super::engine::describe;
use super::hold::Hold;
use super::journal::{Entry, Replay, Writer};
use crate::cause::CauseCode;
use crate::clock::Clock;
use crate::event::{EVENT_VERSION, Event, EventKind, EventSink};
use crate::gate::GateResult;
use crate::item::{Digest, ItemId};
use crate::ports::{
    Fence, Inspector, JournalError, Lease, LoadReport, LoadRunner, Orchestrator, ReleaseStore, StoreAdmin,
};
use crate::snapshot::Live;
use crate::status::Cause;
use crate::steps::StepError;

/// The ports of a run.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// Changes the target.
    pub orchestrator: &'a dyn Orchestrator,
    /// Reads it.
    pub inspector: &'a dyn Inspector,
    /// Keeps releases.
    pub releases: &'a dyn ReleaseStore,
    /// Runs migrations.
    pub stores: &'a dyn StoreAdmin,
    /// Sends load.
    pub load: &'a dyn LoadRunner,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

/// Numbers events and hands them to the readers.
pub(super) struct Teller<'a> {
    pub(super) run: &'a str,
    pub(super) sink: &'a dyn EventSink,
    pub(super) clock: &'a dyn Clock,
    pub(super) started: Instant,
    pub(super) seq: AtomicU64,
}

impl Teller<'_> {
    pub(super) fn tell(&self, kind: EventKind) {
        let event = Event {
            v: EVENT_VERSION,
            run: self.run.to_owned(),
            seq: self.seq.fetch_add(1, Ordering::Relaxed) + 1,
            at: self.clock.now(),
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            kind,
        };
        self.sink.take(&event);
    }
}

/// What the steps of one run share.
#[derive(Default)]
pub(super) struct Shared {
    /// Load reports by the step that made them.
    loads: Mutex<BTreeMap<String, LoadReport>>,
    /// Items once current, with the generation at which they were: watched until the run ends.
    guarded: Mutex<BTreeMap<ItemId, u64>>,
    /// The generation of the last write to an item in this run.
    written: Mutex<BTreeMap<ItemId, u64>>,
    /// Effects begun and not confirmed.
    open: Mutex<BTreeSet<String>>,
    /// Every effect begun, in order.
    begun: Mutex<Vec<String>>,
}

impl Shared {
    /// Returns what the steps of a run share that goes on from there.
    pub(super) fn after(replay: Option<&Replay>) -> Self {
        let Some(replay) = replay else { return Self::default() };
        let begun = replay.records.iter().filter_map(|record| match &record.entry {
            Entry::EffectIntent { effect, .. } => Some(effect.clone()),
            _ => None,
        });
        Self {
            open: Mutex::new(replay.in_doubt.iter().cloned().collect()),
            begun: Mutex::new(begun.collect()),
            ..Self::default()
        }
    }

    /// Returns a guarded item that has failed since, with its cause.
    pub(super) fn fallen(&self, lives: &BTreeMap<ItemId, Live>) -> Option<StepError> {
        let guarded = lock(&self.guarded);
        lives.iter().find_map(|(id, live)| {
            let generation = guarded.get(id)?;
            let cause = live.status.cause.as_ref().filter(|cause| cause.terminal)?;
            (live.observed_generation >= *generation)
                .then(|| StepError::Terminal { item: id.clone(), cause: cause.clone() })
        })
    }

    /// Returns a guarded item that is not current at the moment.
    fn down(&self, lives: &BTreeMap<ItemId, Live>) -> Option<(ItemId, Live)> {
        let guarded = lock(&self.guarded);
        let down = lives.iter().find(|(id, live)| guarded.contains_key(*id) && !live.is_current());
        down.map(|(id, live)| (id.clone(), live.clone()))
    }

    /// Stops watching: what failed is about to be replaced.
    pub(super) fn forget_guarded(&self) {
        lock(&self.guarded).clear();
    }
}

/// What a step of a run may do.
pub struct StepContext<'a> {
    /// The ports.
    pub ports: Ports<'a>,
    /// Passed with each write.
    pub fence: Fence,
    /// Tells when to stop.
    pub cancel: &'a CancelToken,
    /// Seed of everything random in this attempt at the step.
    pub seed: u64,
    /// The latest status of every item of the plan.
    pub(crate) observations: watch::Receiver<BTreeMap<ItemId, Live>>,
    pub(super) phase: &'a str,
    pub(super) step: &'a str,
    pub(super) teller: &'a Teller<'a>,
    pub(super) journal: &'a Writer<'a>,
    pub(super) hold: &'a Hold<'a>,
    pub(super) shared: &'a Shared,
}

impl StepContext<'_> {
    /// Tells how far something is; `total` 0 = not known.
    pub fn progress(&self, done: u64, total: u64, text: String) {
        let (phase, step) = (self.phase.to_owned(), self.step.to_owned());
        self.teller.tell(EventKind::Progress { phase, step, done, total, text });
    }

    /// Tells what a gate said about one subject.
    pub fn gate(&self, result: &GateResult) {
        let (phase, step) = (self.phase.to_owned(), self.step.to_owned());
        self.teller.tell(EventKind::Gate { phase, step, result: result.clone() });
    }

    /// Writes an effect ahead. The effect must not happen when this fails.
    ///
    /// # Errors
    /// A lease that is lost; a journal that cannot be written.
    pub async fn intend(&self, effect: &str, before: Option<&Digest>) -> Result<(), StepError> {
        self.hold.confirm().await?;
        self.journal
            .append(Entry::EffectIntent {
                step: self.step.to_owned(),
                effect: effect.to_owned(),
                before: before.cloned(),
            })
            .await?;
        lock(&self.shared.open).insert(effect.to_owned());
        lock(&self.shared.begun).push(effect.to_owned());
        Ok(())
    }

    /// Returns the lease, for effects in places that know no fence.
    #[must_use]
    pub fn lease(&self) -> &dyn Lease {
        self.hold
    }

    /// Records that an effect happened.
    ///
    /// # Errors
    /// A journal that cannot be written; the effect is then in doubt and a resume probes it.
    pub async fn done(&self, effect: &str, generation: Option<u64>) -> Result<(), JournalError> {
        self.journal
            .append(Entry::EffectDone { step: self.step.to_owned(), effect: effect.to_owned(), generation })
            .await?;
        lock(&self.shared.open).remove(effect);
        Ok(())
    }

    /// Says whether that effect was begun before, here or by an earlier process of the run, and never confirmed: it may
    /// be done by half, so that what shows of it proves nothing.
    #[must_use]
    pub fn is_in_doubt(&self, effect: &str) -> bool {
        lock(&self.shared.open).contains(effect)
    }

    /// Returns the last effect begun that a test finds, by this process of the run or one before it.
    #[must_use]
    pub fn last_begun(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        lock(&self.shared.begun).iter().rev().find(|effect| wanted(effect)).cloned()
    }

    /// Returns the latest status of an item.
    #[must_use]
    pub fn live(&self, id: &ItemId) -> Live {
        self.observations.borrow().get(id).cloned().unwrap_or_else(Live::missing)
    }

    /// Says whether the latest status of an item is not yet about the last write of this run to it.
    #[must_use]
    pub fn is_stale(&self, live: &Live, id: &ItemId) -> bool {
        lock(&self.shared.written).get(id).is_some_and(|written| live.generation < *written)
    }

    /// Remembers the generation that a write led to.
    pub fn wrote(&self, id: &ItemId, generation: u64) {
        lock(&self.shared.written).insert(id.clone(), generation);
    }

    /// Keeps watching an item until the run ends: current once is not current for good.
    pub fn guard(&self, id: &ItemId, generation: u64) {
        lock(&self.shared.guarded).insert(id.clone(), generation);
    }

    /// Waits until everything that was current in this run is current at this moment.
    ///
    /// # Errors
    /// An item that is down when the time is over; waiting longer is no proof that it works.
    pub async fn all_current(&self, within: Duration) -> Result<(), StepError> {
        let mut observations = self.observations.clone();
        let until = Instant::now() + within;
        loop {
            let down = self.shared.down(&observations.borrow_and_update());
            let Some((item, live)) = down else { return Ok(()) };
            tokio::select! {
                biased;
                changed = observations.changed() => self.watch_alive(changed.is_ok())?,
                () = tokio::time::sleep_until(until) => {
                    let text = format!("it was current and is no longer: {}", describe(&item, &live));
                    return Err(StepError::Terminal { item, cause: Cause::terminal(CauseCode::Fell, text) });
                }
            }
        }
    }

    /// Tells what a load run showed, and keeps it for the gates after it.
    pub fn keep_load(&self, report: LoadReport) {
        let (phase, step) = (self.phase.to_owned(), self.step.to_owned());
        self.teller.tell(EventKind::Load { phase, step, report: Box::new(report.clone()) });
        lock(&self.shared.loads).insert(self.step.to_owned(), report);
    }

    /// Returns the report of an earlier load step.
    #[must_use]
    pub fn load(&self, step: &str) -> Option<LoadReport> {
        lock(&self.shared.loads).get(step).cloned()
    }

    /// Turns a closed observation channel into an error: nobody watches any more.
    pub(crate) fn watch_alive(&self, alive: bool) -> Result<(), StepError> {
        if alive { Ok(()) } else { Err(StepError::Cancelled) }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
