//! Runs that go well, the long way round included.

use insta::assert_snapshot;

use super::rig::Rig;
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::item::{ItemId, ItemKind};
use crate::plan::Selection;
use crate::release::ReleaseState;

#[tokio::test(start_paused = true)]
async fn a_first_deploy_tells_its_story_in_order() {
    let mut rig = Rig::new("");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded);
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
    assert_eq!(rig.sim.world().head, Some(1));
    assert_snapshot!(told.text());
}

#[tokio::test(start_paused = true)]
async fn the_effects_of_a_first_deploy_happen_once_and_in_order() {
    let rig = Rig::running("").await;
    let desired = rig.desired().await;
    let short = |text: String| {
        desired.items.iter().fold(text, |text, item| text.replace(item.digest.short(), "DIGEST"))
    };
    let effects: Vec<String> = rig.sim.world().effect_lines().into_iter().map(short).collect();
    assert_eq!(
        effects,
        [
            "create release 1 (1)",
            "put namespace/shop DIGEST (1)",
            "put secret/jwt DIGEST (1)",
            "put store/db DIGEST (1)",
            "migrate user 0001_step (1)",
            "put workload/user DIGEST, 2 replicas (1)",
            "put workload/catalog DIGEST, 1 replica (1)",
            "put workload/gateway DIGEST, 1 replica (1)",
            "mark release 1 unverified (1)",
            "head release 1 (1)",
            "mark release 1 verified (1)",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_deploy_of_the_same_plans_nothing() {
    let rig = Rig::running("").await;
    assert!(rig.plan().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_changed_service_rolls_while_the_old_one_serves() {
    let mut rig = Rig::running("").await;
    let before = rig.sim.world().effects.len();
    rig.edit("user-1", "user-2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified), (2, ReleaseState::Verified)]);
    assert_eq!(rig.version("user").as_deref(), Some("user-2"));
    let least = told.events.iter().filter_map(|event| match &event.kind {
        EventKind::Workload { item, ready, .. } if item.name == "user" => Some(*ready),
        _ => None,
    });
    assert_eq!(least.min(), Some(2), "both old replicas serve until a new one does");
    let puts =
        rig.sim.world().effects.split_off(before).into_iter().filter(|effect| effect.text.starts_with("put"));
    assert_eq!(puts.count(), 1, "what did not change is not written");
}

#[tokio::test(start_paused = true)]
async fn a_removed_service_goes_last() {
    let mut rig = Rig::running("").await;
    let from = rig_text_of_catalog();
    rig.edit(from, "");
    rig.edit("needs: [user, catalog]", "needs: [user]");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    assert_eq!(told.outcome("services:remove"), Some(Outcome::Success));
    let observed = rig.sim.world().items[&ItemId::workload("catalog")].item.clone();
    assert_eq!(observed, None);
    assert!(rig.plan().await.is_empty());
}

fn rig_text_of_catalog() -> &'static str {
    "  catalog:
    command: [catalog]
    port: 4002
    env: {VERSION: 'catalog-1'}
    health: {check: /health}
    routes: [{path: /api/products}]
"
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried_with_a_growing_pause() {
    let mut rig = Rig::new("[[error]]\nport = 'apply'\nitem = 'user'\ncount = 2");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
    let retries: Vec<(u32, u64)> = told
        .events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Retry { step, attempt, after_ms, .. } if step == "services:1" => {
                Some((*attempt, *after_ms))
            }
            _ => None,
        })
        .collect();
    assert_eq!(retries.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2]);
    assert!(retries[0].1 <= 500 && retries[1].1 <= 1000, "{retries:?}");
    let attempts = told.events.iter().filter_map(|event| match &event.kind {
        EventKind::StepStarted { step, attempt, .. } if step == "services:1" => Some(*attempt),
        _ => None,
    });
    assert_eq!(attempts.collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_stays_ends_the_step_after_its_retries() {
    let mut rig = Rig::new("[[error]]\nport = 'apply'\nitem = 'user'\ncount = 99");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed);
    let retries = told.events.iter().filter(|event| matches!(event.kind, EventKind::Retry { .. })).count();
    assert_eq!(retries, 2, "{}", told.text());
    assert!(
        told.report.reason.contains("apply workload/user: the connection was reset"),
        "{}",
        told.report.reason
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_is_not_retried() {
    let mut rig =
        Rig::new("[[error]]\nport = 'apply'\nitem = 'user'\nkind = 'denied'\nreason = 'no right to do that'");
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed);
    assert!(told.place(|kind| matches!(kind, EventKind::Retry { .. })).is_none(), "{}", told.text());
}

#[tokio::test(start_paused = true)]
async fn blips_of_the_release_store_are_survived() {
    for port in ["create", "mark", "set_head", "list"] {
        let mut rig = Rig::new("");
        let plan = rig.plan().await;
        rig.sim = crate::sim::Sim::from_toml(&format!("[[error]]\nport = '{port}'\ncount = 2")).unwrap();
        let told = rig.carry_out(&plan).await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{port}:\n{}", told.text());
        assert_eq!(rig.releases(), [(1, ReleaseState::Verified)], "{port}");
    }
}

#[tokio::test(start_paused = true)]
async fn broken_streams_and_short_outages_are_survived() {
    for script in [
        "watch = {breaks = ['300ms', '310ms', '900ms', '1500ms']}",
        "[[unavailable]]\nfrom = '700ms'\nuntil = '1100ms'",
        "[[error]]\nport = 'watch'\ncount = 3",
        "watch = {lag = '150ms'}",
    ] {
        let mut rig = Rig::new(script);
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{script}:\n{}", told.text());
        assert!(rig.sim.world().effects.iter().all(|effect| effect.count == 1), "{script}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_phase_alone_leaves_the_others() {
    let mut rig = Rig::new("");
    rig.selection = Selection::Phases(vec!["1".into()]);
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Succeeded);
    let world = rig.sim.world();
    assert!(world.items.keys().all(|id| id.kind != ItemKind::Workload) && world.releases.is_empty());
    rig.selection = Selection::Phases(vec!["applications".into()]);
    assert_eq!(rig.deploy().await.report.outcome, RunOutcome::Succeeded);
    assert_eq!(rig.releases(), [(1, ReleaseState::Unverified)]);
    rig.selection = Selection::Phases(vec!["3".into()]);
    assert_eq!(rig.deploy().await.report.outcome, RunOutcome::Succeeded);
    assert_eq!(rig.releases(), [(1, ReleaseState::Verified)]);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_asked_for_a_moment_says_nothing_against_the_release() {
    for port in ["probe", "scrape"] {
        for (count, outcome) in [(5, RunOutcome::Succeeded), (9_999, RunOutcome::RolledBack)] {
            let mut rig = Rig::running("").await;
            rig.follow(&format!("[[error]]\nport = '{port}'\ncount = {count}"));
            rig.edit("user-1", "user-2");
            let told = rig.deploy().await;
            assert_eq!(told.report.outcome, outcome, "{port}:\n{}", told.text());
            let says = told.report.reason.contains("the connection was reset");
            assert_eq!(says, outcome == RunOutcome::RolledBack, "{}", told.report.reason);
        }
    }
}
