//! The clocks of the engine: per item, step, phase and run; and the window in which things have to stay good.

use std::time::Duration;

use super::rig::Rig;
use crate::event::{EventKind, RunOutcome};
use crate::plan::{Plan, Step};

const NEVER: &str = "[[fault]]\nitem = 'user'\nnever-ready = true";

fn step<'a>(plan: &'a mut Plan, id: &str) -> &'a mut Step {
    plan.phases.iter_mut().flat_map(|phase| &mut phase.steps).find(|step| step.id == id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_item_without_progress_fails_after_its_own_deadline() {
    let mut rig = Rig::new(NEVER);
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed, "{}", told.text());
    assert!(told.report.reason.contains("workload/user: no progress for 30 s: running, and not ready"));
    let took = told.took("services:1");
    assert!((30_000..31_500).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn slow_progress_is_progress() {
    // Each of the two replicas takes 20 s: 40 s in all, and never 30 s without a change.
    let mut rig = Rig::running("[[fault]]\nitem = 'user'\ncontains = 'user-2'\nslow = 40").await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert!(told.took("services:1") > 40_000);
}

#[tokio::test(start_paused = true)]
async fn the_step_clock_ends_one_attempt() {
    let mut rig = Rig::new(NEVER);
    let mut plan = rig.plan().await;
    step(&mut plan, "services:1").timeout_ms = Some(4_000);
    let told = rig.carry_out(&plan).await;
    assert_eq!(told.report.outcome, RunOutcome::TimedOut, "{}", told.text());
    assert_eq!(
        told.report.reason,
        "apply user, catalog: the step clock ran out while waiting for user: 0 of 2 replicas ready, running, and not \
         ready: its readiness probe says no"
    );
    assert_eq!(told.took("services:1"), 4_000);
}

#[tokio::test(start_paused = true)]
async fn the_phase_clock_runs_over_all_its_steps() {
    let mut rig = Rig::new(NEVER);
    let mut plan = rig.plan().await;
    plan.phases[1].deadline_ms = Some(5_000);
    let told = rig.carry_out(&plan).await;
    assert_eq!(told.report.outcome, RunOutcome::TimedOut);
    assert!(told.report.reason.contains("the phase clock ran out"), "{}", told.report.reason);
    let took = told.state().phases["applications"].took_ms;
    assert_eq!(took, 5_000);
}

#[tokio::test(start_paused = true)]
async fn the_total_clock_runs_over_all_phases() {
    let mut rig = Rig::new(NEVER);
    rig.total = Some(Duration::from_secs(6));
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::TimedOut);
    assert!(told.report.reason.contains("the run clock ran out"), "{}", told.report.reason);
    assert!((6_000..6_100).contains(&told.elapsed()), "{}", told.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_an_update_goes_back() {
    let mut rig = Rig::running("[[fault]]\nitem = 'user'\ncontains = 'user-2'\nnever-ready = true").await;
    rig.edit("user-1", "user-2");
    let mut plan = rig.plan().await;
    step(&mut plan, "services:1").timeout_ms = Some(4_000);
    let told = rig.carry_out(&plan).await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert_eq!(rig.version("user").as_deref(), Some("user-1"));
}

#[tokio::test(start_paused = true)]
async fn a_status_of_before_the_write_does_not_count() {
    // The target tells the old status, current, for longer than the window lasts.
    let mut rig = Rig::running("pace = {observe = '5s'}").await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    // 5 s until it is noticed, 1 s for the two replicas, 1 s of calm.
    assert_eq!(told.took("services:1"), 7_000);
}

#[tokio::test(start_paused = true)]
async fn flapping_starts_the_stability_window_anew() {
    let calm = Rig::new("").deploy().await.took("services:1");
    // Ready and not, four halves of 400 ms: nothing lasts the second that the playbook asks for.
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\nflaps = 2\nflap = '400ms'");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(told.took("services:1"), calm + 4 * 400);
}

#[tokio::test(start_paused = true)]
async fn a_readiness_lost_after_the_window_does_not_fail_the_run_by_itself() {
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\nflaps = 1\nflap = '2s'");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
}

#[tokio::test(start_paused = true)]
async fn a_release_is_not_verified_while_something_of_it_is_down() {
    let down = "cause = {after = '8s', code = 'not_ready', text = 'its readiness probe says no'}";
    let mut rig = Rig::running(&format!("[[fault]]\nitem = 'user'\ncontains = 'user-2'\n{down}")).await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert_eq!(told.took("verified"), 60_000);
    assert_eq!(
        told.report.reason,
        "mark the release verified: workload/user: it was current and is no longer: user: 1 of 2 replicas ready, its \
         readiness probe says no"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_current_stays_watched_until_the_run_ends() {
    // Each process lives 3 s: long enough for its step, not for the load of the verification.
    let mut rig = Rig::running("[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '3s'\nexit = 7").await;
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert!(
        told.report.reason.contains("workload/user: exited 2 times with code 7"),
        "{}",
        told.report.reason
    );
    assert_eq!(told.outcome("services:1"), Some(crate::event::Outcome::Success), "{}", told.text());
    let evidence = told.place(|kind| matches!(kind, EventKind::Evidence { what, .. } if what == "replica"));
    let back =
        told.place(|kind| matches!(kind, EventKind::PhaseStarted { phase, .. } if phase == "rollback"));
    assert!(evidence.is_some() && evidence < back, "{}", told.text());
}
