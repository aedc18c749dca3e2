//! What every orchestrator has to show, as a list of named behaviours: the fake of the tests and the targets that
//! touch the world are held to the same.
//!
//! A target brings a [`Harness`], which gives a fresh, empty target for each behaviour, two tiny workloads in three
//! versions and its own sense of time. Nothing here assumes virtual time: every wait ends early when what it waits
//! for is there, and fails when [`Bench::patience`] is over.

mod locking;
mod releases;
mod watching;
mod writing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::BoxFuture;

use crate::item::{Desired, Item, ItemId, ItemKind};
use crate::ports::{
    Applied, ErrorKind, Fence, Inspector, Lease, LockRequest, Orchestrator, OrchestratorError, ReleaseStore,
    Write,
};
use crate::release::Operator;
use crate::snapshot::Live;
use crate::status::{Condition, Status};

/// Makes fresh targets of one kind.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Returns a target on which nothing runs.
    async fn fresh(&self) -> Box<dyn Bench>;
}

/// Which version of the two tiny workloads is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// It works.
    First,
    /// It works, and differs from the first.
    Second,
    /// It differs from both, and its first workload exits as soon as it starts.
    Broken,
}

/// One target under test.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Returns the target's writing side.
    fn orchestrator(&self) -> Arc<dyn Orchestrator>;
    /// Returns its reading side.
    fn inspector(&self) -> Arc<dyn Inspector>;
    /// Returns its release store.
    fn releases(&self) -> Arc<dyn ReleaseStore>;
    /// Gives up every connection and opens new ones to the same target.
    async fn reconnect(&mut self);
    /// Returns exactly two workloads that this target can run, without needs, each with at least the range 1 to 3,
    /// updated replica by replica (surge 1, unavailable 0).
    async fn desired(&self, version: Version) -> Desired;
    /// Returns how long anything may take here.
    fn patience(&self) -> Duration;
    /// Returns a time to live for leases that the behaviour waits out; as short as the target allows.
    fn short_lease(&self) -> Duration;
}

/// One thing a target has to show.
pub struct Behaviour {
    /// Its name, as a sentence.
    pub name: &'static str,
    run: for<'a> fn(&'a mut Trial) -> BoxFuture<'a, Result<(), Violation>>,
}

/// How a target did not behave.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// It showed something else.
    #[error("{0}")]
    Shown(String),
    /// It refused where it must not.
    #[error("refused")]
    Refused(#[from] OrchestratorError),
}

/// What the suite found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Behaviours that were shown.
    pub shown: Vec<&'static str>,
    /// Behaviours that were not, with what was seen instead.
    pub violated: Vec<(&'static str, String)>,
}

impl Findings {
    /// Says whether the target keeps the contract.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.violated.is_empty() && !self.shown.is_empty()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} behaviours shown, {} not:", self.shown.len(), self.violated.len())?;
        self.violated.iter().try_for_each(|(name, seen)| writeln!(f, "- {name}: {seen}"))
    }
}

/// Tries every behaviour, each on a fresh target.
pub async fn suite(harness: &dyn Harness) -> Findings {
    let mut findings = Findings::default();
    for behaviour in behaviours() {
        match check(&behaviour, harness).await {
            Ok(()) => findings.shown.push(behaviour.name),
            Err(violation) => findings.violated.push((behaviour.name, violation)),
        }
    }
    findings
}

/// Tries one behaviour on a fresh target.
///
/// # Errors
/// What was seen instead.
pub async fn check(behaviour: &Behaviour, harness: &dyn Harness) -> Result<(), String> {
    let mut trial = Trial { bench: harness.fresh().await };
    match (behaviour.run)(&mut trial).await {
        Ok(()) => Ok(()),
        Err(Violation::Refused(error)) => Err(error.to_string()),
        Err(shown) => Err(shown.to_string()),
    }
}

/// Returns every behaviour, so that a target's tests can be one each.
#[must_use]
pub fn behaviours() -> Vec<Behaviour> {
    [writing::BEHAVIOURS, watching::BEHAVIOURS, locking::BEHAVIOURS, releases::BEHAVIOURS]
        .into_iter()
        .flatten()
        .map(|(name, run)| Behaviour { name, run: *run })
        .collect()
}

/// A behaviour's name and how it is tried.
type Entry = (&'static str, for<'a> fn(&'a mut Trial) -> BoxFuture<'a, Result<(), Violation>>);

/// A fresh target while one behaviour is tried on it.
struct Trial {
    bench: Box<dyn Bench>,
}

impl Trial {
    async fn lock(&self) -> Result<Box<dyn Lease>, OrchestratorError> {
        self.bench.orchestrator().lock(&request("contract", Duration::from_secs(120))).await
    }

    async fn item(&self, version: Version) -> Result<Item, Violation> {
        let desired = self.bench.desired(version).await;
        let workload = desired.items.into_iter().find(|item| item.id.kind == ItemKind::Workload);
        workload.ok_or_else(|| Violation::Shown("the harness has no workload".to_owned()))
    }

    async fn write(&self, write: &Write, fence: Fence) -> Result<Applied, OrchestratorError> {
        self.bench.orchestrator().apply(write, fence).await
    }

    /// Puts the first workload in place and waits until it is current; returns it as it then stands.
    async fn running(
        &self,
        version: Version,
        replicas: u32,
        fence: Fence,
    ) -> Result<(Item, Live), Violation> {
        let item = self.item(version).await?;
        let applied = self.write(&put(&item, replicas), fence).await?;
        let live =
            self.until(&item.id, "current", |l| Condition::AllCurrent.holds(l, applied.generation)).await?;
        Ok((item, live))
    }

    /// Watches an item until a test over it holds; every state on the way is held to the rules of generations.
    async fn until(
        &self,
        id: &ItemId,
        wanted: &str,
        holds: impl Fn(&Live) -> bool + Send,
    ) -> Result<Live, Violation> {
        let mut last = None;
        let watch = async {
            let mut stream = self.bench.orchestrator().watch(std::slice::from_ref(id)).await?;
            while let Some(observation) = stream.next().await {
                let live = observation?.live;
                sane(id, &live)?;
                last = Some(live.clone());
                if holds(&live) {
                    return Ok(live);
                }
            }
            Err(Violation::Shown(format!("the watch of {id} ended without an error")))
        };
        let found = tokio::time::timeout(self.bench.patience(), watch).await;
        let last = last.as_ref().map_or_else(|| "nothing".to_owned(), |live| format!("{:?}", live.status));
        found.unwrap_or_else(|_| {
            Err(Violation::Shown(format!("{id} is not {wanted} in time; last seen: {last}")))
        })
    }

    async fn live(&self, id: &ItemId) -> Result<Live, OrchestratorError> {
        Ok(self.bench.orchestrator().observe().await?.get(id))
    }
}

/// No status speaks of a write that was never accepted.
fn sane(id: &ItemId, live: &Live) -> Result<(), Violation> {
    let (seen, generation) = (live.observed_generation, live.generation);
    ensure(seen <= generation, || {
        format!("{id}: the status is of generation {seen}, the item of {generation}")
    })?;
    let cause = live.status.cause.as_ref().map(|cause| cause.code.as_str());
    let current = live.status.status == Status::Current;
    ensure(!current || cause.is_none(), || format!("{id} is current and says why it is not: {cause:?}"))
}

fn put(item: &Item, replicas: u32) -> Write {
    Write::Put { item: item.clone(), replicas: Some(replicas) }
}

fn request(run: &str, ttl: Duration) -> LockRequest {
    LockRequest {
        operation: "deploy".to_owned(),
        operator: Operator { name: "operator".to_owned(), host: "contract".to_owned() },
        run: run.to_owned(),
        pid: std::process::id(),
        pid_start: 0,
        ttl,
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation::Shown(otherwise())) }
}

/// Expects a refusal of one kind; returns it.
fn refused<T>(
    result: Result<T, OrchestratorError>,
    kind: ErrorKind,
    attempt: &str,
) -> Result<OrchestratorError, Violation> {
    match result {
        Err(error) if error.kind == kind => Ok(error),
        Err(error) => {
            Err(Violation::Shown(format!("{attempt} is refused as {:?}, not {kind:?}: {error}", error.kind)))
        }
        Ok(_) => Err(Violation::Shown(format!("{attempt} is not refused"))),
    }
}

/// Returns the ids of a desired state with their items.
fn by_id(desired: &Desired) -> BTreeMap<ItemId, Item> {
    desired.items.iter().map(|item| (item.id.clone(), item.clone())).collect()
}
