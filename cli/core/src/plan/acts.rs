//! Plans for day-to-day acts: scale, restart, taking everything down. No release is made by them.

use super::order::groups;
use super::{Change, Operand, Phase, Plan, PlanError, Step};
use crate::item::{Desired, ItemId, ItemKind};
use crate::playbook::{OnFailure, StepFailure};
use crate::ports::Write;
use crate::release::ReleaseState;
use crate::snapshot::Snapshot;
use crate::status::Status;
use crate::steps::Action;
use crate::steps::apply::Apply;

/// Plans new replica counts.
///
/// # Errors
/// A service that does not run, or a count outside the range that its release allows.
pub fn scale(
    system: &str,
    target: &str,
    snapshot: &Snapshot,
    running: &Desired,
    counts: &[(String, u32)],
) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    for (service, replicas) in counts {
        let id = workload(running, snapshot, service)?;
        if let Some(range) = running.get(&id).and_then(|item| item.replicas)
            && !(range.min..=range.max).contains(replicas)
        {
            let (service, replicas) = (service.clone(), *replicas);
            return Err(PlanError::OutOfRange { service, replicas, min: range.min, max: range.max });
        }
        let before = snapshot.get(&id).replicas.unwrap_or(0);
        let op = if before == *replicas { Operand::Keep } else { Operand::Update };
        let counts = Some((before, *replicas)).filter(|(before, after)| before != after);
        let change = Change { item: id.clone(), op, differences: Vec::new(), replicas: counts };
        let title = format!("scale {service} from {before} to {replicas}");
        steps.push(step(format!("scale:{service}"), title, Write::Scale { id, replicas: *replicas }, change));
    }
    Ok(act("scale", system, target, snapshot, steps))
}

/// Plans fresh replicas of the same revision, one service after the other.
///
/// # Errors
/// A service that does not run.
pub fn restart(
    system: &str,
    target: &str,
    snapshot: &Snapshot,
    running: &Desired,
    services: &[String],
    token: &str,
) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    for service in services {
        let id = workload(running, snapshot, service)?;
        let change =
            Change { item: id.clone(), op: Operand::Update, differences: Vec::new(), replicas: None };
        let write = Write::Restart { id, token: token.to_owned() };
        steps.push(step(format!("restart:{service}"), format!("restart {service}"), write, change));
    }
    Ok(act("restart", system, target, snapshot, steps))
}

/// Plans the removal of every workload, each before what it needs; what no release knows goes first.
///
/// # Errors
/// A release whose workloads need each other.
pub fn down(system: &str, target: &str, snapshot: &Snapshot, running: &Desired) -> Result<Plan, PlanError> {
    let there = |id: &ItemId| snapshot.get(id).status.status != Status::NotFound;
    let known: Vec<_> = running.items.iter().filter(|item| item.id.kind == ItemKind::Workload).collect();
    let mut ids: Vec<ItemId> = groups(&known)?.concat().iter().map(|item| item.id.clone()).collect();
    let unknown = snapshot.items.keys().filter(|id| id.kind == ItemKind::Workload);
    let unknown: Vec<ItemId> = unknown.filter(|id| !ids.contains(id)).cloned().collect();
    ids.extend(unknown);
    let remove = |id: ItemId| {
        let change =
            Change { item: id.clone(), op: Operand::Delete, differences: Vec::new(), replicas: None };
        step(format!("remove:{}", id.name), format!("remove {}", id.name), Write::Remove { id }, change)
    };
    // Last what they stand on, where it is processes too. What a store of another form keeps is no concern of this.
    let is_running = |live: &crate::snapshot::Live| live.status.desired > 0;
    let stores = snapshot.items.iter().filter(|(id, live)| id.kind == ItemKind::Store && is_running(live));
    let stores = stores.map(|(id, _)| id.clone());
    let steps = ids.into_iter().rev().chain(stores).filter(there).map(remove).collect();
    Ok(act("down", system, target, snapshot, steps))
}

fn workload(running: &Desired, snapshot: &Snapshot, name: &str) -> Result<ItemId, PlanError> {
    let id = ItemId::workload(name);
    if snapshot.get(&id).status.status != Status::NotFound {
        return Ok(id);
    }
    let desired = running.items.iter().map(|item| &item.id);
    if desired.clone().any(|known| *known == id) {
        return Err(PlanError::NotRunning { name: name.to_owned() });
    }
    let mut known: Vec<String> = snapshot
        .items
        .keys()
        .chain(desired)
        .filter(|id| id.kind == ItemKind::Workload)
        .map(|id| id.name.clone())
        .collect();
    known.sort();
    known.dedup();
    if known.is_empty() {
        return Err(PlanError::NothingDeployed { name: name.to_owned() });
    }
    Err(PlanError::NoSuchService { name: name.to_owned(), known })
}

fn step(id: String, title: String, write: Write, change: Change) -> Step {
    Step {
        id,
        title,
        action: Action::Apply(Apply { writes: vec![write], rewrite: Vec::new(), width: 1, stable_for_ms: 0 }),
        changes: vec![change],
        timeout_ms: None,
        retries: 3,
        on_failure: StepFailure::Stop,
        skip: None,
    }
}

fn act(verb: &str, system: &str, target: &str, snapshot: &Snapshot, steps: Vec<Step>) -> Plan {
    Plan {
        operation: verb.to_owned(),
        system: system.to_owned(),
        target: target.to_owned(),
        base: snapshot.fingerprint(),
        from: snapshot.head.as_ref().map(|head| head.number),
        from_verified: snapshot.head.as_ref().is_some_and(|head| head.state == ReleaseState::Verified),
        deadline_ms: None,
        release: None,
        phases: vec![Phase { name: verb.to_owned(), title: verb.to_owned(), deadline_ms: None, steps }],
        on_failure: OnFailure::Stop,
        fallback: None,
        rolls_back: Vec::new(),
        head_after: None,
        warnings: Vec::new(),
        verifies: false,
    }
}
