//! A scripted target that plays every port over one world in memory, in tokio's time.
//!
//! Built from TOML text ([`Script`]): how fast things are, what crashes, which calls fail, when the lease is lost or
//! the process that works with it dies. Tests run it on paused time; `--target sim:FILE` runs it in real time for
//! demonstrations, support and the tests of the command line. It passes [`crate::contract`] like any target.
//!
//! Invariant: nothing in here draws a random number or looks at the machine; one script, one history.

mod inspector;
mod load;
mod lock;
mod orchestrator;
mod resolve;
mod script;
mod stores;
mod timeline;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

pub use lock::Place;
pub use script::{
    Answer, CallError, Fault, JournalScript, KillPoint, LeaseScript, LoadScript, Pace, Script, ScriptError,
    Trouble, WatchScript, Window,
};
pub use stores::SimJournal;
pub use timeline::Beat;
pub use world::{AppliedMigration, Effect, HeldLease, SimItem, World};

use crate::clock::{Clock, VirtualClock};
use crate::ports::{ErrorKind, Fence, OrchestratorError, Result};

/// 2026-01-01T00:00:00Z, when the script names no time.
const BEGIN: i64 = 1_767_225_600;

fn read(script: &str) -> std::result::Result<Script, ScriptError> {
    Script::parse("the script of the simulation", script.as_bytes()).map_err(ScriptError::Script)
}

/// The simulated target. Clones share one world.
#[derive(Debug, Clone)]
pub struct Sim(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    script: Script,
    clock: VirtualClock,
    started: Instant,
    /// How far the simulation was when this process took it up.
    offset_ms: u64,
    state: Mutex<State>,
    /// Raised with every change of the world; wakes watch streams.
    changes: watch::Sender<u64>,
    /// True while the process that works with the target counts as dead.
    dead: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    world: World,
    kill: Option<KillPoint>,
}

impl Sim {
    /// Builds a target in which nothing runs yet.
    ///
    /// # Errors
    /// A text that is not a script.
    pub fn from_toml(text: &str) -> Result<Self, ScriptError> {
        Ok(Self::of(read(text)?, World::default(), 0))
    }

    /// Builds a target that goes on where an earlier process left it ([`Self::save`]).
    ///
    /// # Errors
    /// A text that is not a script, or a world that does not read back.
    pub fn restore(text: &str, saved: &str) -> Result<Self, ScriptError> {
        let (offset_ms, world) = serde_json::from_str(saved).map_err(ScriptError::World)?;
        Ok(Self::of(read(text)?, world, offset_ms))
    }

    fn of(script: Script, mut world: World, offset_ms: u64) -> Self {
        world.calls.resize(script.errors.len(), 0);
        let begin =
            script.now.or_else(|| Timestamp::from_second(BEGIN).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
        let now = begin.saturating_add(std::time::Duration::from_millis(offset_ms)).unwrap_or(begin);
        let kill = script.kill;
        Self(Arc::new(Inner {
            script,
            clock: VirtualClock::starting_at(now),
            started: Instant::now(),
            offset_ms,
            state: Mutex::new(State { world, kill }),
            changes: watch::Sender::new(0),
            dead: watch::Sender::new(false),
        }))
    }

    /// Returns the world as text, for [`Self::restore`].
    ///
    /// # Errors
    /// Never in practice: a world holds only data.
    pub fn save(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&(self.now_ms(), &self.state().world))
    }

    /// Returns a copy of the world, to look at.
    #[must_use]
    pub fn world(&self) -> World {
        self.state().world.clone()
    }

    /// Returns the clock of the simulation.
    #[must_use]
    pub fn clock(&self) -> VirtualClock {
        self.0.clock
    }

    /// Returns the milliseconds since the simulation began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let elapsed = self.0.started.elapsed().as_millis();
        self.0.offset_ms + u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    /// Lets the process that works with the target die at that point: nothing answers it from then on.
    pub fn kill_at(&self, point: KillPoint) {
        self.state().kill = Some(point);
    }

    /// Waits until that point is reached.
    pub async fn killed(&self) {
        let mut dead = self.0.dead.subscribe();
        // The sender lives as long as we do.
        let _ = dead.wait_for(|dead| *dead).await;
    }

    /// Lets a new process work with the target; a lease held by the dead one is free for it.
    pub fn revive(&self) {
        let mut state = self.state();
        state.kill = None;
        if let Some(lease) = &mut state.world.lease {
            lease.dead = true;
        }
        drop(state);
        self.0.dead.send_replace(false);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dead(&self) -> bool {
        *self.0.dead.borrow()
    }

    /// Opens every call: dead processes wait for ever, windows and scripted errors refuse.
    async fn enter(&self, port: &'static str, subject: &str) -> Result<()> {
        // A real call is an await point; so is this one.
        tokio::task::yield_now().await;
        self.pend_if_dead().await;
        let now_ms = self.now_ms();
        if self.0.script.unavailable.iter().any(|window| window.holds(now_ms)) {
            return Err(OrchestratorError::new(
                ErrorKind::Unavailable,
                port,
                subject,
                "the target does not answer",
            ));
        }
        self.scripted(port, subject)
    }

    async fn pend_if_dead(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns the error that the script has for this call.
    fn scripted(&self, port: &'static str, subject: &str) -> Result<()> {
        let mut state = self.state();
        for (rule, seen) in self.0.script.errors.iter().zip(&mut state.world.calls) {
            let about = rule.item.as_deref().is_none_or(|item| {
                item == subject || subject.parse().is_ok_and(|id| script::names(item, &id))
            });
            if rule.port != port || !about {
                continue;
            }
            *seen += 1;
            if (rule.skip + 1..=rule.skip.saturating_add(rule.count)).contains(seen) {
                return Err(OrchestratorError::new(rule.kind, port, subject, rule.reason.as_str()));
            }
        }
        Ok(())
    }

    /// Changes the world under a fence, and counts the effect when there was one.
    async fn change<T>(
        &self,
        operation: &'static str,
        subject: &str,
        fence: Option<Fence>,
        change: impl FnOnce(&mut World, u64) -> Result<(T, Option<String>)>,
    ) -> Result<T> {
        let result = {
            let mut state = self.state();
            let now_ms = self.now_ms();
            self.take_lease_away(&mut state.world, now_ms);
            let lost = |fence: Fence| {
                let broken = state.world.broken.as_ref().filter(|(broken, _)| *broken == fence);
                match broken {
                    Some((_, by)) => Some(format!("{by} took the lease away (mlctl lock release)")),
                    None if fence.0 < state.world.fence => {
                        Some("the lease that fenced this write is no longer held".to_owned())
                    }
                    None => None,
                }
            };
            if let Some(reason) = fence.and_then(lost) {
                return Err(OrchestratorError::new(ErrorKind::LeaseLost, operation, subject, reason));
            }
            let (value, effect) = change(&mut state.world, now_ms)?;
            if let Some(effect) = effect {
                state.world.count(effect);
                let dies =
                    matches!(state.kill, Some(KillPoint::Effect(at)) if state.world.effect_count() >= at);
                if dies {
                    self.0.dead.send_replace(true);
                }
            }
            value
        };
        self.0.changes.send_modify(|count| *count += 1);
        self.pend_if_dead().await;
        Ok(result)
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

#[cfg(test)]
impl Sim {
    /// Returns a target of its own that goes on from the same world, under a script of its own where one is given.
    pub(crate) fn fork(&self, script: Option<&str>) -> Self {
        let script = script.map_or_else(
            || self.0.script.clone(),
            |text| Script::parse("scenario", text.as_bytes()).unwrap(),
        );
        Self::of(script, self.world(), self.now_ms())
    }
}
