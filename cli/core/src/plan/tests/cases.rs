//! Cases of the planner as snapshots.

use insta::assert_snapshot;

use super::world::Case;
use crate::item::ItemId;
use crate::plan::{Difference, PlanError, rollback_desired};
use crate::playbook::OnFailure;
use crate::release::ReleaseState;

const V1: &str = "
    namespace/shop@1
    secret/jwt@1
    store/db@1
    migration/user@1
    workload/queue@1 x1..1
    workload/user@1 x2..5 needs store/db,workload/queue
    workload/catalog@1 x2..6 needs store/db
    workload/gateway@1 x1..3 needs workload/user,workload/catalog
";

const LIVE_V1: &str = "
    namespace/shop@1
    secret/jwt@1
    store/db@1
    migration/user@1
    workload/queue@1 x1
    workload/user@1 x2
    workload/catalog@1 x2
    workload/gateway@1 x1
";

fn changed(from: &str, to: &str) -> String {
    assert!(V1.contains(from), "{from} is not in the base");
    V1.replace(from, to)
}

fn running(desired: &str) -> Case {
    Case::new(desired).live(LIVE_V1).release(1, ReleaseState::Verified, V1).head(1)
}

#[test]
fn first_deploy() {
    assert_snapshot!(Case::new(V1).text());
}

#[test]
fn nothing_changed() {
    let case = running(V1);
    assert!(case.plan().unwrap().is_empty());
    assert_snapshot!(case.text());
}

#[test]
fn nothing_changed_and_never_verified() {
    let case = Case::new(V1).live(LIVE_V1).release(1, ReleaseState::Unverified, V1).head(1);
    let plan = case.plan().unwrap();
    assert!(plan.verifies && !plan.is_empty());
    assert!(plan.release.is_some_and(|release| !release.creates && release.number == 1));
}

#[test]
fn one_service_changed() {
    let mut case = running(&changed("workload/user@1", "workload/user@2"));
    let difference = Difference { path: "env.LOG".into(), before: Some("info".into()), after: None };
    case.previews.insert(ItemId::workload("user"), vec![difference]);
    assert_snapshot!(case.text());
}

#[test]
fn a_drifted_field_is_an_update_although_the_digest_is_the_same() {
    let mut case = running(V1);
    let difference =
        Difference { path: "limits.memory".into(), before: Some("1".into()), after: Some("2".into()) };
    case.previews.insert(ItemId::workload("catalog"), vec![difference]);
    let plan = case.plan().unwrap();
    let changes: Vec<String> = plan.changes().map(|change| change.item.to_string()).collect();
    assert_eq!(changes, ["workload/catalog"]);
    assert!(plan.release.is_some_and(|release| !release.creates), "no item is another one");
}

#[test]
fn a_service_removed() {
    assert_snapshot!(
        running(
            &changed("workload/catalog@1 x2..6 needs store/db", "")
                .replace("needs workload/user,workload/catalog", "needs workload/user")
        )
        .text()
    );
}

#[test]
fn phase_two_without_phase_one_is_refused() {
    let case = Case::new(V1).live("namespace/shop@1\nsecret/jwt@1\nstore/db@1 failed").phases(&["2"]);
    assert_snapshot!(case.text(), @"refused: plan phase applications: phase infrastructure is not in place: store/db is failed, workload/queue is not found
");
}

#[test]
fn phase_two_alone_with_phase_one_there() {
    let case = running(&changed("workload/gateway@1", "workload/gateway@2")).phases(&["applications"]);
    assert_snapshot!(case.text());
}

#[test]
fn phase_three_alone_always_verifies_the_head() {
    assert_snapshot!(running(V1).phases(&["3"]).text());
}

#[test]
fn phase_one_alone_makes_no_release() {
    let case = Case::new(V1).phases(&["infrastructure"]);
    let plan = case.plan().unwrap();
    assert!(plan.release.is_none() && plan.head_after.is_none() && plan.fallback.is_none());
    assert!(plan.changes().all(|change| change.item.name != "user"));
}

#[test]
fn an_unknown_phase_is_refused_with_those_there_are() {
    for asked in ["0", "4", "application"] {
        let error = Case::new(V1).phases(&[asked]).plan().unwrap_err();
        let text = format!(
            "plan phase {asked}: no such phase; the playbook has 1 (infrastructure), 2 (applications), 3 (verification)"
        );
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn a_failure_can_be_told_to_stop() {
    let case = running(&changed("workload/user@1", "workload/user@2")).on_failure(OnFailure::Stop);
    let plan = case.plan().unwrap();
    assert!(plan.steps().all(|(_, step)| step.on_failure == crate::playbook::StepFailure::Stop));
}

#[test]
fn a_rollback_brings_applications_back_and_leaves_infrastructure() {
    let v2 = changed("workload/user@1", "workload/user@2").replace("store/db@1\n", "store/db@2\n");
    let case = running(&v2).release(2, ReleaseState::Failed, &v2);
    let (head, target) = (&case.releases[1], &case.releases[0]);
    let desired = rollback_desired(Some(head), target, &[], false, true).unwrap();
    let digest =
        |desired: &crate::item::Desired, id: &str| desired.get(&id.parse().unwrap()).unwrap().digest.clone();
    assert_eq!(digest(&desired, "workload/user"), digest(&target.desired, "workload/user"));
    assert_eq!(digest(&desired, "store/db"), digest(&head.desired, "store/db"));
    let with = rollback_desired(Some(head), target, &[], true, true).unwrap();
    assert_eq!(with.digest(), target.desired.digest());
}

#[test]
fn a_rollback_of_one_service_leaves_the_others() {
    let v2 =
        V1.replace("workload/user@1", "workload/user@2").replace("workload/catalog@1", "workload/catalog@2");
    let case = running(&v2).release(2, ReleaseState::Verified, &v2);
    let (target, head) = (&case.releases[0], &case.releases[1]);
    let desired = rollback_desired(Some(head), target, &["user".into()], false, true).unwrap();
    let item = |id: &str| desired.get(&id.parse().unwrap()).unwrap();
    assert_eq!(item("workload/user"), target.desired.get(&item("workload/user").id).unwrap());
    assert_eq!(item("workload/catalog"), head.desired.get(&item("workload/catalog").id).unwrap());
    assert_eq!(desired.items.len(), head.desired.items.len());
    let unknown = rollback_desired(Some(head), target, &["usr".into()], false, true).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "plan for service usr: no such service; there are queue, user, catalog, gateway"
    );
}

#[test]
fn a_rollback_to_where_we_are_is_refused() {
    let case = running(V1);
    let here = &case.releases[0];
    assert_eq!(
        rollback_desired(Some(here), here, &[], false, true),
        Err(PlanError::AlreadyThere { release: 1 })
    );
    let v2 = changed("workload/user@1", "workload/user@2");
    let case = running(&v2).release(2, ReleaseState::Verified, &v2);
    let catalog =
        rollback_desired(Some(&case.releases[1]), &case.releases[0], &["catalog".into()], false, true);
    assert_eq!(catalog, Err(PlanError::AlreadyThere { release: 1 }));
}

#[test]
fn a_rollback_plan_makes_a_release_of_its_own() {
    let v2 = changed("workload/user@1", "workload/user@2");
    let mut case = Case::new(V1)
        .live(&LIVE_V1.replace("workload/user@1", "workload/user@2"))
        .release(1, ReleaseState::Verified, V1)
        .release(2, ReleaseState::Verified, &v2)
        .head(2);
    case.playbook = super::world::playbook("rollback");
    case.operation.verb = "rollback".into();
    case.operation.rollback_of = Some(1);
    assert_snapshot!(case.text());
}

#[test]
fn a_breaking_migration_takes_the_way_back_with_a_warning() {
    let v2 = changed("migration/user@1", "migration/user@2 breaking");
    let case = running(&v2);
    let plan = case.plan().unwrap();
    assert!(plan.fallback.is_none());
    assert_eq!(
        plan.warnings,
        [
            "no automatic rollback: release 1 cannot read what migration 0002_step of user leaves; a failure stops"
        ]
    );
    let harmless = running(&changed("migration/user@1", "migration/user@2")).plan().unwrap();
    assert!(harmless.warnings.is_empty());
    assert_eq!(harmless.fallback.map(|fallback| fallback.release), Some(1));
}

#[test]
fn the_way_back_goes_to_the_last_verified_release() {
    let v3 = changed("workload/user@1", "workload/user@3");
    let v2 = changed("workload/user@1", "workload/user@2");
    let case = running(&v3).release(2, ReleaseState::Failed, &v2);
    assert_eq!(case.plan().unwrap().fallback.map(|fallback| fallback.release), Some(1));
    let added = running(&format!("{V1}\nworkload/report@1 x1..2"));
    let fallback = added.plan().unwrap().fallback.unwrap();
    let last = fallback.phase.steps.last().unwrap();
    assert_eq!(last.title, "remove report", "what the run brings is taken away again");
}

#[test]
fn live_counts_are_kept_inside_the_range() {
    let grown = LIVE_V1.replace("workload/user@1 x2", "workload/user@1 x4");
    let case = Case::new(V1).live(&grown).release(1, ReleaseState::Verified, V1).head(1);
    assert!(case.plan().unwrap().is_empty(), "a scaled workload is not drift");
    let narrower = changed("x2..5", "x2..3");
    let case = Case::new(&narrower).live(&grown).release(1, ReleaseState::Verified, V1).head(1);
    let plan = case.plan().unwrap();
    let user = plan.changes().find(|change| change.item.name == "user").unwrap();
    assert_eq!(user.replicas, Some((4, 3)));
}

#[test]
fn a_replica_floor_in_force_is_not_undercut() {
    let plan = running(V1).floor("user", 4).plan().unwrap();
    let user = plan.changes().find(|change| change.item.name == "user").unwrap();
    assert_eq!(user.replicas, Some((2, 4)));
    let above = running(V1).live("workload/user@1 x5").floor("user", 4).plan().unwrap();
    assert!(above.changes().next().is_none(), "a floor does not pull down");
}

#[test]
fn needs_in_a_circle_are_refused() {
    let desired =
        "workload/user@1 x1..1 needs workload/catalog\nworkload/catalog@1 x1..1 needs workload/user";
    assert_eq!(
        Case::new(desired).plan().unwrap_err().to_string(),
        "plan the order of workload/user, workload/catalog: they need each other"
    );
}

/// What a deploy leaves that was stopped after the catalog: the head is 1, the catalog already runs version 2.
fn half_done(desired: &str) -> Case {
    let live = LIVE_V1.replace("workload/catalog@1", "workload/catalog@2");
    Case::new(desired).live(&live).release(1, ReleaseState::Verified, V1).head(1)
}

#[test]
fn verification_alone_is_refused_when_something_else_runs() {
    let error = half_done(V1).phases(&["verification"]).plan().unwrap_err();
    assert_eq!(
        error.to_string(),
        "plan the verification of release 1: something else runs: workload/catalog is of another release"
    );
}

#[test]
fn a_release_that_already_runs_still_has_to_become_the_head() {
    let version_2 = changed("catalog@1", "catalog@2");
    let plan = half_done(&version_2).phases(&["applications"]).plan().unwrap();
    assert!(plan.changes().next().is_none());
    assert!(plan.release.as_ref().is_some_and(|release| release.creates && release.number == 2));
    assert!(!plan.is_empty());
}

#[test]
fn a_half_done_deploy_goes_back_to_the_head() {
    let case = half_done(V1);
    let head = &case.releases[0];
    assert!(!case.snapshot.strays(&head.desired).is_empty());
    let desired = rollback_desired(Some(head), head, &[], false, false).unwrap();
    assert_eq!(desired.digest(), head.desired.digest());
    let plan = half_done(V1).plan().unwrap();
    let changed: Vec<String> = plan.changes().map(|change| change.item.to_string()).collect();
    assert_eq!(changed, ["workload/catalog"]);
}
