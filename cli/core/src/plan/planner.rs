//! The planner: playbook, desired, snapshot in; plan out. Pure, synchronous and deterministic.

use std::collections::BTreeMap;

use super::build::StepBuilder;
use super::fallback;
use super::{Change, Difference, Operand, Phase, Plan, PlanError, PlannedRelease, Step};
use crate::item::{Desired, Item, ItemId, ItemKind, Tier};
use crate::playbook::{self, OnFailure, Playbook};
use crate::release::{Release, ReleaseState};
use crate::snapshot::Snapshot;
use crate::status::Status;
use crate::steps::Action;
use crate::system::System;

/// Which phases of a playbook are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// All of them.
    #[default]
    All,
    /// Some, by name or by number from 1.
    Phases(Vec<String>),
}

/// What a plan is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The verb: `deploy`, `rollback`.
    pub verb: String,
    /// A name for the release.
    pub tag: Option<String>,
    /// The release that is restored.
    pub rollback_of: Option<u32>,
    /// What a failure leads to, when the command line says so.
    pub on_failure: Option<OnFailure>,
}

/// Everything a plan is made of.
pub struct PlanInput<'a> {
    /// What the plan is for.
    pub operation: &'a Operation,
    /// The target's name.
    pub target: &'a str,
    /// The system, for its health checks, KPIs and load profiles.
    pub system: &'a System,
    /// The phases and steps.
    pub playbook: &'a Playbook,
    /// What should run.
    pub desired: &'a Desired,
    /// What runs.
    pub snapshot: &'a Snapshot,
    /// Fields in which live items differ from the desired ones, as the target sees it.
    pub previews: &'a BTreeMap<ItemId, Vec<Difference>>,
    /// The releases the target keeps, oldest first.
    pub releases: &'a [Release],
    /// The next free release number.
    pub next_number: u32,
    /// Which phases are wanted.
    pub selection: &'a Selection,
}

impl PlanInput<'_> {
    /// Returns the replica count to run of an item: the live one inside its range, never under a floor in force.
    pub(super) fn replicas(&self, item: &Item) -> Option<u32> {
        let live = self.snapshot.get(&item.id);
        let range = item.replicas?;
        let floor = self.snapshot.overrides.iter().filter_map(|o| match &o.kind {
            crate::overrides::OverrideKind::ReplicaFloor { service, replicas }
                if *service == item.id.name =>
            {
                Some(*replicas)
            }
            _ => None,
        });
        let there = live.status.status != Status::NotFound;
        let count = range.settle(live.replicas.filter(|_| there));
        Some(floor.fold(count, u32::max))
    }

    /// Returns what has to happen to an item.
    pub(super) fn change(&self, item: &Item) -> Change {
        let live = self.snapshot.get(&item.id);
        let replicas = self.replicas(item);
        let differences = self.previews.get(&item.id).cloned().unwrap_or_default();
        let op = if live.status.status == Status::NotFound {
            Operand::Create
        } else if live.digest.as_ref() != Some(&item.digest)
            || !differences.is_empty()
            || (replicas.is_some() && live.replicas != replicas)
        {
            Operand::Update
        } else {
            Operand::Keep
        };
        let differences = if op == Operand::Update { differences } else { Vec::new() };
        let counts =
            replicas.map(|after| (live.replicas.filter(|_| op != Operand::Create).unwrap_or(0), after));
        let counts = counts.filter(|(before, after)| before != after);
        Change { item: item.id.clone(), op, differences, replicas: counts }
    }

    /// Returns workloads of a tier that the head release has, the target still runs, and the desired state lacks.
    pub(super) fn leftovers(&self, tier: Tier) -> Vec<ItemId> {
        let head = self.snapshot.head.as_ref().map(|head| head.number);
        let Some(head) = self.releases.iter().find(|r| Some(r.number) == head) else { return Vec::new() };
        let gone = head.desired.items.iter().filter(|item| {
            item.id.kind == ItemKind::Workload
                && item.tier == tier
                && self.desired.get(&item.id).is_none()
                && self.snapshot.get(&item.id).status.status != Status::NotFound
        });
        gone.map(|item| item.id.clone()).collect()
    }
}

/// Says what maintenance means for a plan that sends load through the public front.
fn maintenance(input: &PlanInput<'_>, phases: &[Phase]) -> Option<String> {
    let now = input.snapshot.taken_at;
    let on = input.snapshot.overrides.iter().find(|entry| entry.is_maintenance(now))?;
    let sends = |step: &Step| step.skip.is_none() && matches!(step.action, Action::Load(_));
    phases.iter().flat_map(|phase| &phase.steps).any(sends).then(|| {
        format!(
            "maintenance is on since {} by {}, and stays on: a load that it does not let pass can prove nothing; the \
             release is then kept, unverified (31)",
            on.since, on.owner
        )
    })
}

/// Warns of what differs from the desired state and is in no phase that was asked for: without it, a verification
/// alone would seem to speak of the present files.
fn left_out(input: &PlanInput<'_>, phases: &[Phase], wanted: &[bool]) -> Option<String> {
    // Before the first release everything is missing, and who asks for one phase knows that.
    let head = input.snapshot.head.as_ref().filter(|_| wanted.contains(&false))?;
    let covered: Vec<&ItemId> =
        phases.iter().flat_map(|p| &p.steps).flat_map(|s| &s.changes).map(|c| &c.item).collect();
    let items = input.desired.items.iter().filter(|item| !covered.contains(&&item.id));
    let differing = items.filter(|item| input.change(item).op != Operand::Keep);
    let names: Vec<&str> = differing.map(|item| item.id.name.as_str()).collect();
    let (first, count) = (names.first()?, names.len());
    let names = if count == 1 { (*first).to_owned() } else { format!("{count} items, {first} among them") };
    Some(format!(
        "not in the phases asked for, and different from the file: {names}; release {} stays as it is there",
        head.number
    ))
}

/// Makes the plan.
///
/// # Errors
/// A phase that does not exist or stands on one that is not in place, a step that names what the system lacks,
/// items that need each other.
pub fn plan(input: &PlanInput<'_>) -> Result<Plan, PlanError> {
    not_available_yet(input)?;
    let wanted = selected(input)?;
    earlier_phases_are_there(input, &wanted)?;
    let mut builder = StepBuilder::new(input);
    let mut phases = Vec::new();
    for (phase, is_wanted) in input.playbook.phases.iter().zip(&wanted) {
        if *is_wanted {
            phases.push(Phase {
                name: phase.name.clone(),
                title: phase.title.clone().unwrap_or_else(|| phase.name.clone()),
                deadline_ms: phase.deadline.map(crate::system::units::TimeSpan::as_millis),
                steps: builder.phase(phase)?,
            });
        }
    }
    let head = input.snapshot.head.as_ref();
    let head_after = phases.iter().rev().find(|p| deploys_applications(p)).map(|p| p.name.clone());
    let differs = head.is_none_or(|head| head.digest != input.desired.digest());
    let creates = head_after.is_some() && differs;
    let number = if creates { Some(input.next_number) } else { head.map(|head| head.number) };
    let head_release =
        input.releases.iter().find(|release| head.is_some_and(|head| head.number == release.number));
    if head_after.is_none() && phases.iter().any(marks) {
        head_fully_runs(input, head_release)?;
    }
    let release =
        number.filter(|_| creates || phases.iter().any(marks) || head_after.is_some()).map(|number| {
            PlannedRelease {
                number,
                tag: if creates { input.operation.tag.clone() } else { head.and_then(|h| h.tag.clone()) },
                creates,
                rollback_of: input.operation.rollback_of.filter(|_| creates),
                desired: head_release
                    .filter(|_| head_after.is_none())
                    .map_or_else(|| input.desired.clone(), |head| head.desired.clone()),
            }
        });
    settle_marks(&mut phases, release.as_ref());
    let changes =
        phases.iter().flat_map(|p| &p.steps).flat_map(|s| &s.changes).any(|c| c.op != Operand::Keep);
    let proven = !changes && !creates && head.is_some_and(|h| h.state == ReleaseState::Verified);
    let mut verifies = phases.iter().any(marks);
    if proven && *input.selection == Selection::All {
        verifies = false;
        let number = number.unwrap_or_default();
        skip_everything(&mut phases, &format!("nothing changed since release {number} passed verification"));
    }
    let on_failure = input.operation.on_failure.unwrap_or(input.playbook.on_failure);
    // A way back that no failure takes would only mislead whoever reads the plan.
    let leads_back = |step: &Step| step.on_failure == playbook::StepFailure::Rollback;
    let way_back =
        !input.playbook.rolls_back.is_empty() && phases.iter().flat_map(|p| &p.steps).any(leads_back);
    let (fallback, warnings) =
        if way_back { fallback::plan(input, release.as_ref(), builder.width())? } else { (None, Vec::new()) };
    let mut warnings = warnings;
    warnings.extend(maintenance(input, &phases));
    if verifies && !phases.iter().flat_map(|phase| &phase.steps).any(proves) {
        let text =
            "nothing proves this release but its readiness: mlctl.yaml names no health check, metric or load";
        warnings.push(text.to_owned());
    }
    warnings.extend(left_out(input, &phases, &wanted));
    Ok(Plan {
        operation: input.operation.verb.clone(),
        system: input.system.name.clone(),
        target: input.target.to_owned(),
        base: input.snapshot.fingerprint(),
        from: head.map(|head| head.number),
        from_verified: head.is_some_and(|head| head.state == ReleaseState::Verified),
        deadline_ms: input.playbook.limits.deadline.map(crate::system::units::TimeSpan::as_millis),
        release,
        phases,
        on_failure,
        fallback,
        rolls_back: input.playbook.rolls_back.clone(),
        head_after,
        warnings,
        verifies,
    })
}

/// Refuses what a playbook may say and this version does not do, rather than pass over it.
fn not_available_yet(input: &PlanInput<'_>) -> Result<(), PlanError> {
    let refuse = |key: &str| {
        let reason = format!("`{key}` is not available yet; take it out of playbook {}", input.playbook.name);
        Err(PlanError::BadStep { step: key.to_owned(), reason })
    };
    if !input.playbook.guards.is_empty() {
        return refuse("guards");
    }
    if input.playbook.limits.cooldown.is_some_and(|cooldown| !cooldown.is_zero()) {
        return refuse("limits.cooldown");
    }
    Ok(())
}

/// Refuses to verify a release of which something else runs.
fn head_fully_runs(input: &PlanInput<'_>, head: Option<&Release>) -> Result<(), PlanError> {
    let Some(head) = head else { return Ok(()) };
    let items = input.snapshot.strays(&head.desired);
    if items.is_empty() { Ok(()) } else { Err(PlanError::Mixed { release: head.number, items }) }
}

/// Says whether a step looks at the release with eyes of its own, and is not skipped.
fn proves(step: &Step) -> bool {
    let looks = match &step.action {
        Action::Health(gate) => !gate.checks.is_empty(),
        Action::Metrics(gate) => !gate.expect.is_empty(),
        Action::Kpis(gate) => !gate.kpis.is_empty(),
        Action::Http(_) | Action::Load(_) => true,
        _ => false,
    };
    looks && step.skip.is_none()
}

/// Says which phases of the playbook are wanted.
fn selected(input: &PlanInput<'_>) -> Result<Vec<bool>, PlanError> {
    let phases = &input.playbook.phases;
    let Selection::Phases(asked) = input.selection else { return Ok(vec![true; phases.len()]) };
    let mut wanted = vec![false; phases.len()];
    for text in asked {
        let by_number =
            text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).filter(|at| *at < phases.len());
        let by_name = phases.iter().position(|phase| phase.name == *text);
        let at = by_name.or(by_number).ok_or_else(|| PlanError::NoSuchPhase {
            asked: text.clone(),
            known: phases.iter().enumerate().map(|(at, p)| format!("{} ({})", at + 1, p.name)).collect(),
        })?;
        wanted[at] = true;
    }
    Ok(wanted)
}

/// Refuses when a phase that is left out, before one that is wanted, is not in place.
fn earlier_phases_are_there(input: &PlanInput<'_>, wanted: &[bool]) -> Result<(), PlanError> {
    let Some(last) = wanted.iter().rposition(|w| *w) else { return Ok(()) };
    for (phase, _) in input.playbook.phases.iter().zip(wanted).take(last).filter(|(_, wanted)| !**wanted) {
        let items: Vec<(ItemId, String)> = phase
            .steps
            .iter()
            .filter_map(|step| match &step.action {
                playbook::Action::Apply(apply) => Some(apply),
                _ => None,
            })
            .flat_map(|apply| super::build::chosen(input.desired, apply))
            .filter_map(|item| {
                let live = input.snapshot.get(&item.id);
                (!live.is_current()).then(|| (item.id.clone(), live.status.status.word().to_owned()))
            })
            .collect();
        if !items.is_empty() {
            let phase_wanted = input.playbook.phases.iter().zip(wanted).rfind(|(_, w)| **w);
            return Err(PlanError::EarlierPhase {
                phase: phase_wanted.map(|(p, _)| p.name.clone()).unwrap_or_default(),
                missing: phase.name.clone(),
                items,
            });
        }
    }
    Ok(())
}

/// Says whether a phase writes workloads of the applications tier.
fn deploys_applications(phase: &Phase) -> bool {
    phase.steps.iter().any(|step| match &step.action {
        Action::Apply(apply) => apply.writes.iter().any(|write| match write {
            crate::ports::Write::Put { item, .. } => {
                item.id.kind == ItemKind::Workload && item.tier == Tier::Applications
            }
            crate::ports::Write::Remove { id } => id.kind == ItemKind::Workload,
            _ => false,
        }),
        _ => false,
    })
}

fn marks(phase: &Phase) -> bool {
    phase.steps.iter().any(|step| matches!(step.action, Action::Mark(_)))
}

/// Gives `mark` steps the number of the release, or skips them when there is none to mark.
fn settle_marks(phases: &mut [Phase], release: Option<&PlannedRelease>) {
    for step in phases.iter_mut().flat_map(|phase| &mut phase.steps) {
        if let Action::Mark(mark) = &mut step.action {
            match release {
                Some(release) => mark.release = release.number,
                None => step.skip = Some("there is no release to mark".to_owned()),
            }
        }
    }
}

fn skip_everything(phases: &mut [Phase], reason: &str) {
    let looks = |step: &Step| !step.action.is_change() && step.skip.is_none();
    for step in phases.iter_mut().flat_map(|phase| &mut phase.steps).filter(|step| looks(step)) {
        step.skip = Some(reason.to_owned());
    }
}

/// Returns what a rollback should bring: the target release's applications (or the services named) over the head's
/// other items. Infrastructure stays as it is unless asked for.
///
/// # Errors
/// A service that the target release does not have, or a result equal to the head when `head_runs` as it should.
pub fn rollback_desired(
    head: Option<&Release>,
    target: &Release,
    services: &[String],
    include_infrastructure: bool,
    head_runs: bool,
) -> Result<Desired, PlanError> {
    let Some(head) = head else { return Ok(target.desired.clone()) };
    for name in services {
        if target.desired.get(&ItemId::workload(name.as_str())).is_none() {
            let workloads = target.desired.items.iter().filter(|i| i.id.kind == ItemKind::Workload);
            let known = workloads.map(|item| item.id.name.clone()).collect();
            return Err(PlanError::NoSuchService { name: name.clone(), known });
        }
    }
    // Services that read and write elsewhere than what they call: half a change of stores is none.
    let other_stores = head.desired.stores != target.desired.stores;
    if other_stores && !services.is_empty() {
        return Err(PlanError::OtherStores { release: target.number, stores: target.desired.stores.word() });
    }
    let goes_back = |item: &Item| {
        let tier = include_infrastructure || item.tier == Tier::Applications;
        let named = services.is_empty() || services.contains(&item.id.name);
        // What the applications read and write is theirs: without its stores, the release would not be the same.
        let theirs = other_stores && item.id.kind == ItemKind::Store;
        theirs || tier && named && (services.is_empty() || item.id.kind == ItemKind::Workload)
    };
    let stays = head.desired.items.iter().filter(|item| !goes_back(item));
    let is_lacking = |item: &Item| {
        other_stores && item.id.kind == ItemKind::Secret && head.desired.get(&item.id).is_none()
    };
    let returns = target.desired.items.iter().filter(|item| goes_back(item) || is_lacking(item));
    let desired = Desired { items: stays.chain(returns).cloned().collect(), stores: target.desired.stores };
    if head_runs && desired.digest() == head.desired.digest() {
        return Err(PlanError::AlreadyThere { release: target.number });
    }
    Ok(desired)
}
