//! The line before the lease: first come, first served, and nobody waits for one who no longer asks.

use std::time::Duration;

use mlctl_core::ports::{LockHolder, LockRequest, LockState, Waiter};

use super::Moment;

/// What one who stands in line is answered.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Answer {
    /// The lease.
    Ours(LockHolder),
    /// Others come first.
    Waits(LockState),
}

/// Who waits. When each asked last is not on disk: an agent that was away heard nobody.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Vec<Place>);

#[derive(Debug, Clone)]
struct Place {
    waiter: Waiter,
    asked: Duration,
}

impl Line {
    /// Takes over who waited; each has from now on as long as after a question.
    pub(super) fn open(waiters: Vec<Waiter>, now: Moment) -> Self {
        Self(waiters.into_iter().map(|waiter| Place { waiter, asked: now.up }).collect())
    }

    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.0.iter().map(|place| &place.waiter)
    }

    /// Lets those go who are dead, or have not asked again for as long as a lease lives.
    pub(super) fn tidy(&mut self, now: Moment, is_dead: &impl Fn(&LockRequest) -> bool) {
        self.0.retain(|place| {
            let request = &place.waiter.request;
            now.up.saturating_sub(place.asked) < request.ttl && !is_dead(request)
        });
    }

    /// Takes a place at the end, or keeps the one there is.
    pub(super) fn stand(&mut self, request: &LockRequest, tickets: &mut u64, now: Moment) {
        if let Some(place) = self.0.iter_mut().find(|place| place.waiter.request == *request) {
            place.asked = now.up;
            return;
        }
        *tickets += 1;
        let waiter = Waiter { ticket: *tickets, request: request.clone(), since: now.wall };
        self.0.push(Place { waiter, asked: now.up });
    }

    pub(super) fn leave(&mut self, request: &LockRequest) {
        self.0.retain(|place| place.waiter.request != *request);
    }
}
