//! Load in a run: killed, interrupted, kept out by maintenance; and what is said of it.

use std::time::Duration;

use super::rig::Rig;
use super::told::Trigger;
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::overrides::{Override, OverrideKind};
use crate::release::ReleaseState;
use crate::run::Canceller;

/// Gives the load profile a setup, whose traces a killed run leaves.
fn with_setup(rig: &mut Rig) {
    let setup = "setup: [{name: register, post: /api/register}], mix:";
    rig.edit("mix:", setup);
}

fn maintenance() -> Override {
    Override {
        id: "maintenance".into(),
        owner: "ana@desk".into(),
        reason: "moving".into(),
        since: jiff::Timestamp::UNIX_EPOCH,
        until: None,
        kind: OverrideKind::Maintenance { message: "back soon".into(), retry_after_seconds: 60 },
    }
}

fn in_load(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Progress { step, .. } if step == "load")
}

#[tokio::test(start_paused = true)]
async fn a_load_that_was_killed_is_not_in_the_way_of_the_next() {
    let mut rig = Rig::new("");
    with_setup(&mut rig);
    let plan = rig.plan().await;
    let run = rig.next_run();
    for killed in 1..=3 {
        // The load runs from about the fourth second to the fourteenth.
        let dies = tokio::time::sleep(Duration::from_secs(9));
        if killed == 1 {
            tokio::select! {
                told = rig.carry_out(&plan) => panic!("it ended:\n{}", told.text()),
                () = dies => {}
            }
        } else {
            tokio::select! {
                told = rig.resume(&run) => panic!("it ended:\n{}", told.text()),
                () = dies => {}
            }
        }
        assert_eq!(rig.sim.world().set_up.len(), killed, "each made something of its own");
        rig.sim.revive();
    }
    let told = rig.resume(&run).await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
}

#[tokio::test(start_paused = true)]
async fn what_maintenance_keeps_out_says_nothing_against_the_release() {
    for setup in [true, false] {
        let mut rig = Rig::running("").await;
        if setup {
            with_setup(&mut rig);
        }
        rig.put(&maintenance()).await;
        rig.edit("user-1", "user-2");
        let plan = rig.plan().await;
        assert!(plan.warnings.iter().any(|text| text.contains("maintenance is on since")), "{plan:?}");
        let told = rig.carry_out(&plan).await;
        assert_eq!(told.report.outcome, RunOutcome::GateInconclusive, "{}", told.text());
        assert!(told.report.reason.contains("`mlctl maintenance off`"), "{}", told.report.reason);
        assert_eq!(rig.version("user").as_deref(), Some("user-2"), "the mended release stays");
        assert_eq!(rig.releases()[1], (2, ReleaseState::Unverified));
        rig.end("maintenance").await;
        rig.selection = crate::plan::Selection::Phases(vec!["verification".into()]);
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
        assert_eq!(rig.releases()[1], (2, ReleaseState::Verified));
    }
}

#[tokio::test(start_paused = true)]
async fn a_setup_that_the_release_does_not_answer_is_its_failure() {
    let script = "[[error]]\nport = 'load'\nskip = 1\n";
    let mut rig = Rig::running(script).await;
    with_setup(&mut rig);
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_load_is_no_step_that_is_done() {
    let mut rig = Rig::new("");
    let plan = rig.plan().await;
    let (canceller, cancel) = Canceller::new();
    let trigger = Trigger::new(canceller, in_load);
    let told = rig.carry_out_with(&plan, &cancel, &trigger).await;
    assert_eq!(told.report.outcome, RunOutcome::Interrupted, "{}", told.text());
    assert_eq!(told.outcome("load"), Some(Outcome::Aborted), "{}", told.text());
    let state = told.state();
    let (_, report) = state.loads.last().unwrap();
    assert!(report.interrupted);
    let said = crate::steps::load::sentence(report);
    assert!(said.starts_with("interrupted after 1 s: 50 requests in 1 s"), "{said}");
    let run = told.run;
    let told = rig.resume(&run).await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(told.outcome("load"), Some(Outcome::Success), "the whole load is sent again");
}

#[tokio::test(start_paused = true)]
async fn what_both_releases_hold_belongs_to_the_one_that_runs() {
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'");
    rig.edit("stores:", "  sidecar: {command: [sidecar], port: 4009, phase: infrastructure}\nstores:");
    assert_eq!(rig.deploy().await.report.outcome, RunOutcome::Succeeded);
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    let finish = told.state().finish.unwrap();
    assert_eq!(finish.head, Some(1));
    let odd: Vec<_> = finish.serving.iter().filter(|serving| serving.release != Some(1)).collect();
    assert!(odd.is_empty() && finish.serving.len() == 4, "{:?}", finish.serving);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_asks_nothing_of_a_service_that_it_removes() {
    let mut rig = Rig::running("").await;
    rig.edit("user-1", "user-2");
    rig.edit(
        "stores:",
        "  extra: {command: [extra], port: 4009, health: {check: /health}, metrics: {port: 9109, expect: [extra_total]}}\nstores:",
    );
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    let plan = rig.plan_rollback().await;
    let told = rig.carry_out(&plan).await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert!(!told.text().contains("extra each replica") && rig.version("extra").is_none());
}
