//! What holds of every plan.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{Case, playbook};
use crate::item::{Digest, ItemId, ItemKind, Tier};
use crate::plan::{Plan, PlanError, rollback_desired};
use crate::ports::Write;
use crate::release::{Release, ReleaseState};
use crate::steps::Action;

const NAMES: [&str; 7] = ["queue", "user", "catalog", "gateway", "report", "batch", "mail"];

/// One workload: is it wanted, its version, what it needs among those before it, what runs of it and how.
type Drawn = (bool, u32, Vec<bool>, Option<(u32, u32, &'static str)>);

/// What is beside the workloads: wanted and live versions of a store, a secret and the migrations of `user`; a floor.
type Beside = ([(u32, Option<u32>); 3], Option<u32>);

fn drawn() -> impl Strategy<Value = (Vec<Drawn>, Beside)> {
    let status = prop::sample::select(vec!["", "", "", " failed", " updating"]);
    let live = prop::option::of((1_u32..3, 0_u32..7, status));
    let one = (prop::bool::weighted(0.8), 1_u32..3, prop::collection::vec(any::<bool>(), NAMES.len()), live);
    let version = || (1_u32..4, prop::option::of(1_u32..4));
    let beside = ([version(), version(), version()], prop::option::weighted(0.3, 1_u32..5));
    (prop::collection::vec(one, NAMES.len()), beside)
}

fn case((drawn, beside): &(Vec<Drawn>, Beside), head: bool) -> Case {
    let (mut desired, mut live, mut old) = (String::new(), String::new(), String::new());
    for (id, (wanted, running)) in ["store/db", "secret/jwt", "migration/user"].iter().zip(&beside.0) {
        desired += &format!("{id}@{wanted}\n");
        if let Some(version) = running {
            live += &format!("{id}@{version}\n");
            old += &format!("{id}@{version}\n");
        }
    }
    for (at, (wanted, version, needs, running)) in drawn.iter().enumerate() {
        let name = NAMES[at];
        let needs = (0..at).filter(|need| needs[*need] && drawn[*need].0);
        let beside = ["store/db", "migration/user"].iter().map(ToString::to_string);
        let needs = needs.map(|need| format!("workload/{}", NAMES[need])).chain(beside.take(1 + at.min(1)));
        let needs = needs.collect::<Vec<_>>().join(",");
        if *wanted {
            desired += &format!("workload/{name}@{version} x1..4 needs {needs}\n");
        }
        if let Some((version, count, status)) = running {
            live += &format!("workload/{name}@{version} x{count}{status}\n");
            old += &format!("workload/{name}@{version} x1..4\n");
        }
    }
    let mut case = Case::new(&desired).live(&live);
    if let Some(count) = beside.1 {
        case = case.floor("catalog", count);
    }
    if head { case.release(1, ReleaseState::Verified, &old).head(1) } else { case }
}

/// Returns at which step each item is written, steps counted over all phases.
fn places(plan: &Plan) -> BTreeMap<ItemId, usize> {
    let mut places = BTreeMap::new();
    for (at, (_, step)) in plan.steps().enumerate() {
        let ids: Vec<&ItemId> = match &step.action {
            Action::Apply(apply) => apply.writes.iter().map(Write::id).collect(),
            Action::Migrate(migrate) => migrate.items.iter().map(|item| &item.id).collect(),
            _ => Vec::new(),
        };
        for id in ids {
            assert_eq!(places.insert(id.clone(), at), None, "{id} is written twice");
        }
    }
    places
}

/// Returns what a release brings beyond infrastructure, by id.
fn applications(release: &Release) -> BTreeMap<&ItemId, &Digest> {
    let items = release.desired.items.iter().filter(|item| item.tier == Tier::Applications);
    items.map(|item| (&item.id, &item.digest)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_plan_is_a_function_of_its_input(drawn in drawn(), head: bool) {
        let (one, other) = (case(&drawn, head).plan(), case(&drawn, head).plan());
        prop_assert_eq!(one.as_ref().map(Plan::digest), other.as_ref().map(Plan::digest));
        prop_assert_eq!(one, other);
    }

    #[test]
    fn what_is_needed_comes_first(drawn in drawn(), head: bool) {
        let case = case(&drawn, head);
        let plan = case.plan().unwrap();
        let places = places(&plan);
        for item in &case.desired.items {
            prop_assert!(places.contains_key(&item.id), "{} is not in the plan", item.id);
            for need in item.needs.iter().filter(|need| case.desired.get(need).is_some()) {
                prop_assert!(places[need] < places[&item.id], "{} before {need}", item.id);
            }
        }
    }

    #[test]
    fn step_ids_are_unique(drawn in drawn(), head: bool) {
        let plan = case(&drawn, head).plan().unwrap();
        let back = plan.fallback.iter().flat_map(|fallback| &fallback.phase.steps).map(|step| step.id.as_str());
        let mut ids: Vec<&str> = plan.steps().map(|(_, step)| step.id.as_str()).chain(back).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), count);
    }

    #[test]
    fn the_plan_after_a_plan_is_empty(drawn in drawn(), head: bool) {
        let before = case(&drawn, head);
        prop_assume!(!before.desired.items.is_empty());
        let plan = before.plan().unwrap();
        // Without a workload among the applications no phase makes a release, and nothing is ever verified.
        prop_assume!(plan.release.is_some());
        let after = before.after(&plan);
        let again = after.plan().unwrap();
        prop_assert!(again.is_empty(), "{}", super::world::text(&again));
    }

    #[test]
    fn a_rollback_leads_to_its_release_and_then_there_is_nowhere_to_go(one in drawn(), other in drawn()) {
        let place = |case: Case| {
            let plan = case.plan().unwrap();
            (plan.release.is_some(), case.after(&plan))
        };
        let (made, first) = place(case(&one, false));
        prop_assume!(made);
        let (_, mut there) = place(Case { desired: case(&other, false).desired, ..first });
        prop_assume!(there.releases.len() == 2);
        let (target, head) = (there.releases[0].clone(), there.releases[1].clone());
        let Ok(desired) = rollback_desired(Some(&head), &target, &[], false, true) else {
            prop_assert_eq!(applications(&target), applications(&head));
            return Ok(());
        };
        there.playbook = playbook("rollback");
        there.operation.verb = "rollback".into();
        there.operation.rollback_of = Some(target.number);
        there.desired = desired;
        let (made, back) = place(there);
        prop_assume!(made);
        let head = back.releases.last().unwrap();
        prop_assert_eq!(applications(head), applications(&target));
        prop_assert_eq!(back.snapshot.strays(&head.desired), Vec::new());
        let again = rollback_desired(Some(head), &target, &[], false, true);
        prop_assert_eq!(again, Err(PlanError::AlreadyThere { release: target.number }));
    }

    #[test]
    fn the_way_back_restores_every_application(drawn in drawn()) {
        let case = case(&drawn, true);
        let plan = case.plan().unwrap();
        prop_assume!(plan.fallback.is_some());
        let fallback = plan.fallback.unwrap();
        let mut writes = fallback.phase.steps.iter().filter_map(|step| match &step.action {
            Action::Apply(apply) => Some(&apply.writes),
            _ => None,
        }).flatten();
        let old = &case.releases[0].desired;
        let restores = writes.all(|write| match write {
            Write::Put { item, .. } => old.get(&item.id) == Some(item),
            Write::Remove { id } => old.get(id).is_none() && id.kind == ItemKind::Workload,
            _ => false,
        });
        prop_assert!(restores);
    }
}
