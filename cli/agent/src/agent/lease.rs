//! The one lease of the folder and the line before it: who may write, until when, proven by a number that only grows.
//!
//! Time that decides anything is the machine's time since boot, which no jump of the wall clock moves and which goes
//! on while the machine sleeps; wall time is only shown. After a boot everybody is dead.

mod line;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::ports::{ErrorKind, Fence, LockHolder, LockRequest, LockState, Standing};
use mlctl_core::release::Operator;
use serde::{Deserialize, Serialize};

pub(super) use line::Answer;
use line::Line;

/// A moment as the agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// What people read.
    pub(super) wall: Timestamp,
    /// Time since boot: what is compared.
    pub(super) up: Duration,
}

impl Moment {
    /// Returns the present one.
    pub(super) fn now() -> Self {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(up.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(up.tv_nsec).unwrap_or_default();
        Self { wall: Timestamp::now(), up: Duration::new(seconds, nanos) }
    }
}

/// The lease and its line.
#[derive(Debug, Clone, Default)]
pub(super) struct LeaseBook {
    /// What is on disk.
    kept: Kept,
    /// Who waits, and when each asked last.
    line: Line,
}

/// The lease as it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The boot that all times since boot count from.
    boot: String,
    /// Who holds it, or held it last.
    holder: Option<Held>,
    /// The highest fence ever given.
    highest: u64,
    /// Who waits.
    line: Vec<mlctl_core::ports::Waiter>,
    /// The highest ticket ever given.
    tickets: u64,
    /// Who was the last to take a lease away, and whose.
    broken: Option<Broken>,
}

/// The holder with the end that decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Held {
    #[serde(flatten)]
    shown: LockHolder,
    /// Milliseconds since boot at which it expires.
    #[serde(default)]
    until_ms: u64,
}

impl Held {
    fn prolong(&mut self, now: Moment) {
        self.shown.expires = shown_end(now, &self.shown.request);
        self.until_ms = millis(now.up + self.shown.request.ttl);
    }
}

/// A lease that was taken away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Broken {
    fence: Fence,
    by: Operator,
    at: Timestamp,
}

/// A refusal, in the words of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// What sort.
    pub(super) kind: ErrorKind,
    /// One sentence.
    pub(super) reason: String,
    /// The present holder, when that is why.
    pub(super) holder: Option<Box<LockHolder>>,
}

impl LeaseBook {
    /// Opens what an earlier agent kept. Of another boot nobody lives; of this one, everybody in line has until now
    /// asked in time.
    pub(super) fn open(mut kept: Kept, boot: &str, now: Moment) -> Self {
        if !kept.boot.is_empty() && kept.boot != boot {
            kept.holder = None;
            kept.line.clear();
        }
        boot.clone_into(&mut kept.boot);
        let line = Line::open(std::mem::take(&mut kept.line), now);
        Self { kept, line }
    }

    /// Returns what has to be on disk.
    pub(super) fn kept(&self) -> Kept {
        Kept { line: self.line.waiters().cloned().collect(), ..self.kept.clone() }
    }

    /// Says where the lease stands. `is_dead` says that the process a request names has ended; its lease then is free
    /// before its time.
    fn standing(&self, now: Moment, is_dead: impl Fn(&LockRequest) -> bool) -> Standing {
        match &self.kept.holder {
            None => Standing::Free,
            Some(held) if is_dead(&held.shown.request) => Standing::Dead,
            Some(held) if millis(now.up) >= held.until_ms => Standing::Expired,
            Some(_) => Standing::Held,
        }
    }

    /// Tells all there is to tell.
    pub(super) fn state(&mut self, now: Moment, is_dead: impl Fn(&LockRequest) -> bool) -> LockState {
        self.line.tidy(now, &is_dead);
        LockState {
            standing: self.standing(now, &is_dead),
            holder: self.kept.holder.as_ref().map(|held| held.shown.clone()),
            line: self.line.waiters().cloned().collect(),
        }
    }

    /// Gives the lease to the one who asks, unless another holds it or stands in line for it.
    pub(super) fn take(
        &mut self,
        request: &LockRequest,
        now: Moment,
        is_dead: impl Fn(&LockRequest) -> bool,
    ) -> Result<LockHolder, Refusal> {
        let state = self.state(now, &is_dead);
        let who = |request: &LockRequest| format!("{} by {}", request.operation, request.operator);
        let reason = match (state.held(), state.line.as_slice()) {
            (Some(holder), []) => {
                format!("{} holds it since {}", who(&holder.request), holder.since)
            }
            (Some(holder), line) => {
                let count = line.len();
                format!("{} holds it since {}, and {count} in line", who(&holder.request), holder.since)
            }
            (None, []) => return Ok(self.give(request, now)),
            (None, [first, ..]) => {
                let count = state.line.len();
                format!("{count} in line for it, {} since {} the first", who(&first.request), first.since)
            }
        };
        let holder = state.held().cloned().map(Box::new);
        Err(Refusal { kind: ErrorKind::Conflict, reason, holder })
    }

    /// Gives the lease to the one who asks when it is its turn, else a place in line.
    pub(super) fn stand_in_line(
        &mut self,
        request: &LockRequest,
        now: Moment,
        is_dead: impl Fn(&LockRequest) -> bool,
    ) -> Answer {
        // The answer to an earlier question got lost: it is its lease all the same.
        if let Some(held) = self.kept.holder.as_mut().filter(|held| held.shown.request == *request) {
            // It counts from now: what it had left may end before the holder's first renewal.
            held.prolong(now);
            return Answer::Ours(held.shown.clone());
        }
        self.line.tidy(now, &is_dead);
        let free = self.standing(now, &is_dead) != Standing::Held;
        if free && self.line.waiters().next().is_none_or(|first| first.request == *request) {
            self.line.leave(request);
            return Answer::Ours(self.give(request, now));
        }
        self.line.stand(request, &mut self.kept.tickets, now);
        Answer::Waits(self.state(now, is_dead))
    }

    /// Forgets a request: its place in line, and the lease if it was given meanwhile.
    pub(super) fn leave_line(&mut self, request: &LockRequest) {
        self.line.leave(request);
        self.kept.holder.take_if(|held| held.shown.request == *request);
    }

    fn give(&mut self, request: &LockRequest, now: Moment) -> LockHolder {
        self.kept.highest += 1;
        let shown = LockHolder {
            request: request.clone(),
            since: now.wall,
            expires: shown_end(now, request),
            fence: Fence(self.kept.highest),
        };
        self.kept.holder = Some(Held { shown: shown.clone(), until_ms: millis(now.up + request.ttl) });
        shown
    }

    /// Prolongs the lease. Late is fine as long as nobody took it: nothing was written in between.
    pub(super) fn renew(&mut self, fence: Fence, run: Option<String>, now: Moment) -> Result<(), Refusal> {
        self.check(fence)?;
        if let Some(held) = &mut self.kept.holder {
            held.prolong(now);
            if let Some(run) = run {
                held.shown.request.run = run;
            }
        }
        Ok(())
    }

    /// Ends the lease; says whether it was held with that fence.
    pub(super) fn release(&mut self, fence: Fence) -> bool {
        self.kept.holder.take_if(|held| held.shown.fence == fence).is_some()
    }

    /// Takes the lease of that fence away from whoever has it.
    pub(super) fn take_away(
        &mut self,
        fence: Fence,
        by: &Operator,
        force: bool,
        now: Moment,
        is_dead: impl Fn(&LockRequest) -> bool,
    ) -> Result<(), Refusal> {
        let state = self.state(now, is_dead);
        let Some(holder) = state.holder else {
            return Err(Refusal {
                kind: ErrorKind::Conflict,
                reason: "nobody holds it any more".to_owned(),
                holder: None,
            });
        };
        let refused =
            |kind, reason: String| Err(Refusal { kind, reason, holder: Some(Box::new(holder.clone())) });
        let who = format!("{} by {}", holder.request.operation, holder.request.operator);
        if holder.fence != fence {
            return refused(ErrorKind::Conflict, format!("by now {who} holds it, since {}", holder.since));
        }
        if state.standing == Standing::Held && !force {
            return refused(ErrorKind::Denied, format!("{who} holds and renews it since {}", holder.since));
        }
        self.kept.holder = None;
        self.kept.broken = Some(Broken { fence, by: by.clone(), at: now.wall });
        Ok(())
    }

    /// Refuses a write whose lease is not the present one. One that nobody took after its time is still the present
    /// one: no other has written since.
    pub(super) fn check(&self, fence: Fence) -> Result<(), Refusal> {
        match &self.kept.holder {
            Some(held) if held.shown.fence == fence => Ok(()),
            other => Err(self.lost(fence, other.as_ref())),
        }
    }

    fn lost(&self, fence: Fence, held: Option<&Held>) -> Refusal {
        let broken = self.kept.broken.as_ref().filter(|broken| broken.fence == fence);
        let reason = match (broken, held) {
            (Some(broken), _) => {
                format!("{} took it away at {} (mlctl lock release)", broken.by, broken.at)
            }
            (None, Some(Held { shown, .. })) => {
                let LockRequest { operation, operator, run, .. } = &shown.request;
                format!("{operation} by {operator} (run {run}) holds it since {}", shown.since)
            }
            (None, None) => format!("it ended, and fence {} is no longer valid", fence.0),
        };
        let holder = held.map(|held| Box::new(held.shown.clone()));
        Refusal { kind: ErrorKind::LeaseLost, reason, holder }
    }
}

fn shown_end(now: Moment, request: &LockRequest) -> Timestamp {
    now.wall.checked_add(request.ttl).unwrap_or(Timestamp::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
