//! The one lease of the simulation and the line before it.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::world::HeldLease;
use super::{Sim, World};
use crate::ports::{
    ErrorKind, Fence, Lease, LockHolder, LockLine, LockRequest, LockState, OrchestratorError, Result,
    Standing, Turn, Waiter,
};
use crate::release::Operator;

/// One who waits, and when it asked last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Who.
    pub waiter: Waiter,
    /// When it asked last, in milliseconds since the simulation began.
    pub asked_ms: u64,
}

impl Sim {
    /// Gives the lease to somebody else when the script's time for that has come.
    pub(super) fn take_lease_away(&self, world: &mut World, now_ms: u64) {
        let due = self.0.script.lease.lost_at.is_some_and(|at| at.as_millis() <= now_ms);
        if !due || world.lease_taken || world.lease.is_none() {
            return;
        }
        world.lease_taken = true;
        let operator = Operator { name: "somebody".to_owned(), host: "elsewhere".to_owned() };
        let ttl = Duration::from_secs(3_600);
        let (operation, run) = ("deploy".to_owned(), "another-run".to_owned());
        give(world, &LockRequest { operation, operator, run, pid: 1, pid_start: 0, ttl }, self.now());
    }

    /// Takes the lease, unless somebody holds it or waits for it.
    pub(super) async fn take_lock(&self, request: &LockRequest) -> Result<Box<dyn Lease>> {
        let taken = |world: &mut World, now_ms| {
            let state = state(world, now_ms, self.now());
            let first = state.line.first();
            let reason = match (state.held(), first) {
                (None, None) => return Ok((give(world, request, self.now()), None)),
                (Some(LockHolder { request, since, .. }), _) => {
                    let LockRequest { operation, operator, run, .. } = request;
                    format!("held by {operator} for {operation} (run {run}) since {since}")
                }
                (None, Some(first)) => {
                    let LockRequest { operation, operator, .. } = &first.request;
                    format!("{} in line for it, {operation} by {operator} the first", state.line.len())
                }
            };
            Err(OrchestratorError::new(ErrorKind::Conflict, "lock", "the target", reason))
        };
        let fence = self.change("lock", "the target", None, taken).await?;
        Ok(self.lease(fence, request))
    }

    fn lease(&self, fence: Fence, request: &LockRequest) -> Box<dyn Lease> {
        Box::new(SimLease { sim: self.clone(), fence, ttl: request.ttl })
    }
}

/// Tells the lease and its line; those who no longer ask are let go.
fn state(world: &mut World, now_ms: u64, now: Timestamp) -> LockState {
    world.line.retain(|place| {
        let silent = Duration::from_millis(now_ms.saturating_sub(place.asked_ms));
        silent < place.waiter.request.ttl
    });
    LockState {
        standing: match &world.lease {
            None => Standing::Free,
            Some(held) if held.dead => Standing::Dead,
            Some(held) if now >= held.holder.expires => Standing::Expired,
            Some(_) => Standing::Held,
        },
        holder: world.lease.as_ref().map(|held| held.holder.clone()),
        line: world.line.iter().map(|place| place.waiter.clone()).collect(),
    }
}

fn give(world: &mut World, request: &LockRequest, now: Timestamp) -> Fence {
    world.fence += 1;
    let fence = Fence(world.fence);
    let expires = now.saturating_add(request.ttl).unwrap_or(Timestamp::MAX);
    let holder = LockHolder { request: request.clone(), since: now, expires, fence };
    world.lease = Some(HeldLease { holder, dead: false });
    fence
}

#[async_trait]
impl LockLine for Sim {
    async fn stand_in_line(&self, request: &LockRequest) -> Result<Turn> {
        self.enter("lock", "the target").await?;
        let asked = |world: &mut World, now_ms| {
            if let Some(held) = world.lease.as_ref().filter(|held| held.holder.request == *request) {
                return Ok((Ok(held.holder.fence), None));
            }
            let before = state(world, now_ms, self.now());
            let first = before.line.first().is_none_or(|first| first.request == *request);
            if before.held().is_none() && first {
                world.line.retain(|place| place.waiter.request != *request);
                return Ok((Ok(give(world, request, self.now())), None));
            }
            match world.line.iter_mut().find(|place| place.waiter.request == *request) {
                Some(place) => place.asked_ms = now_ms,
                None => {
                    world.tickets += 1;
                    let (ticket, since) = (world.tickets, self.now());
                    let waiter = Waiter { ticket, request: request.clone(), since };
                    world.line.push(Place { waiter, asked_ms: now_ms });
                }
            }
            Ok((Err(state(world, now_ms, self.now())), None))
        };
        Ok(match self.change("lock", "the target", None, asked).await? {
            Ok(fence) => Turn::Ours(self.lease(fence, request)),
            Err(state) => Turn::Waits(state),
        })
    }

    async fn leave_line(&self, request: &LockRequest) -> Result<()> {
        self.enter("leave_line", "the target").await?;
        self.change("leave_line", "the target", None, |world, _| {
            world.line.retain(|place| place.waiter.request != *request);
            world.lease.take_if(|held| held.holder.request == *request);
            Ok(((), None))
        })
        .await
    }

    async fn lock_state(&self) -> Result<LockState> {
        self.enter("lock_holder", "the target").await?;
        let (now, now_ms) = (self.now(), self.now_ms());
        let world = &mut self.state().world;
        self.take_lease_away(world, now_ms);
        Ok(state(world, now_ms, now))
    }

    async fn break_lock(&self, fence: Fence, by: &Operator, force: bool) -> Result<()> {
        self.enter("break_lock", "the target").await?;
        let refused = |kind, reason: String| Err(OrchestratorError::new(kind, "release", "the lock", reason));
        self.change("release", "the lock", None, |world, now_ms| {
            let state = state(world, now_ms, self.now());
            match &state.holder {
                None => refused(ErrorKind::Conflict, "nobody holds it any more".to_owned()),
                Some(holder) if holder.fence != fence => {
                    refused(ErrorKind::Conflict, format!("by now {} holds it", holder.request.operator))
                }
                Some(holder) if state.standing == Standing::Held && !force => {
                    refused(ErrorKind::Denied, format!("{} holds and renews it", holder.request.operator))
                }
                Some(_) => {
                    world.lease = None;
                    world.broken = Some((fence, by.clone()));
                    Ok(((), None))
                }
            }
        })
        .await
    }
}

struct SimLease {
    sim: Sim,
    fence: Fence,
    ttl: Duration,
}

impl SimLease {
    async fn prolong(&self, run: Option<&str>) -> Result<()> {
        self.sim.enter("renew", "the lease").await?;
        let (now, ttl) = (self.sim.now(), self.ttl);
        self.sim
            .change("renew", "the lease", Some(self.fence), |world, _| {
                let Some(held) = world.lease.as_mut() else {
                    let reason = "it was given back already";
                    return Err(OrchestratorError::new(ErrorKind::LeaseLost, "renew", "the lease", reason));
                };
                held.holder.expires = now.saturating_add(ttl).unwrap_or(Timestamp::MAX);
                if let Some(run) = run {
                    run.clone_into(&mut held.holder.request.run);
                }
                Ok(((), None))
            })
            .await
    }
}

#[async_trait]
impl Lease for SimLease {
    fn fence(&self) -> Fence {
        self.fence
    }

    async fn renew(&self) -> Result<()> {
        self.prolong(None).await
    }

    async fn belongs_to(&self, run: &str) -> Result<()> {
        self.prolong(Some(run)).await
    }

    async fn release(&self) -> Result<()> {
        self.sim.enter("release", "the lease").await?;
        self.sim
            .change("release", "the lease", Some(self.fence), |world, _| {
                world.lease = None;
                Ok(((), None))
            })
            .await
    }
}
