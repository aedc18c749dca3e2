//! What each kind of failure leads to: the exit codes 5, 20 to 23, 30 and 31.

use super::rig::{Rig, Told};
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::item::{ItemId, ItemKind};
use crate::plan::Selection;
use crate::playbook::OnFailure;
use crate::release::ReleaseState;
use crate::status::Status;

/// Returns a script in which the second version of the user service has a fault.
fn broken(fault: &str) -> String {
    format!("[[fault]]\nitem = 'user'\ncontains = 'user-2'\n{fault}")
}

/// Deploys the first version, then the second under a fault.
async fn update(fault: &str) -> (Rig, Told) {
    let mut rig = Rig::running(&broken(fault)).await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    (rig, told)
}

#[tokio::test(start_paused = true)]
async fn a_failed_update_is_rolled_back() {
    let (rig, told) = update("crash = '0s'\nlog = ['no such table: users']").await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified), (2, ReleaseState::Failed)]);
    assert_eq!(rig.sim.world().head, Some(1));
    assert_eq!(rig.version("user").as_deref(), Some("user-1"));
    let note = rig.sim.world().releases[1].note.clone().unwrap();
    assert!(note.contains("exited 2 times with code 1"), "{note}");
    insta::assert_snapshot!(told.text());
}

#[tokio::test(start_paused = true)]
async fn every_broken_release_is_taken_back_and_explained() {
    for (fault, reason) in [
        ("crash = '0s'\nexit = 78", "exited 2 times with code 78"),
        ("crash = '3s'", "exited 2 times with code 1, each 3 s after its start"),
        ("never-ready = true", "no progress for 30 s"),
        ("health = 503\nbody = 'the database is away'", "user each replica wants 2xx on /health, got 503"),
        ("cause = {code = 'port_taken', text = 'port 4001 is taken', terminal = true}", "port 4001 is taken"),
        ("series-missing = ['logins_total']", "without logins_total"),
        ("p99 = '900ms'", "latency wants p99<500ms, got 900.0 ms"),
        ("errors = '5%'", "all wants errors<1%, got 5.00%"),
    ] {
        let (rig, told) = update(fault).await;
        assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{fault}:\n{}", told.text());
        assert!(told.report.reason.contains(reason), "{fault}: {}", told.report.reason);
        assert_eq!(rig.version("user").as_deref(), Some("user-1"), "{fault}");
        assert_eq!(rig.releases()[1], (2, ReleaseState::Failed), "{fault}");
        let live = rig.sim.world().live(&ItemId::workload("user"), rig.sim.now_ms());
        assert_eq!(live.status.status, Status::Current, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_way_back_is_told_as_such() {
    // The third write to the user service is the one that goes back.
    let script = format!(
        "{}\n[[error]]\nport = 'apply'\nitem = 'user'\nskip = 2\nkind = 'denied'",
        broken("crash = '0s'")
    );
    let mut rig = Rig::running(&script).await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RollbackFailed, "{}", told.text());
    let reason = &told.report.reason;
    assert!(
        reason.contains("exited 2 times") && reason.contains("going back failed: apply workload/user"),
        "{reason}"
    );
    assert_eq!(rig.sim.world().head, Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_way_back_writes_although_the_watch_lags() {
    // Both services are written in one step; the second is refused before the watch has told of the first.
    let script =
        "watch = {lag = '2s'}\n[[error]]\nport = 'apply'\nitem = 'catalog'\nskip = 1\nkind = 'invalid'";
    let mut rig = Rig::running(script).await;
    rig.edit("user-1", "user-2");
    rig.edit("catalog-1", "catalog-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert_eq!(rig.version("user").as_deref(), Some("user-1"), "{}", told.text());
    let live = rig.sim.world().live(&ItemId::workload("user"), rig.sim.now_ms());
    assert!(live.is_current() && live.observed_generation == live.generation, "{live:?}");
}

#[tokio::test(start_paused = true)]
async fn a_first_deploy_that_fails_is_kept() {
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\ncrash = '0s'");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Failed)]);
    assert_eq!(rig.sim.world().head, None);
    assert!(rig.version("user").is_some(), "kept for inspection");
    assert_eq!(told.outcome("services:gateway"), Some(Outcome::WillNotRun));
    assert_eq!(told.outcome("health"), Some(Outcome::WillNotRun));
    assert!(told.place(|kind| matches!(kind, EventKind::Evidence { .. })).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_asked_for_anew_by_the_next_deploy() {
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\ncrash = '0s'");
    rig.deploy().await;
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed, "{}", told.text());
    // The simulated target takes the same write twice as one; that it was asked is in the journal.
    let journal = rig.sim.journal_text(&told.run);
    assert!(journal.contains("put workload/user"), "judged by what it failed for before:\n{journal}");
}

#[tokio::test(start_paused = true)]
async fn infrastructure_is_never_rolled_back() {
    let script = "[[fault]]\nitem = 'store/db'\nrevision = 2\ncause = {code = 'bad_version', text = 'no such version', terminal = true}";
    let mut rig = Rig::running(script).await;
    rig.edit("version: '14'", "version: '99'");
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed, "{}", told.text());
    assert!(
        told.place(|kind| matches!(kind, EventKind::PhaseStarted { phase, .. } if phase == "rollback"))
            .is_none()
    );
    let store = &rig.sim.world().items[&ItemId::new(ItemKind::Store, "db")];
    assert_eq!(store.nth(), 2, "it is left as it is");
    assert_eq!(rig.version("user").as_deref(), Some("user-1"), "and nothing after it began");
    assert_eq!(rig.sim.world().head, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_migration_that_fails_replaces_nothing() {
    let script = "[[error]]\nport = 'migrate'\nskip = 1\nkind = 'invalid'\nreason = 'syntax error'";
    let mut rig = Rig::running(script).await;
    rig.add_migration();
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed, "{}", told.text());
    assert_eq!(rig.version("user").as_deref(), Some("user-1"));
    assert!(told.report.reason.contains("syntax error"), "{}", told.report.reason);
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_says_no_without_a_way_back() {
    let mut rig = Rig::running(&broken("health = 503")).await;
    rig.edit("user-1", "user-2");
    rig.on_failure = Some(OnFailure::Stop);
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::GateFailed, "{}", told.text());
    assert_eq!(rig.version("user").as_deref(), Some("user-2"), "told to stop, it stays");
    assert_eq!(rig.releases()[1], (2, ReleaseState::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_verified_release_keeps_its_state_when_verified_again() {
    for (load, outcome) in
        [("p99 = '900ms'", RunOutcome::GateFailed), ("late = true", RunOutcome::GateInconclusive)]
    {
        let mut rig = Rig::running("").await;
        let saved = rig.sim.save().unwrap();
        rig.sim = crate::sim::Sim::restore(&format!("[load]\n{load}"), &saved).unwrap();
        rig.selection = Selection::Phases(vec!["3".into()]);
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, outcome, "{}", told.text());
        assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_cannot_tell_keeps_the_release_unverified() {
    let mut rig = Rig::running("").await;
    let saved = rig.sim.save().unwrap();
    rig.sim = crate::sim::Sim::restore("load = {late = true}", &saved).unwrap();
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::GateInconclusive, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified), (2, ReleaseState::Unverified)]);
    assert_eq!(rig.sim.world().head, Some(2));
    assert_eq!(rig.version("user").as_deref(), Some("user-2"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_run_without_another_write() {
    for lost_at in ["10ms", "700ms", "1s", "4s"] {
        let mut rig = Rig::new(&format!("lease = {{lost-at = '{lost_at}'}}"));
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::LeaseLost, "{lost_at}:\n{}", told.text());
        let holder = rig.sim.world().lease.unwrap().holder.request.run;
        assert_eq!(holder, "another-run", "{lost_at}: whoever has it keeps it");
        let effects = rig.sim.world().effects.len();
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        assert_eq!(rig.sim.world().effects.len(), effects);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_ends_the_run_when_it_has_run_out() {
    let script = "[[error]]\nport = 'renew'\ncount = 999\n[[fault]]\nitem = 'user'\nslow = 50";
    let mut rig = Rig::new(script);
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::LeaseLost, "{}", told.text());
    assert!((15_000..20_100).contains(&told.elapsed()), "{}", told.elapsed());
    let mut rig = Rig::new("[[error]]\nport = 'renew'\ncount = 2\n[[fault]]\nitem = 'user'\nslow = 50");
    assert_eq!(rig.deploy().await.report.outcome, RunOutcome::Succeeded, "two blips are no loss");
}
