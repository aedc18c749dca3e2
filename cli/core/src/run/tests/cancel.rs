//! Stopping in two tries.

use super::rig::{Rig, Trigger};
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::release::ReleaseState;
use crate::run::{CancelLevel, Canceller};

fn starts(wanted: &'static str) -> impl Fn(&EventKind) -> bool + Send + Sync {
    move |kind| matches!(kind, EventKind::StepStarted { step, .. } if step == wanted)
}

#[tokio::test(start_paused = true)]
async fn the_first_request_lets_the_step_finish() {
    let mut rig = Rig::new("");
    let plan = rig.plan().await;
    let (canceller, token) = Canceller::new();
    let told = rig.carry_out_with(&plan, &token, &Trigger::new(canceller, starts("services:1"))).await;
    assert_eq!(told.report.outcome, RunOutcome::Interrupted, "{}", told.text());
    assert_eq!(told.outcome("services:1"), Some(Outcome::Success));
    assert_eq!(told.outcome("services:gateway"), Some(Outcome::WillNotRun));
    assert_eq!(told.outcome("verified"), Some(Outcome::WillNotRun));
    assert_eq!(rig.releases(), [(1, ReleaseState::Pending)]);
    let resumed = rig.resume(&told.run).await;
    assert_eq!(resumed.report.outcome, RunOutcome::Succeeded, "{}", resumed.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
    assert!(rig.sim.world().effects.iter().all(|effect| effect.count == 1));
}

#[tokio::test(start_paused = true)]
async fn the_second_request_stops_at_the_next_await() {
    let mut rig = Rig::new("[[fault]]\nitem = 'user'\nslow = 100");
    let plan = rig.plan().await;
    let (canceller, token) = Canceller::new();
    canceller.raise(CancelLevel::None);
    let now = canceller.clone();
    let trigger = Trigger::new(canceller, move |kind| {
        let waits = matches!(kind, EventKind::Workload { item, .. } if item.name == "user");
        if waits {
            now.raise(CancelLevel::Now);
        }
        waits
    });
    let told = rig.carry_out_with(&plan, &token, &trigger).await;
    assert_eq!(told.report.outcome, RunOutcome::Interrupted, "{}", told.text());
    assert_eq!(told.outcome("services:1"), Some(Outcome::Aborted));
    assert!(told.elapsed() < 2_000, "{}", told.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pause_before_a_retry_is_no_shelter() {
    let mut rig = Rig::new("[[error]]\nport = 'apply'\nitem = 'user'\ncount = 99");
    let mut plan = rig.plan().await;
    plan.phases.iter_mut().flat_map(|phase| &mut phase.steps).for_each(|step| step.retries = 99);
    let (canceller, token) = Canceller::new();
    let now = canceller.clone();
    let late = |kind: &EventKind| matches!(kind, EventKind::Retry { attempt: 6, .. });
    let trigger = Trigger::new(canceller, move |kind| {
        if late(kind) {
            now.raise(CancelLevel::Now);
        }
        late(kind)
    });
    let told = rig.carry_out_with(&plan, &token, &trigger).await;
    assert_eq!(told.report.outcome, RunOutcome::Interrupted);
    let retried = told.events.iter().find(|event| late(&event.kind)).unwrap().elapsed_ms;
    assert_eq!(told.elapsed(), retried, "{}", told.text());
}

#[tokio::test(start_paused = true)]
async fn a_way_back_is_finished_after_the_first_request_and_resumed_after_the_second() {
    let script = "[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'";
    for level in [CancelLevel::AfterStep, CancelLevel::Now] {
        let mut rig = Rig::running(script).await;
        rig.edit("user-1", "user-2");
        let plan = rig.plan().await;
        let (canceller, token) = Canceller::new();
        let raise = canceller.clone();
        let trigger = Trigger::new(Canceller::default(), move |kind| {
            let back = matches!(kind, EventKind::StepStarted { phase, .. } if phase == "rollback");
            if back {
                raise.raise(level);
            }
            back
        });
        let told = rig.carry_out_with(&plan, &token, &trigger).await;
        if level == CancelLevel::AfterStep {
            assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
        } else {
            assert_eq!(told.report.outcome, RunOutcome::Interrupted, "{}", told.text());
            let resumed = rig.resume(&told.run).await;
            assert_eq!(resumed.report.outcome, RunOutcome::RolledBack, "{}", resumed.text());
        }
        assert_eq!(rig.version("user").as_deref(), Some("user-1"));
        assert_eq!(rig.releases(), [(1, ReleaseState::Verified), (2, ReleaseState::Failed)]);
    }
}
