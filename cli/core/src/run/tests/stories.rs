//! What is killed: stories with a beginning, an act and an end that has to stay the same.

use super::rig::{Rig, Told, Trigger};
use crate::event::{EventKind, RunOutcome};
use crate::item::ItemId;
use crate::plan::Plan;
use crate::playbook::OnFailure;
use crate::release::ReleaseState;
use crate::run::{CancelLevel, Canceller};

/// What is done in a story.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Deploy,
    Rollback,
    Scale(&'static [(&'static str, u32)]),
    Restart(&'static [&'static str]),
    Down,
}

/// One story.
pub(super) struct Story {
    pub(super) name: &'static str,
    /// How the target behaves.
    script: &'static str,
    /// How it behaves from the last of the deploys before on; as always when absent.
    then: Option<&'static str>,
    /// Changes that were deployed before, each with success; none = the target is empty.
    before: &'static [fn(&mut Rig)],
    /// What is changed for the act.
    change: fn(&mut Rig),
    act: Act,
    /// The phase and step at whose start somebody wants to stop, and how urgently.
    cancel: Option<(&'static str, &'static str, CancelLevel)>,
    /// How it ends, when nobody stops it for good.
    pub(super) outcome: RunOutcome,
    /// Points at least at which it can be killed: fewer would mean nothing.
    pub(super) points: usize,
    /// True for stories that are also killed while they are carried on.
    pub(super) twice: bool,
}

const NOTHING: fn(&mut Rig) = |_| {};

const USER: fn(&mut Rig) = |rig| rig.edit("user-1", "user-2");

const BOTH: fn(&mut Rig) = |rig| {
    rig.edit("user-1", "user-2");
    rig.edit("catalog-1", "catalog-2");
};

const BOTH_AND_MIGRATIONS: fn(&mut Rig) = |rig| {
    BOTH(rig);
    rig.add_migration();
    rig.add_migration();
};

const BOTH_TOLD_TO_STOP: fn(&mut Rig) = |rig| {
    BOTH(rig);
    rig.on_failure = Some(OnFailure::Stop);
};

const CRASHES: &str = "[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'";

const UPDATE: Story = Story {
    name: "an update",
    script: "",
    then: None,
    before: &[NOTHING],
    change: BOTH,
    act: Act::Deploy,
    cancel: None,
    outcome: RunOutcome::Succeeded,
    points: 60,
    twice: false,
};

/// Every story; the second one is the plainest that has each kind of effect.
pub(super) static ALL: [Story; 20] = [
    Story { name: "a first deploy", before: &[], change: NOTHING, ..UPDATE },
    Story { name: "an update with migrations", change: BOTH_AND_MIGRATIONS, twice: true, ..UPDATE },
    Story {
        name: "an update that is rolled back",
        script: CRASHES,
        outcome: RunOutcome::RolledBack,
        points: 40,
        twice: true,
        ..UPDATE
    },
    Story {
        name: "a gate that takes the release back",
        script: "[[fault]]\nitem = 'user'\ncontains = 'user-2'\np99 = '900ms'",
        change: USER,
        outcome: RunOutcome::RolledBack,
        points: 60,
        twice: true,
        ..UPDATE
    },
    Story {
        name: "a first deploy that fails",
        script: "[[fault]]\nitem = 'gateway'\ncrash = '0s'",
        before: &[],
        change: NOTHING,
        outcome: RunOutcome::Failed,
        ..UPDATE
    },
    Story {
        name: "an update that fails and is told to stop",
        script: CRASHES,
        change: BOTH_TOLD_TO_STOP,
        outcome: RunOutcome::Failed,
        points: 25,
        ..UPDATE
    },
    Story {
        name: "a gate that says no and is told to stop",
        script: "[[fault]]\nitem = 'user'\ncontains = 'user-2'\nhealth = 503",
        change: BOTH_TOLD_TO_STOP,
        outcome: RunOutcome::GateFailed,
        points: 40,
        ..UPDATE
    },
    Story {
        name: "a gate that cannot tell",
        then: Some("load = {late = true}"),
        outcome: RunOutcome::GateInconclusive,
        points: 50,
        ..UPDATE
    },
    Story {
        name: "a way back that fails",
        // The first write to the user service is the one forward.
        then: Some(concat!(
            "[[fault]]\nitem = 'user'\ncontains = 'user-2'\ncrash = '0s'\n",
            "[[fault]]\nitem = 'user'\ncontains = 'user-1'\ncrash = '0s'"
        )),
        change: USER,
        outcome: RunOutcome::RollbackFailed,
        points: 30,
        ..UPDATE
    },
    Story {
        name: "a rollback",
        before: &[NOTHING, BOTH],
        change: NOTHING,
        act: Act::Rollback,
        points: 40,
        twice: true,
        ..UPDATE
    },
    Story {
        name: "a rollback that fails",
        then: Some("[[fault]]\nitem = 'user'\ncontains = 'user-1'\ncrash = '0s'"),
        before: &[NOTHING, BOTH],
        change: NOTHING,
        act: Act::Rollback,
        outcome: RunOutcome::Failed,
        points: 15,
        ..UPDATE
    },
    Story {
        name: "a scale",
        change: NOTHING,
        act: Act::Scale(&[("user", 4), ("catalog", 1)]),
        points: 12,
        twice: true,
        ..UPDATE
    },
    Story {
        name: "a restart",
        change: NOTHING,
        act: Act::Restart(&["user", "catalog", "gateway"]),
        points: 25,
        twice: true,
        ..UPDATE
    },
    Story { name: "an end of everything", change: NOTHING, act: Act::Down, points: 25, ..UPDATE },
    Story {
        name: "an update that is asked to stop after a step",
        cancel: Some(("applications", "services:1", CancelLevel::AfterStep)),
        points: 25,
        ..UPDATE
    },
    Story {
        name: "an update that is told to stop at once",
        cancel: Some(("applications", "services:1", CancelLevel::Now)),
        points: 15,
        ..UPDATE
    },
    Story {
        name: "a rollback that is told to stop at once",
        before: &[NOTHING, BOTH],
        change: NOTHING,
        act: Act::Rollback,
        cancel: Some(("applications", "services:1", CancelLevel::Now)),
        points: 5,
        ..UPDATE
    },
    Story {
        name: "a way back that somebody asks to stop",
        script: CRASHES,
        outcome: RunOutcome::RolledBack,
        cancel: Some(("rollback", "rollback:user+catalog", CancelLevel::AfterStep)),
        points: 40,
        ..UPDATE
    },
    Story {
        name: "a way back that is told to stop at once",
        script: CRASHES,
        outcome: RunOutcome::RolledBack,
        cancel: Some(("rollback", "rollback:user+catalog", CancelLevel::Now)),
        points: 25,
        ..UPDATE
    },
    Story {
        name: "an update on a target with blips",
        then: Some(concat!(
            "[[error]]\nport = 'apply'\nitem = 'user'\ncount = 2\n",
            "[[error]]\nport = 'mark'\ncount = 2\n[[error]]\nport = 'probe'\ncount = 1"
        )),
        change: BOTH_AND_MIGRATIONS,
        ..UPDATE
    },
];

impl Story {
    /// Returns the target as it is before the act.
    pub(super) async fn rig(&self) -> Rig {
        let mut rig = Rig::new(self.script);
        for change in self.before {
            change(&mut rig);
            let told = rig.deploy().await;
            assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}: {}", self.name, told.text());
        }
        if let Some(script) = self.then {
            rig.follow(script);
        }
        (self.change)(&mut rig);
        rig
    }

    pub(super) async fn plan(&self, rig: &Rig) -> Plan {
        match self.act {
            Act::Deploy => rig.plan().await,
            Act::Rollback => rig.plan_rollback().await,
            Act::Scale(counts) => rig.plan_scale(counts).await,
            Act::Restart(services) => rig.plan_restart(services).await,
            Act::Down => rig.plan_down().await,
        }
    }

    /// Carries the plan out, with somebody who wants to stop it where the story has one.
    pub(super) async fn begin(&self, rig: &mut Rig, plan: &Plan) -> Told {
        let Some((phase, step, level)) = self.cancel else { return rig.carry_out(plan).await };
        let (canceller, token) = Canceller::new();
        let wanted = move |kind: &EventKind| {
            let starts =
                matches!(kind, EventKind::StepStarted { phase: p, step: s, .. } if p == phase && s == step);
            if starts {
                canceller.raise(level);
            }
            starts
        };
        rig.carry_out_with(plan, &token, &Trigger::new(Canceller::default(), wanted)).await
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.cancel.is_some()
    }
}

/// What has to be the same in the end.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    effects: Vec<String>,
    items: Vec<(ItemId, Option<String>, Option<u32>, String)>,
    releases: Vec<(u32, ReleaseState)>,
    head: Option<u32>,
    migrations: usize,
}

pub(super) fn end(rig: &Rig) -> End {
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
