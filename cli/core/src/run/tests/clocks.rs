//! The clocks of the engine: per item, step, phase and run; and the window in which things have to stay good.

use std::time::Duration;

use super::rig::{Rig, Told};
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
    assert!(
        told.report
            .reason
            .starts_with("apply user, catalog: workload/user: no progress for 30 s, from 2026-01-01T00:00:0")
            && told.report.reason.ends_with(": running, and not ready: its readiness probe says no"),
        "{}",
        told.report.reason
    );
    assert_eq!(clock_times(&told.report.reason), 30);
    let took = told.took("services:1");
    assert!((30_000..31_500).contains(&took), "{took} ms");
}

/// Returns the seconds between the two times that a reason names.
fn clock_times(reason: &str) -> i64 {
    let time = |before: &str| {
        let rest = &reason[reason.find(before).unwrap_or_else(|| panic!("{reason}")) + before.len()..];
        let end = rest.find('Z').unwrap() + 1;
        rest[..end].parse::<jiff::Timestamp>().unwrap().as_second()
    };
    time(" until ") - time(" from ")
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
        "apply user, catalog: the step clock, which ran from 2026-01-01T00:00:02Z until 2026-01-01T00:00:06Z, ran out \
         while waiting for user: 0 of 2 replicas ready, running, and not ready: its readiness probe says no"
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
    let reason = &told.report.reason;
    assert!(reason.contains(": the phase clock, which ran from 2026-01-01T00:00:0"), "{reason}");
    assert!(reason.contains("ran out while waiting for user: 0 of 2 replicas ready"), "{reason}");
    assert_eq!(clock_times(reason), 5);
    let took = told.state().phases["applications"].took_ms;
    assert_eq!(took, 5_000);
}

#[tokio::test(start_paused = true)]
async fn the_total_clock_runs_over_all_phases() {
    let mut rig = Rig::new(NEVER);
    rig.total = Some(Duration::from_secs(6));
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::TimedOut);
    let reason = &told.report.reason;
    let clock = "the run clock, which ran from 2026-01-01T00:00:00Z until 2026-01-01T00:00:06Z, ran out";
    assert!(reason.contains(clock), "{reason}");
    assert!(reason.contains("while waiting for user: 0 of 2 replicas ready"), "{reason}");
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

/// Carries a plan out in a process that does not run for a while, some time after it began. Returns besides the run
/// what its journal and the world were when it fell asleep.
async fn asleep(rig: &mut Rig, plan: &Plan, after: Duration, time: Duration) -> (Told, String, Vec<String>) {
    let (sim, run) = (rig.sim.clone(), rig.next_run());
    let sleep = async {
        tokio::time::sleep(after).await;
        let before = (sim.journal_text(&run), sim.world().effect_lines());
        tokio::time::advance(time).await;
        before
    };
    let (told, (journal, effects)) = tokio::join!(rig.carry_out(plan), sleep);
    (told, journal, effects)
}

#[tokio::test(start_paused = true)]
async fn a_sleep_is_neither_a_standstill_nor_a_calm() {
    for time in [8, 40, 300].map(Duration::from_secs) {
        // The rollout is over long before the run looks again; its progress deadline, 30 s, is over too.
        let mut rig = Rig::running("[[fault]]\nitem = 'user'\ncontains = 'user-2'\nslow = 6").await;
        rig.edit("user-1", "user-2");
        let plan = rig.plan().await;
        let (told, ..) = asleep(&mut rig, &plan, Duration::from_secs(2), time).await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{time:?}\n{}", told.text());
        assert!(u128::from(told.elapsed()) > time.as_millis(), "it slept: {}", told.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_wakes_without_its_lease_writes_nothing_more() {
    // At every moment of the run: in a write, a wait, a gate, a mark.
    for after in (1..60).map(|tenths| Duration::from_millis(tenths * 150)) {
        let mut rig = Rig::running("lease = {lost-at = '60s'}").await;
        rig.edit("user-1", "user-2");
        let plan = rig.plan().await;
        let releases = rig.releases();
        let (told, journal, effects) = asleep(&mut rig, &plan, after, Duration::from_secs(300)).await;
        let run = told.run.clone();
        if told.report.outcome == RunOutcome::Succeeded {
            assert!(after > Duration::from_secs(8), "{after:?}: it was over by then\n{}", told.text());
            continue;
        }
        assert_eq!(told.report.outcome, RunOutcome::LeaseLost, "{after:?}\n{}", told.text());
        assert!(told.report.reason.contains("this run had not renewed it for 30"), "{}", told.report.reason);
        assert_eq!(rig.sim.world().effect_lines(), effects, "{after:?}: an effect after it woke");
        let since: Vec<String> =
            rig.sim.journal_text(&run)[journal.len()..].lines().map(str::to_owned).collect();
        // What was done before it fell asleep may be told; nothing new is begun.
        let fine = |line: &String| line.contains("\"record\":\"effect_done\"");
        assert!(since.iter().all(fine), "{after:?}: {since:#?}");
        assert!(rig.releases().len() <= releases.len() + 1);
    }
}
