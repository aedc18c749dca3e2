//! What holds of every plan.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::Case;
use crate::item::{ItemId, ItemKind};
use crate::plan::Plan;
use crate::ports::Write;
use crate::release::ReleaseState;
use crate::steps::Action;

const NAMES: [&str; 7] = ["queue", "user", "catalog", "gateway", "report", "batch", "mail"];

/// One workload: is it wanted, its version, what it needs among those before it, what runs of it.
type Drawn = (bool, u32, Vec<bool>, Option<(u32, u32)>);

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let live = prop::option::of((1_u32..3, 0_u32..7));
    let one = (prop::bool::weighted(0.8), 1_u32..3, prop::collection::vec(any::<bool>(), NAMES.len()), live);
    prop::collection::vec(one, NAMES.len())
}

fn case(drawn: &[Drawn], head: bool) -> Case {
    let (mut desired, mut live, mut old) = (String::new(), String::new(), String::new());
    for (at, (wanted, version, needs, running)) in drawn.iter().enumerate() {
        let name = NAMES[at];
        let needs: Vec<String> = (0..at)
            .filter(|need| needs[*need] && drawn[*need].0)
            .map(|need| format!("workload/{}", NAMES[need]))
            .collect();
        let needs = if needs.is_empty() { String::new() } else { format!(" needs {}", needs.join(",")) };
        if *wanted {
            desired += &format!("workload/{name}@{version} x1..4{needs}\n");
        }
        if let Some((version, count)) = running {
            live += &format!("workload/{name}@{version} x{count}\n");
            old += &format!("workload/{name}@{version} x1..4\n");
        }
    }
    let case = Case::new(&desired).live(&live);
    if head { case.release(1, ReleaseState::Verified, &old).head(1) } else { case }
}

/// Returns at which step each item is written, steps counted over all phases.
fn places(plan: &Plan) -> BTreeMap<ItemId, usize> {
    let mut places = BTreeMap::new();
    for (at, (_, step)) in plan.steps().enumerate() {
        if let Action::Apply(apply) = &step.action {
            for write in &apply.writes {
                let twice = places.insert(write.id().clone(), at);
                assert_eq!(twice, None, "{} is written twice", write.id());
            }
        }
    }
    places
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
            // What applications need of each other; infrastructure is a phase before them all.
            for need in item.needs.iter().filter(|need| case.desired.get(need).is_some_and(|n| n.tier == item.tier)) {
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
