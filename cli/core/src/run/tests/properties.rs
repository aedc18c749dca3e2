//! What holds of every run, whatever the target does, whoever stops it and however often its process dies.
//!
//! Each case draws a script (faults, refused calls, outages, a lost lease, a full journal), wishes to stop at some
//! time, and deaths at some point; the run is carried on until it ends.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::kills::{doubts, doubts_told, is_open, mark};
use super::rig::{Rig, Told};
use crate::event::{Event, EventKind, Outcome, Recorder, RunOutcome};
use crate::playbook::OnFailure;
use crate::ports::Orchestrator as _;
use crate::release::ReleaseState;
use crate::run::journal::{Entry, Replay, read};
use crate::run::{CancelLevel, CancelToken, Canceller};
use crate::sim::KillPoint;

/// What a journal that is full says; such a run cannot record how it ended.
const FULL: &str = "append to the journal";

#[derive(Debug, Clone)]
struct Drawn {
    /// Services and migrations that change; none of them = a first deploy.
    changes: Option<(bool, bool, bool)>,
    stop: bool,
    faults: Vec<(&'static str, &'static str)>,
    errors: Vec<(&'static str, u32, u32, &'static str)>,
    outage: Option<(u64, u64)>,
    lag: bool,
    lost_at: Option<u64>,
    full_at: Option<u64>,
    /// When somebody wants to stop, in milliseconds, and how urgently.
    cancels: Vec<(u64, CancelLevel)>,
    /// Deaths, one a process: the kind of point, and which of them.
    kills: Vec<(u8, u64)>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let rarely = |one: std::ops::Range<u64>| prop::option::weighted(0.12, one);
    let level = prop::sample::select(vec![CancelLevel::AfterStep, CancelLevel::Now]);
    let faults = (prop::sample::select(ITEMS.to_vec()), prop::sample::select(FAULTS.to_vec()));
    let errors = (
        prop::sample::select(PORTS.to_vec()),
        0_u32..4,
        1_u32..5,
        prop::sample::select(vec!["unavailable", "timeout", "denied", "conflict", "invalid"]),
    );
    (
        (prop::option::weighted(0.8, any::<(bool, bool, bool)>()), prop::bool::weighted(0.2)),
        prop::collection::vec(faults, 0..3),
        prop::collection::vec(errors, 0..3),
        (prop::option::weighted(0.2, (0_u64..9_000, 1_u64..4_000)), prop::bool::weighted(0.15)),
        (rarely(0..12_000), rarely(1..60)),
        prop::collection::vec((0_u64..14_000, level), 0..3),
        prop::collection::vec((0_u8..3, 1_u64..40), 0..3),
    )
        .prop_map(
            |((changes, stop), faults, errors, (outage, lag), (lost_at, full_at), cancels, kills)| Drawn {
                changes,
                stop,
                faults,
                errors,
                outage,
                lag,
                lost_at,
                full_at,
                cancels,
                kills,
            },
        )
}

const ITEMS: [&str; 5] = [
    "item = 'user'\ncontains = 'user-2'",
    "item = 'catalog'\ncontains = 'catalog-2'",
    "item = 'user'",
    "item = 'gateway'",
    "item = 'store/db'",
];

const FAULTS: [&str; 10] = [
    "crash = '0s'",
    "crash = '3s'",
    "never-ready = true",
    "slow = 20",
    "flaps = 3",
    "health = 503",
    "p99 = '900ms'",
    "errors = '5%'",
    "series-missing = ['logins_total']",
    "cause = {after = '2s', code = 'gone', text = 'it is gone', terminal = true}",
];

const PORTS: [&str; 18] = [
    "apply",
    "observe",
    "watch",
    "create",
    "mark",
    "set_head",
    "list",
    "migrate",
    "migrations",
    "probe",
    "scrape",
    "load",
    "renew",
    "release",
    "replicas",
    "logs",
    "events",
    "address",
];

impl Drawn {
    /// Returns the script of the target from a time on, for journals that hold so many records by then.
    fn script(&self, now: u64, records: u64) -> String {
        let mut script = String::new();
        let ms = |at: u64| format!("'{}ms'", now + at);
        if let Some(at) = self.full_at {
            script += &format!("journal = {{fails-at = {}}}\n", records + at);
        }
        if let Some(at) = self.lost_at {
            script += &format!("lease = {{lost-at = {}}}\n", ms(at));
        }
        if self.lag {
            script += &format!("watch = {{lag = '700ms', breaks = [{}, {}]}}\n", ms(600), ms(2_500));
        }
        if let Some((from, long)) = self.outage {
            script += &format!("[[unavailable]]\nfrom = {}\nuntil = {}\n", ms(from), ms(from + long));
        }
        for (item, fault) in &self.faults {
            script += &format!("[[fault]]\n{item}\n{fault}\n");
        }
        for (port, skip, count, kind) in &self.errors {
            script +=
                &format!("[[error]]\nport = '{port}'\nskip = {skip}\ncount = {count}\nkind = '{kind}'\n");
        }
        script
    }

    /// Returns the target before the run, and what is to be done.
    async fn rig(&self) -> Rig {
        let mut rig = Rig::new("");
        if let Some((user, catalog, migration)) = self.changes {
            assert_eq!(rig.deploy().await.report.outcome, RunOutcome::Succeeded);
            if user {
                rig.edit("user-1", "user-2");
            }
            if catalog {
                rig.edit("catalog-1", "catalog-2");
            }
            if migration {
                rig.add_migration();
                rig.add_migration();
            }
        }
        rig.on_failure = self.stop.then_some(OnFailure::Stop);
        rig
    }
}

/// One process of a run: what it told, and how it ended, unless it died.
struct Process {
    events: Vec<Event>,
    told: Option<Told>,
}

async fn process(
    rig: &mut Rig,
    begin: Begin<'_>,
    kill: Option<KillPoint>,
    cancels: &[(u64, CancelLevel)],
) -> Process {
    let recorder = Recorder::default();
    let (canceller, token) = Canceller::new();
    // A point that never comes is none.
    rig.sim.kill_at(kill.unwrap_or(KillPoint::Record(u64::MAX)));
    let sim = rig.sim.clone();
    let wishes = async {
        let began = tokio::time::Instant::now();
        for (at, level) in cancels {
            tokio::time::sleep_until(began + Duration::from_millis(*at)).await;
            canceller.raise(*level);
        }
        std::future::pending::<()>().await;
    };
    let told = tokio::select! {
        biased;
        () = sim.killed() => None,
        told = begin.go(rig, &token, &recorder) => Some(told),
        () = wishes => None,
    };
    if told.is_none() {
        sim.revive();
    }
    Process { events: recorder.events(), told }
}

/// How a process comes to its run.
enum Begin<'a> {
    First(&'a crate::plan::Plan),
    Resume(&'a str),
}

impl Begin<'_> {
    async fn go(self, rig: &mut Rig, cancel: &CancelToken, sink: &Recorder) -> Told {
        match self {
            Self::First(plan) => rig.carry_out_with(plan, cancel, sink).await,
            Self::Resume(run) => rig.resume_with(run, cancel, sink).await,
        }
    }
}

/// What the events of a run, all its processes together, say that a journal has to say too.
#[derive(Debug, Default)]
struct Live {
    done: BTreeSet<String>,
    goes_back: bool,
}

impl Live {
    fn take(&mut self, events: &[Event], skipped: &BTreeSet<&str>) {
        for event in events {
            match &event.kind {
                EventKind::StepFinished { step, outcome, note, .. }
                    if !skipped.contains(step.as_str()) && !note.contains(FULL) =>
                {
                    self.record(step, *outcome);
                }
                EventKind::PhaseStarted { phase, .. } if phase == "rollback" => self.goes_back = true,
                _ => {}
            }
        }
    }

    fn record(&mut self, step: &str, outcome: Outcome) {
        match outcome {
            Outcome::WillNotRun => {}
            outcome if outcome.lets_go_on() => drop(self.done.insert(step.to_owned())),
            _ => drop(self.done.remove(step)),
        }
    }
}

async fn plays(drawn: &Drawn) {
    let mut rig = drawn.rig().await;
    let plan = rig.plan().await;
    let run = rig.next_run();
    let began = mark(&rig);
    let effects = rig.sim.world().effects;
    let script = drawn.script(rig.sim.now_ms(), began.records);
    rig.follow(&script);
    let skipped: BTreeSet<&str> =
        plan.steps().filter(|(_, step)| step.skip.is_some()).map(|(_, step)| step.id.as_str()).collect();
    let mut live = Live::default();
    let mut kills = drawn.kills.iter();
    let mut begin = Begin::First(&plan);
    let mut cancels = &drawn.cancels[..];
    let last = loop {
        let here = mark(&rig);
        let kill = kills.next().map(|(kind, nth)| match kind {
            0 => KillPoint::Record(here.records + nth),
            1 => KillPoint::Append(here.records + nth),
            _ => KillPoint::Effect(here.effects + nth),
        });
        let owed = doubts(&read(&rig.sim.journal_text(&run)).unwrap());
        let Process { events, told } = process(&mut rig, begin, kill, cancels).await;
        let ends = events.iter().filter(|event| matches!(event.kind, EventKind::RunFinished { .. })).count();
        assert_eq!(ends, usize::from(told.is_some()), "{script}");
        live.take(&events, &skipped);
        if let Some(told) = &told {
            // A journal that cannot be opened is all there is to tell.
            let begun = told.place(|kind| matches!(kind, EventKind::RunStarted { .. })).is_some();
            let owed = if begun { owed } else { Vec::new() };
            assert_eq!(doubts_told(told), owed, "{script}{}", told.text());
        }
        let is_full = drawn.full_at.is_some_and(|at| mark(&rig).records + 1 >= began.records + at);
        check_journal(&rig, &run, &mut live, (told.as_ref(), is_full), &script);
        check_intents(&rig, &run, effects.len());
        let goes_on = told.as_ref().is_none_or(|told| told.report.outcome == RunOutcome::Interrupted);
        if !goes_on || !is_open(&rig, &run) || !is_free(&rig).await {
            break told;
        }
        (begin, cancels) = (Begin::Resume(&run), &[]);
    };
    check_end(rig, last, &script).await;
}

/// Waits until the lease can be had; says no when the script has given it to somebody else.
async fn is_free(rig: &Rig) -> bool {
    loop {
        // The question itself lets the script take it away.
        let holder = rig.sim.lock_holder().await;
        let is_dead = rig.sim.world().lease.is_some_and(|held| held.dead);
        match holder {
            Ok(Some(holder)) if !is_dead && holder.request.run == "another-run" => return false,
            Ok(holder) if is_dead || holder.is_none() => return true,
            // Not given back, or out of reach: time helps.
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// The journal, folded, says what the events say, folded. It may be ahead by what a process did not live to tell.
fn check_journal(
    rig: &Rig,
    run: &str,
    live: &mut Live,
    (told, is_full): (Option<&Told>, bool),
    script: &str,
) {
    let records = read(&rig.sim.journal_text(run)).unwrap();
    let Some(last) = records.last().map(|record| record.entry.clone()) else {
        assert!(live.done.is_empty() && !live.goes_back, "{script}");
        return;
    };
    let replay = Replay::of(records).unwrap();
    let Some(told) = told else {
        match &last {
            Entry::StepDone { step, outcome, .. } => live.record(step, *outcome),
            Entry::RollbackDecided { .. } => live.goes_back = true,
            _ => {}
        }
        assert_eq!(replay.done, live.done, "{script}");
        // The mark of the failed release lies between the decision and the first event about it.
        assert!(replay.rolling_back.is_some() || !live.goes_back, "{script}");
        live.goes_back = replay.rolling_back.is_some();
        return;
    };
    assert_eq!(replay.done, live.done, "{script}{}", told.text());
    assert_eq!(replay.rolling_back.is_some(), live.goes_back, "{script}{}", told.text());
    if is_full {
        // It has no room for how the run ended.
        return;
    }
    let closed = match told.report.outcome {
        RunOutcome::LeaseLost => None,
        RunOutcome::Interrupted => {
            assert_eq!(last, Entry::Interrupted, "{script}{}", told.text());
            None
        }
        outcome => Some(outcome),
    };
    assert_eq!(replay.closed, closed, "{script}{}", told.text());
}

/// Nothing was written to the target that the journal had not announced.
fn check_intents(rig: &Rig, run: &str, before: usize) {
    let records = read(&rig.sim.journal_text(run)).unwrap();
    let intents: BTreeSet<&str> = records
        .iter()
        .filter_map(|record| match &record.entry {
            Entry::EffectIntent { effect, .. } => Some(effect.as_str()),
            _ => None,
        })
        .collect();
    let effects = rig.sim.world().effects.split_off(before);
    for effect in effects.iter().filter(|effect| effect.text.starts_with("put ")) {
        let known = intents.contains(effect.text.as_str());
        assert!(known, "{} was not announced: {intents:?}", effect.text);
    }
}

/// What an outcome promises about the target.
async fn check_end(mut rig: Rig, last: Option<Told>, script: &str) {
    let Some(told) = last else { return };
    let effects = rig.sim.world().effect_count();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(rig.sim.world().effect_count(), effects, "somebody still writes:\n{script}{}", told.text());
    let (outcome, world) = (told.report.outcome, rig.sim.world());
    rig.follow("");
    match outcome {
        RunOutcome::Succeeded => {
            let plan = rig.plan().await;
            assert!(
                plan.is_empty(),
                "the plan after a success: {:?}\n{script}",
                plan.changes().collect::<Vec<_>>()
            );
        }
        RunOutcome::RolledBack => {
            let head = world.releases.iter().find(|release| Some(release.number) == world.head).unwrap();
            assert_eq!(head.state, ReleaseState::Verified, "{script}{}", told.text());
            for item in
                head.desired.items.iter().filter(|item| item.id.kind == crate::item::ItemKind::Workload)
            {
                let live = world.live(&item.id, rig.sim.now_ms());
                assert_eq!(live.digest.as_ref(), Some(&item.digest), "{script}{}", told.text());
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_run_ends_once_and_its_journal_tells_the_same_story(drawn in drawn()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(plays(&drawn));
    }
}
