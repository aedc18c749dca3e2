//! Death at every point: after each journal record and after each effect, then a resume from the journal's text.
//!
//! The end has to be that of the undisturbed run, with each effect as often as there.

use super::rig::Rig;
use crate::event::RunOutcome;
use crate::item::ItemId;
use crate::release::ReleaseState;
use crate::run::journal::{Replay, read};
use crate::sim::KillPoint;

/// One story: a script, whether a first deploy comes before, and what is changed then.
#[derive(Clone, Copy)]
struct Story {
    script: &'static str,
    first: bool,
    change: fn(&mut Rig),
    outcome: RunOutcome,
}

impl Story {
    async fn rig(&self) -> Rig {
        let mut rig = if self.first { Rig::running(self.script).await } else { Rig::new(self.script) };
        (self.change)(&mut rig);
        rig
    }
}

/// What has to be the same in the end.
#[derive(Debug, PartialEq)]
struct End {
    effects: Vec<String>,
    items: Vec<(ItemId, Option<String>, Option<u32>, String)>,
    releases: Vec<(u32, ReleaseState)>,
    head: Option<u32>,
    migrations: usize,
}

fn end(rig: &Rig) -> End {
    let world = rig.sim.world();
    let now = rig.sim.now_ms() + 60_000;
    let items = world.items.iter().map(|(id, item)| {
        let live = item.live(now);
        (
            id.clone(),
            live.digest.map(|d| d.short().to_owned()),
            live.replicas,
            live.status.status.word().to_owned(),
        )
    });
    End {
        effects: world.effect_lines(),
        items: items.collect(),
        releases: rig.releases(),
        head: world.head,
        migrations: world.migrations.values().map(Vec::len).sum(),
    }
}

/// Runs the story once undisturbed, then once for each point at which it can be killed.
async fn survives_every_kill(story: Story) {
    let mut rig = story.rig().await;
    let (records, effects) = (count(&rig), rig.sim.world().effect_count());
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, story.outcome, "{}", told.text());
    let wanted = end(&rig);
    let records = records + 1..=count(&rig);
    let effects = effects + 1..=rig.sim.world().effect_count();
    assert!(records.clone().count() > 10 && effects.clone().count() > 3, "too few points to mean anything");
    let points = records.map(KillPoint::Record).chain(effects.map(KillPoint::Effect));
    for point in points {
        let rig = killed_and_resumed(story, point).await;
        assert_eq!(end(&rig), wanted, "killed at {point:?}");
    }
}

fn count(rig: &Rig) -> u64 {
    rig.sim.world().journals.values().map(Vec::len).sum::<usize>() as u64
}

async fn killed_and_resumed(story: Story, point: KillPoint) -> Rig {
    let mut rig = story.rig().await;
    let plan = rig.plan().await;
    let run = rig.next_run();
    rig.sim.kill_at(point);
    let sim = rig.sim.clone();
    tokio::select! {
        biased;
        () = sim.killed() => {}
        told = rig.carry_out(&plan) => panic!("{point:?} never came:\n{}", told.text()),
    }
    sim.revive();
    let text = sim.journal_text(&run);
    // What a kill in the middle of a write leaves: the rest of a line.
    let torn = format!("{text}{}", &text[..40]);
    assert_eq!(read(&torn), read(&text), "{point:?}");
    let replay = Replay::of(read(&text).unwrap()).unwrap();
    if let Some(outcome) = replay.closed {
        assert_eq!(outcome, story.outcome, "{point:?}: closed");
        return rig;
    }
    let told = rig.resume(&run).await;
    assert_eq!(told.report.outcome, story.outcome, "{point:?}:\n{}", told.text());
    let whole = Replay::of(read(&sim.journal_text(&run)).unwrap()).unwrap();
    assert_eq!(whole.closed, Some(story.outcome), "{point:?}");
    // An effect that happened and was never confirmed is found done; nothing else stays in doubt.
    assert!(whole.in_doubt.len() <= 1, "{point:?}: {:?}", whole.in_doubt);
    rig
}

#[tokio::test(start_paused = true)]
async fn a_first_deploy() {
    survives_every_kill(Story { script: "", first: false, change: |_| {}, outcome: RunOutcome::Succeeded })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_update_with_a_migration() {
    let change = |rig: &mut Rig| {
        rig.edit("user-1", "user-2");
        rig.edit("catalog-1", "catalog-2");
        rig.add_migration();
        rig.add_migration();
    };
    survives_every_kill(Story { script: "", first: true, change, outcome: RunOutcome::Succeeded }).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_rolled_back() {
    let script = "[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'";
    let change = |rig: &mut Rig| {
        rig.edit("user-1", "user-2");
        rig.edit("catalog-1", "catalog-2");
    };
    survives_every_kill(Story { script, first: true, change, outcome: RunOutcome::RolledBack }).await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_takes_the_release_back() {
    let script = "[[fault]]\nitem = 'user'\ncontains = 'user-2'\np99 = '900ms'";
    let change = |rig: &mut Rig| rig.edit("user-1", "user-2");
    survives_every_kill(Story { script, first: true, change, outcome: RunOutcome::RolledBack }).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_deploy_that_fails() {
    let script = "[[fault]]\nitem = 'gateway'\ncrash = '0s'";
    survives_every_kill(Story { script, first: false, change: |_| {}, outcome: RunOutcome::Failed }).await;
}
