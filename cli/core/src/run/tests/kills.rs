//! Death at every point: before and after each journal record, after each effect, then a resume from the mirror's
//! text alone.
//!
//! The end has to be that of the undisturbed run, with each effect as often as there, and what was begun and never
//! confirmed has to be told as in doubt, in so many words and nothing else.

use std::collections::BTreeSet;

use super::rig::{Rig, Told};
use super::stories::{ALL, End, Story, end};
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::plan::Plan;
use crate::run::journal::{Entry, Record, Replay, read};
use crate::sim::{KillPoint, Sim};

/// How far a target is: its journal records and its effects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) records: u64,
    pub(super) effects: u64,
}

pub(super) fn mark(rig: &Rig) -> Mark {
    let world = rig.sim.world();
    Mark {
        records: world.journals.values().map(Vec::len).sum::<usize>() as u64,
        effects: world.effect_count(),
    }
}

impl Mark {
    /// Returns every point at which a process can die that brings a target from here to there.
    pub(super) fn points_to(self, there: Self) -> Vec<KillPoint> {
        let records = self.records + 1..=there.records;
        let effects = self.effects + 1..=there.effects;
        let appends = records.clone().map(KillPoint::Append);
        appends.chain(records.map(KillPoint::Record)).chain(effects.map(KillPoint::Effect)).collect()
    }
}

/// A story about to begin: each try begins from a copy of the same target.
pub(super) struct Scene<'a> {
    story: &'a Story,
    rig: Rig,
    plan: Plan,
    run: String,
    /// What the end has to be like.
    wanted: End,
    /// Every point at which it can be killed.
    points: Vec<KillPoint>,
}

impl<'a> Scene<'a> {
    /// Plays a story to its end without a kill.
    async fn of(story: &'a Story) -> Self {
        let rig = story.rig().await;
        let (plan, run, before) = (story.plan(&rig).await, rig.next_run(), mark(&rig));
        let mut quiet = rig.fork();
        let told = quiet.carry_out(&plan).await;
        assert_eq!(told.report.outcome, story.outcome, "{}: {}", story.name, told.text());
        assert_eq!(doubts_told(&told), Vec::<String>::new(), "{}", story.name);
        let wanted = end(&quiet);
        let mut points = before.points_to(mark(&quiet));
        if story.is_stopped() {
            let mut stopped = rig.fork();
            let told = story.begin(&mut stopped, &plan).await;
            points = before.points_to(mark(&stopped));
            if told.report.outcome == RunOutcome::Interrupted {
                let told = stopped.resume(&run).await;
                assert_eq!(told.report.outcome, story.outcome, "{}: {}", story.name, told.text());
            }
            assert_eq!(end(&stopped), wanted, "{}: stopped and carried on", story.name);
        }
        assert!(points.len() >= story.points, "{}: {} points", story.name, points.len());
        Self { story, rig, plan, run, wanted, points }
    }

    /// Begins and dies at a point; the target is then ready for the next process.
    async fn killed(&self, point: KillPoint) -> Rig {
        let mut rig = self.rig.fork();
        let sim = rig.sim.clone();
        dies(&sim, self.story.name, point, self.story.begin(&mut rig, &self.plan)).await;
        check_copies(&rig, &self.run, point);
        rig
    }

    /// Dies again at a point while the run is carried on.
    async fn killed_again(&self, rig: &Rig, point: KillPoint) -> Rig {
        let mut rig = rig.fork();
        let sim = rig.sim.clone();
        dies(&sim, self.story.name, point, rig.resume(&self.run)).await;
        check_copies(&rig, &self.run, point);
        rig
    }

    /// Carries on what was cut off and checks how it ends. One that never reached the mirror begins anew, and one
    /// that is over stays as it is.
    async fn finish(&self, rig: &mut Rig, killed: &[KillPoint]) {
        let (story, mut run) = (self.story, self.run.clone());
        let at = format!("{}: killed at {killed:?}", story.name);
        let text = rig.sim.journal_text(&run);
        if text.is_empty() {
            let told = rig.carry_out(&self.plan).await;
            assert_eq!(told.report.outcome, story.outcome, "{at}:\n{}", told.text());
            run = told.run;
        } else if is_open(rig, &run) {
            let owed = doubts(&read(&text).unwrap());
            let told = rig.resume(&run).await;
            assert_eq!(told.report.outcome, story.outcome, "{at}:\n{}", told.text());
            assert_eq!(doubts_told(&told), owed, "{at}:\n{}", told.text());
        }
        let text = rig.sim.journal_text(&run);
        // Only the record that closes a run may be missing at home for good: nothing is carried on after it.
        let home = rig.home.text(&run);
        let missing =
            text.strip_prefix(&home).unwrap_or_else(|| panic!("{at}: home has what the mirror lacks"));
        assert!(
            missing.lines().all(|line| line.contains("\"record\":\"closed\"")),
            "{at}: home lacks {missing}"
        );
        let whole = Replay::of(read(&text).unwrap()).unwrap();
        assert_eq!(whole.closed, Some(story.outcome), "{at}");
        assert_eq!(confirmed_again(&whole.records), Vec::<&str>::new(), "{at}");
        // A way back does not finish what the way forward began.
        let allowed = usize::from(story.outcome != RunOutcome::Succeeded);
        assert!(whole.in_doubt.len() <= allowed, "{at}: {:?}", whole.in_doubt);
        assert_eq!(end(rig), self.wanted, "{at}");
    }
}

/// Lets a process die at a point of its run; the target is then ready for the next one.
async fn dies(sim: &Sim, what: &str, point: KillPoint, run: impl Future<Output = Told>) {
    sim.kill_at(point);
    tokio::select! {
        biased;
        () = sim.killed() => {}
        told = run => panic!("{what}: {point:?} never came:\n{}", told.text()),
    }
    sim.revive();
}

/// Checks what the two copies of a journal look like after a death: alike, or the mirror is ahead by the record that
/// home did not live to take.
pub(super) fn check_copies(rig: &Rig, run: &str, point: KillPoint) {
    let (home, mirror) = (rig.home.text(run), rig.sim.journal_text(run));
    let ahead =
        mirror.strip_prefix(&home).unwrap_or_else(|| panic!("{point:?}: home has what the mirror lacks"));
    assert_eq!(ahead.lines().count(), usize::from(matches!(point, KillPoint::Record(_))), "{point:?}");
}

/// Returns the warnings that a resume owes: one for each effect begun that neither its own record nor the good end
/// of its step confirms, in the order of the last try.
pub(super) fn doubts(records: &[Record]) -> Vec<String> {
    let open = records.iter().enumerate().filter_map(|(at, record)| {
        let Entry::EffectIntent { step, effect, .. } = &record.entry else { return None };
        let settles = |later: &Record| match &later.entry {
            Entry::EffectDone { effect: done, .. } | Entry::EffectIntent { effect: done, .. } => {
                done == effect
            }
            Entry::StepDone { step: ended, outcome, .. } => {
                ended == step && matches!(outcome, Outcome::Success | Outcome::Skipped)
            }
            _ => false,
        };
        (!records[at + 1..].iter().any(settles)).then(|| doubt(effect))
    });
    open.collect()
}

/// Returns the effects that a journal confirms more than once. Restarts and removals are not looked for: no status
/// shows a restart, nor a removal that the target has not noticed yet. The target itself does both only once, which
/// is what the count of its effects says.
fn confirmed_again(records: &[Record]) -> Vec<&str> {
    let done = records.iter().filter_map(|record| match &record.entry {
        Entry::EffectDone { effect, .. } => Some(effect.as_str()),
        _ => None,
    });
    let mut seen = BTreeSet::new();
    let shows = |effect: &&str| !effect.starts_with("restart ") && !effect.starts_with("remove ");
    done.filter(shows).filter(|effect| !seen.insert(*effect)).collect()
}

fn doubt(effect: &str) -> String {
    format!("in doubt since the interruption: {effect}; it is probed before it is done again")
}

/// Returns what a run told to be in doubt.
pub(super) fn doubts_told(told: &Told) -> Vec<String> {
    let warnings = told.events.iter().filter_map(|event| match &event.kind {
        EventKind::Warning { text } if text.starts_with("in doubt") => Some(text.clone()),
        _ => None,
    });
    warnings.collect()
}

/// Says whether the mirror holds a run that is not over.
pub(super) fn is_open(rig: &Rig, run: &str) -> bool {
    let text = rig.sim.journal_text(run);
    text.lines().next_back().is_some_and(|last| !last.contains("\"record\":\"closed\""))
}

#[tokio::test(start_paused = true)]
async fn every_story_survives_a_kill_at_every_point() {
    for story in &ALL {
        let scene = Scene::of(story).await;
        for point in &scene.points {
            let mut rig = scene.killed(*point).await;
            scene.finish(&mut rig, &[*point]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_killed_twice_ends_as_if_it_never_was() {
    // Of so many points of the second process one is tried after each point of the first, each time another.
    const STRIDE: usize = 29;
    for story in ALL.iter().filter(|story| story.twice) {
        let scene = Scene::of(story).await;
        for (nth, first) in scene.points.iter().enumerate() {
            let killed = scene.killed(*first).await;
            if !is_open(&killed, &scene.run) {
                continue;
            }
            let mut once = killed.fork();
            scene.finish(&mut once, &[*first]).await;
            let again = mark(&killed).points_to(mark(&once)).into_iter().enumerate();
            for (_, second) in again.filter(|(at, _)| (nth + at).is_multiple_of(STRIDE)) {
                let mut rig = scene.killed_again(&killed, second).await;
                scene.finish(&mut rig, &[*first, second]).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_is_in_doubt_from_its_intent_until_it_is_confirmed() {
    let scene = Scene::of(&ALL[1]).await;
    let mut doubted = Vec::new();
    for point in &scene.points {
        let mut rig = scene.killed(*point).await;
        let text = rig.sim.journal_text(&scene.run);
        let records = read(&text).unwrap();
        // What a kill in the middle of a write leaves: the beginning of a line.
        let torn = format!("{text}{}", text.get(..40).unwrap_or_default());
        assert_eq!(read(&torn).as_ref(), Ok(&records), "{point:?}");
        let owed = match records.last().map(|record| &record.entry) {
            Some(Entry::EffectIntent { effect, .. }) => vec![doubt(effect)],
            _ => Vec::new(),
        };
        assert_eq!(doubts(&records), owed, "{point:?}");
        if is_open(&rig, &scene.run) {
            let told = rig.resume(&scene.run).await;
            assert_eq!(doubts_told(&told), owed, "{point:?}:\n{}", told.text());
        }
        doubted.extend(owed);
    }
    doubted.sort();
    doubted.dedup();
    let of = |what: &str| doubted.iter().filter(|text| text.contains(what)).count();
    assert_eq!(
        [of(": put workload/"), of(": migrate user:"), of(": mark release 2")],
        [2, 1, 1],
        "{doubted:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_in_doubt_is_repeated_and_a_confirmed_one_is_not() {
    // A rule that refuses nothing: it counts the calls.
    let mut rig = Rig::running("[[error]]\nport = 'apply'\nitem = 'user'\ncount = 0").await;
    rig.edit("user-1", "user-2");
    let (plan, run, before) = (rig.plan().await, rig.next_run(), mark(&rig));
    let mut quiet = rig.fork();
    quiet.carry_out(&plan).await;
    let records = read(&quiet.sim.journal_text(&run)).unwrap();
    let confirms = |record: &Record| match &record.entry {
        Entry::EffectDone { effect, .. } => effect.starts_with("put workload/user"),
        _ => false,
    };
    let confirmed = before.records + records.iter().find(|record| confirms(record)).unwrap().seq;
    for (point, calls) in [(KillPoint::Append(confirmed), 2), (KillPoint::Record(confirmed), 1)] {
        let mut rig = rig.fork();
        let first = rig.sim.world().calls[0];
        let sim = rig.sim.clone();
        dies(&sim, "a confirmed write", point, rig.carry_out(&plan)).await;
        let told = rig.resume(&run).await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
        assert_eq!(rig.sim.world().calls[0] - first, calls, "{point:?}");
        assert_eq!(end(&rig), end(&quiet), "a write repeats without harm");
    }
}

#[tokio::test(start_paused = true)]
async fn a_way_back_writes_although_the_watch_of_the_next_process_lags() {
    // What the first process wrote is not told yet when the second one goes back, past a target that is away.
    let mut rig = Rig::running("").await;
    rig.follow("watch = {lag = '5s'}\n[[error]]\nport = 'apply'\nitem = 'catalog'\nkind = 'denied'");
    rig.edit("user-1", "user-2");
    rig.edit("catalog-1", "catalog-2");
    let (plan, run, before) = (rig.plan().await, rig.next_run(), mark(&rig));
    let mut quiet = rig.fork();
    assert_eq!(quiet.carry_out(&plan).await.report.outcome, RunOutcome::RolledBack);
    let records = read(&quiet.sim.journal_text(&run)).unwrap();
    let decided =
        records.iter().find(|record| matches!(record.entry, Entry::RollbackDecided { .. })).unwrap();
    let (sim, point) = (rig.sim.clone(), KillPoint::Record(before.records + decided.seq));
    dies(&sim, "a way back", point, rig.carry_out(&plan)).await;
    let told = rig.resume(&run).await;
    assert_eq!(told.report.outcome, RunOutcome::RolledBack, "{}", told.text());
    assert_eq!(rig.version("user").as_deref(), Some("user-1"), "{}", told.text());
}
