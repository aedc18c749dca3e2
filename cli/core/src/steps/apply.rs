//! `apply`: writes to the target, then waits until everything written is current, fresh and lasting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{StepError, StepNote};
use crate::cause::CauseCode;
use crate::item::ItemId;
use crate::ports::Write;
use crate::run::{StepContext, wall};
use crate::snapshot::Live;
use crate::status::{Cause, Condition, Status};

/// Parameters of `apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Apply {
    /// The writes, in order.
    pub writes: Vec<Write>,
    /// Items that are written although their digest is the live one: a value or a live file beside it differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrite: Vec<ItemId>,
    /// How many items may be under way at a time. When there are more, the first one goes alone: it has to be
    /// healthy before the rest is let in.
    pub width: usize,
    /// Milliseconds for which everything has to stay current.
    pub stable_for_ms: u64,
}

/// One write under way.
struct Flight {
    generation: u64,
    condition: Condition,
    /// The last time its counts moved.
    moved: Instant,
    counts: (Status, u32, u32, u32),
    current_since: Option<Instant>,
}

/// A look that is later than it should be by more than this means that the process did not run.
const HELD_UP: Duration = Duration::from_secs(3);

impl Flight {
    /// Leaves out a time in which this process did not run.
    fn pass_over(&mut self, time: Duration) {
        self.moved += time;
        self.current_since = None;
    }
}

impl Apply {
    pub(super) async fn run(&self, context: &StepContext<'_>) -> Result<StepNote, StepError> {
        let mut open: Vec<&Write> = self.writes.iter().rev().collect();
        let mut flights: BTreeMap<ItemId, Flight> = BTreeMap::new();
        let mut settled: BTreeSet<ItemId> = BTreeSet::new();
        let mut written = 0_usize;
        let alone_first = self.writes.len() > self.width;
        let mut observations = context.observations.clone();
        let mut due = Instant::now();
        loop {
            // What nobody looked at is neither a calm nor a standstill: the clocks of the flights begin where they were.
            let late = due.elapsed();
            if late > HELD_UP {
                flights.values_mut().for_each(|flight| flight.pass_over(late));
            }
            let admitted = if alone_first && settled.is_empty() { 1 } else { self.width.max(1) };
            while flights.len() - settled.len() < admitted
                && let Some(write) = open.pop()
            {
                let again = self.rewrite.contains(write.id());
                let (flight, wrote) = launch(context, write, again).await?;
                written += usize::from(wrote);
                flights.insert(write.id().clone(), flight);
            }
            let lives = observations.borrow_and_update().clone();
            let wake = self.look(context, &lives, &mut flights, &mut settled)?;
            due = wake;
            if open.is_empty() && settled.len() == flights.len() {
                return Ok(note(written, self.writes.len()));
            }
            if flights.len() - settled.len() < self.width.max(1) && !open.is_empty() && !settled.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                changed = observations.changed() => context.watch_alive(changed.is_ok())?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Looks at every flight; returns when to look again even if nothing changes.
    fn look(
        &self,
        context: &StepContext<'_>,
        lives: &BTreeMap<ItemId, Live>,
        flights: &mut BTreeMap<ItemId, Flight>,
        settled: &mut BTreeSet<ItemId>,
    ) -> Result<Instant, StepError> {
        let now = Instant::now();
        let stable = Duration::from_millis(self.stable_for_ms);
        let mut wake = now + Duration::from_secs(1);
        for (id, flight) in flights.iter_mut() {
            let live = lives.get(id).cloned().unwrap_or_else(Live::missing);
            let fresh = live.observed_generation >= flight.generation;
            let status = &live.status;
            let counts = (status.status, status.ready, status.updated, status.desired);
            if counts != flight.counts {
                flight.counts = counts;
                flight.moved = now;
            }
            if flight.condition.holds(&live, flight.generation) {
                let since = *flight.current_since.get_or_insert(now);
                if since + stable <= now {
                    settled.insert(id.clone());
                    if flight.condition == Condition::AllCurrent {
                        context.guard(id, flight.generation);
                    }
                } else {
                    wake = wake.min(since + stable);
                }
                continue;
            }
            flight.current_since = None;
            settled.remove(id);
            if let Some(cause) = status.cause.as_ref().filter(|cause| fresh && cause.terminal) {
                return Err(StepError::Terminal { item: id.clone(), cause: cause.clone() });
            }
            if let Some(limit) = self.progress_deadline(id) {
                let until = flight.moved + limit;
                if until <= now {
                    let since = wall(context.ports.clock, flight.moved);
                    let until = wall(context.ports.clock, until);
                    return Err(no_progress(id, &live, limit, since, until));
                }
                wake = wake.min(until);
            }
        }
        Ok(wake)
    }

    fn progress_deadline(&self, id: &ItemId) -> Option<Duration> {
        self.writes.iter().find(|w| w.id() == id).and_then(|write| match write {
            Write::Put { item, .. } => item.progress_deadline_ms.map(Duration::from_millis),
            _ => None,
        })
    }
}

/// Carries out one write, unless the target already shows its result; says whether it wrote.
async fn launch(context: &StepContext<'_>, write: &Write, again: bool) -> Result<(Flight, bool), StepError> {
    let id = write.id();
    let live = context.live(id);
    let condition =
        if matches!(write, Write::Remove { .. }) { Condition::AllGone } else { Condition::AllCurrent };
    let effect = effect_name(write);
    // A watch may lag behind our own writes, those of a process before this one too: going back, the state of before
    // the way forward looks like the end. What the run last did to the item says more.
    let last = context.last_begun(|begun| is_about(begun, id));
    let overtaken = last.as_ref().is_some_and(|last| *last != effect);
    // What an earlier run put and what failed then is asked for anew: what it failed for may be gone. It has failed
    // this run when it fails after this run's own write.
    let failed_before = last.is_none() && live.status.cause.as_ref().is_some_and(|cause| cause.terminal);
    // A write that a kill cut in two may show as done. Writes repeat without harm: what is whole stays as it is.
    let doubted = context.is_in_doubt(&effect);
    let wrote = again
        || doubted
        || overtaken
        || failed_before
        || !is_there(write, &live)
        || context.is_stale(&live, id);
    let generation = if wrote {
        context.intend(&effect, live.digest.as_ref()).await?;
        let applied = context.ports.orchestrator.apply(write, context.fence).await?;
        context.wrote(id, applied.generation);
        context.done(&effect, Some(applied.generation)).await?;
        applied.generation
    } else {
        live.generation
    };
    let status = &live.status;
    let counts = (status.status, status.ready, status.updated, status.desired);
    Ok((Flight { generation, condition, moved: Instant::now(), counts, current_since: None }, wrote))
}

/// Says whether a live item already is what the write would make it: what a resume finds after a kill.
fn is_there(write: &Write, live: &Live) -> bool {
    match write {
        Write::Put { item, replicas } => {
            live.digest.as_ref() == Some(&item.digest) && (replicas.is_none() || live.replicas == *replicas)
        }
        // On its way out it was removed already; the step waits until it is gone.
        Write::Remove { .. } => matches!(live.status.status, Status::NotFound | Status::Terminating),
        Write::Scale { replicas, .. } => live.replicas == Some(*replicas),
        // Nobody can see a restart in a status; its token makes a second one harmless.
        Write::Restart { .. } => false,
    }
}

fn effect_name(write: &Write) -> String {
    match write {
        Write::Put { item, replicas: Some(count) } => {
            let noun = if *count == 1 { "replica" } else { "replicas" };
            format!("put {} {}, {count} {noun}", item.id, item.digest.short())
        }
        Write::Put { item, replicas: None } => format!("put {} {}", item.id, item.digest.short()),
        Write::Remove { id } => format!("remove {id}"),
        Write::Scale { id, replicas } => format!("scale {id} to {replicas}"),
        Write::Restart { id, token } => format!("restart {id} {token}"),
    }
}

/// Says whether an effect, by its name, is one on that item.
fn is_about(effect: &str, id: &ItemId) -> bool {
    effect.split(' ').nth(1) == Some(id.to_string().as_str())
}

fn no_progress(id: &ItemId, live: &Live, limit: Duration, since: Timestamp, until: Timestamp) -> StepError {
    let why = live.status.cause.as_ref().map_or_else(
        || format!("{} of {} replicas ready", live.status.ready, live.status.desired),
        |cause| cause.text.clone(),
    );
    let text = format!("no progress for {} s, from {since} until {until}: {why}", limit.as_secs());
    StepError::Terminal { item: id.clone(), cause: Cause::terminal(CauseCode::ProgressDeadline, text) }
}

fn note(written: usize, of: usize) -> StepNote {
    if written == 0 {
        return StepNote::skipped(if of == 1 {
            "it is as it should be"
        } else {
            "all are as they should be"
        });
    }
    StepNote::success(format!("{written} of {of} changed, all current"))
}
