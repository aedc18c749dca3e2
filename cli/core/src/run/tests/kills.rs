//! Death at every point: before and after each journal record, after each effect, then a resume from the mirror's
//! text alone.
//!
//! The end has to be that of the undisturbed run, with each effect as often as there, and what was begun and never
//! confirmed has to be told as in doubt, in so many words and nothing else.

use super::rig::Rig;
use super::stories::{ALL, End, Story, end};
use super::told::Told;
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::run::journal::{Entry, Record, Replay, read};
use crate::sim::KillPoint;

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

/// Plays a story to its end without a kill; returns the end and the points at which it can be killed.
pub(super) async fn undisturbed(story: &Story) -> (End, Vec<KillPoint>) {
    let mut rig = story.rig().await;
    let before = mark(&rig);
    let plan = story.plan(&rig).await;
    let told = rig.carry_out(&plan).await;
    assert_eq!(told.report.outcome, story.outcome, "{}: {}", story.name, told.text());
    assert_eq!(doubts_told(&told), Vec::<String>::new(), "{}", story.name);
    let wanted = end(&rig);
    if !story.is_stopped() {
        return (wanted, before.points_to(mark(&rig)));
    }
    let mut rig = story.rig().await;
    let told = story.begin(&mut rig, &plan).await;
    let points = before.points_to(mark(&rig));
    if told.report.outcome == RunOutcome::Interrupted {
        let told = rig.resume(&told.run).await;
        assert_eq!(told.report.outcome, story.outcome, "{}: {}", story.name, told.text());
    }
    assert_eq!(end(&rig), wanted, "{}: stopped and carried on", story.name);
    (wanted, points)
}

/// Begins a story and dies at a point; the target is then ready for the next process.
pub(super) async fn killed(story: &Story, point: KillPoint) -> (Rig, String) {
    let mut rig = story.rig().await;
    let plan = story.plan(&rig).await;
    let run = rig.next_run();
    rig.sim.kill_at(point);
    let sim = rig.sim.clone();
    tokio::select! {
        biased;
        () = sim.killed() => {}
        told = story.begin(&mut rig, &plan) => panic!("{}: {point:?} never came:\n{}", story.name, told.text()),
    }
    sim.revive();
    check_copies(&rig, &run, point);
    (rig, run)
}

/// Checks what the two copies of a journal look like after a death: alike, or home is ahead by the record that the
/// mirror did not live to take.
pub(super) fn check_copies(rig: &Rig, run: &str, point: KillPoint) {
    let (home, mirror) = (rig.home.text(run), rig.sim.journal_text(run));
    let records = read(&mirror).unwrap();
    let ahead = usize::from(matches!(point, KillPoint::Append(_)));
    assert_eq!(read(&home).unwrap().len(), records.len() + ahead, "{point:?}");
    assert!(home.starts_with(&mirror), "{point:?}");
    if let Some(first) = mirror.get(..40) {
        // What a kill in the middle of a write leaves: the beginning of a line.
        assert_eq!(read(&format!("{mirror}{first}")), Ok(records), "{point:?}");
    }
}

/// Carries on what was cut off and returns how it ended; one that never reached the mirror begins anew, and one that
/// is over stays as it is.
pub(super) async fn resumed(story: &Story, rig: &mut Rig, run: &str, point: KillPoint) {
    let text = rig.sim.journal_text(run);
    if text.is_empty() {
        let plan = story.plan(rig).await;
        let told = rig.carry_out(&plan).await;
        assert_eq!(told.report.outcome, story.outcome, "{}: {point:?}:\n{}", story.name, told.text());
        return;
    }
    let replay = Replay::of(read(&text).unwrap()).unwrap();
    if let Some(outcome) = replay.closed {
        assert_eq!(outcome, story.outcome, "{}: {point:?}: closed", story.name);
        return;
    }
    let open = doubts(&replay.records);
    let told = rig.resume(run).await;
    assert_eq!(told.report.outcome, story.outcome, "{}: {point:?}:\n{}", story.name, told.text());
    assert_eq!(doubts_told(&told), open, "{}: {point:?}:\n{}", story.name, told.text());
    closed(story, rig, run, point);
}

/// Checks the journal of a run that is over: both copies, its end, and that nothing is open that has a good end.
fn closed(story: &Story, rig: &Rig, run: &str, point: KillPoint) {
    let text = rig.sim.journal_text(run);
    assert_eq!(rig.home.text(run), text, "{}: {point:?}: the copies differ", story.name);
    let whole = Replay::of(read(&text).unwrap()).unwrap();
    assert_eq!(whole.closed, Some(story.outcome), "{}: {point:?}", story.name);
    // A way back does not finish what the way forward began.
    let allowed = usize::from(story.outcome != RunOutcome::Succeeded);
    assert!(whole.in_doubt.len() <= allowed, "{}: {point:?}: {:?}", story.name, whole.in_doubt);
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

#[tokio::test(start_paused = true)]
async fn every_story_survives_a_kill_at_every_point() {
    for story in &ALL {
        let (wanted, points) = undisturbed(story).await;
        assert!(points.len() >= story.points, "{}: {} points", story.name, points.len());
        for point in points {
            let (mut rig, run) = killed(story, point).await;
            resumed(story, &mut rig, &run, point).await;
            assert_eq!(end(&rig), wanted, "{}: killed at {point:?}", story.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_effect_is_in_doubt_from_its_intent_until_it_is_confirmed() {
    let story = &ALL[1];
    let (_, points) = undisturbed(story).await;
    let mut doubted = Vec::new();
    for point in points {
        let (mut rig, run) = killed(story, point).await;
        let records = read(&rig.sim.journal_text(&run)).unwrap_or_default();
        let Some(last) = records.last() else { continue };
        let owed = match &last.entry {
            Entry::EffectIntent { effect, .. } => vec![doubt(effect)],
            _ => Vec::new(),
        };
        assert_eq!(doubts(&records), owed, "{point:?}");
        if !matches!(last.entry, Entry::Closed { .. }) {
            let told = rig.resume(&run).await;
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
async fn a_run_killed_twice_ends_as_if_it_never_was() {
    // Of so many points of the second process one is tried after each point of the first, each time another.
    const STRIDE: usize = 7;
    for story in ALL.iter().filter(|story| story.twice) {
        let (wanted, points) = undisturbed(story).await;
        for (nth, first) in points.into_iter().enumerate() {
            let (mut rig, run) = killed(story, first).await;
            if !is_open(&rig, &run) {
                continue;
            }
            let before = mark(&rig);
            resumed(story, &mut rig, &run, first).await;
            let again = before.points_to(mark(&rig)).into_iter().enumerate();
            for (_, second) in again.filter(|(at, _)| (nth + at).is_multiple_of(STRIDE)) {
                let rig = killed_twice(story, first, second).await;
                assert_eq!(end(&rig), wanted, "{}: killed at {first:?} and {second:?}", story.name);
            }
        }
    }
}

/// Dies at a point, dies again while it is carried on, and is carried on to its end.
async fn killed_twice(story: &Story, first: KillPoint, second: KillPoint) -> Rig {
    let (mut rig, run) = killed(story, first).await;
    rig.sim.kill_at(second);
    let sim = rig.sim.clone();
    tokio::select! {
        biased;
        () = sim.killed() => {}
        told = rig.resume(&run) => panic!("{first:?}, and {second:?} never came:\n{}", told.text()),
    }
    sim.revive();
    check_copies(&rig, &run, second);
    resumed(story, &mut rig, &run, second).await;
    rig
}

/// Says whether the mirror holds a run that is not over.
pub(super) fn is_open(rig: &Rig, run: &str) -> bool {
    let text = rig.sim.journal_text(run);
    !text.is_empty() && Replay::of(read(&text).unwrap()).unwrap().closed.is_none()
}
