//! Plans of day-to-day acts.

use super::world::{Case, items, text};
use crate::plan::{PlanError, down, restart, scale};

const DESIRED: &str = "workload/user@1 x2..5\nworkload/catalog@1 x2..6";
const LIVE: &str = "namespace/shop@1\nworkload/user@1 x2\nworkload/catalog@1 x3";

fn case() -> Case {
    Case::new(DESIRED).live(LIVE)
}

#[test]
fn a_scale_stays_in_its_range() {
    let case = case();
    let plan = |count: u32| scale("shop", "test", &case.snapshot, &case.desired, &[("user".into(), count)]);
    insta::assert_snapshot!(text(&plan(4).unwrap()), @"
    scale shop on test: from nothing to no release
    scale
      scale:user: scale user from 2 to 4 -> Stop
        ~ workload/user 2 -> 4
    head after no phase; verifies: false; empty: false
    ");
    assert!(plan(2).unwrap().is_empty(), "the count it has is no change");
    for (count, min, max) in [(1, 2, 5), (6, 2, 5)] {
        let refused = PlanError::OutOfRange { service: "user".into(), replicas: count, min, max };
        assert_eq!(plan(count), Err(refused));
    }
}

#[test]
fn an_unknown_service_is_refused_with_those_there_are() {
    let case = case();
    let error = scale("shop", "test", &case.snapshot, &case.desired, &[("usr".into(), 2)]).unwrap_err();
    assert_eq!(error.to_string(), "plan for service usr: no such service; there are catalog, user");
    let error = restart("shop", "test", &case.snapshot, &items(""), &["usr".into()], "t").unwrap_err();
    assert_eq!(error.to_string(), "plan for service usr: no such service; there are catalog, user");
}

#[test]
fn restarts_go_one_after_the_other_and_down_takes_workloads_only() {
    let case = case();
    let services = ["user".to_owned(), "catalog".to_owned()];
    let plan = restart("shop", "test", &case.snapshot, &case.desired, &services, "t").unwrap();
    assert_eq!(
        plan.steps().map(|(_, step)| step.id.as_str()).collect::<Vec<_>>(),
        ["restart:user", "restart:catalog"]
    );
    assert!(!plan.is_empty());
    let plan = down("shop", "test", &case.snapshot, &case.desired).unwrap();
    let removed: Vec<String> = plan.changes().map(|change| change.item.to_string()).collect();
    assert_eq!(removed, ["workload/catalog", "workload/user"]);
}
