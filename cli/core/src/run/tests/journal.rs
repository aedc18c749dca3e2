//! The journal: written ahead of every effect, and read back only when it holds together.

use super::rig::Rig;
use crate::event::{EventKind, Outcome, RunOutcome};
use crate::run::journal::{Entry, ReadError, Record, Replay, read};

/// Returns the records of a run that went well, as text.
async fn text() -> String {
    let rig = Rig::running("").await;
    rig.sim.journal_text("run-1")
}

#[tokio::test(start_paused = true)]
async fn a_journal_reads_back_whole() {
    let text = text().await;
    let records = read(&text).unwrap();
    assert_eq!(records.len(), text.lines().count());
    assert!(matches!(records.first().map(|r| &r.entry), Some(Entry::Opened { .. })));
    let outcome = RunOutcome::Succeeded;
    assert_eq!(records.last().map(|r| &r.entry), Some(&Entry::Closed { outcome, reason: String::new() }));
    let replay = Replay::of(records).unwrap();
    assert_eq!((replay.run.as_str(), replay.closed, replay.seed), ("run-1", Some(outcome), 7));
    assert!(replay.in_doubt.is_empty() && replay.rolling_back.is_none());
    let steps: Vec<&str> = replay.plan.steps().map(|(_, step)| step.id.as_str()).collect();
    assert!(steps.iter().all(|step| replay.done.contains(*step)), "{:?}", replay.done);
}

#[tokio::test(start_paused = true)]
async fn a_torn_tail_is_dropped_and_nothing_else() {
    let text = text().await;
    let whole = read(&text).unwrap();
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    for cut in [last + 1, last + 20, text.len() - 2] {
        assert_eq!(read(&text[..cut]).unwrap(), whole[..whole.len() - 1], "cut at {cut}");
    }
    // Whole but for its newline: it was never acknowledged, and holds together all the same.
    assert_eq!(read(&text[..text.len() - 1]).unwrap(), whole);
    // A torn line in the middle is damage, not the trace of a kill.
    let broken = text.replacen("\"record\":\"step_intent\"", "\"record\":\"step_int", 1);
    assert!(matches!(read(&broken), Err(ReadError::Malformed { line: 3, .. })), "{:?}", read(&broken));
}

#[tokio::test(start_paused = true)]
async fn an_edited_dropped_or_moved_line_shows() {
    let text = text().await;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for at in 0..lines.len() - 1 {
        let mut dropped = lines.clone();
        dropped.remove(at);
        let line = at + 1;
        assert!(
            matches!(read(&dropped.concat()), Err(ReadError::Broken { line: told, .. }) if told == line),
            "{at}"
        );
        let mut moved = lines.clone();
        moved.swap(at, at + 1);
        assert!(
            matches!(read(&moved.concat()), Err(ReadError::Broken { line: told, .. }) if told == line),
            "{at}"
        );
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let mut record: Record = serde_json::from_str(&edited[at]).unwrap();
        record.at = record.at.saturating_add(std::time::Duration::from_secs(1)).unwrap();
        edited[at] = serde_json::to_string(&record).unwrap() + "\n";
        let error = read(&edited.concat()).unwrap_err();
        let text =
            format!("read the journal: line {line} does not follow the line before: its content was changed");
        assert_eq!(error.to_string(), text);
    }
    let twice = format!("{text}{}", lines[lines.len() - 1]);
    assert!(matches!(read(&twice), Err(ReadError::Broken { .. })));
}

#[test]
fn an_empty_journal_holds_no_run() {
    assert_eq!(read(""), Ok(Vec::new()));
    assert_eq!(Replay::of(Vec::new()), Err(ReadError::Empty));
    assert_eq!(read("{\"seq\":1"), Ok(Vec::new()), "a first line that was never finished");
}

#[tokio::test(start_paused = true)]
async fn a_journal_has_to_open_its_run() {
    let text = text().await;
    let mut records = read(&text).unwrap();
    records.remove(0);
    assert!(matches!(Replay::of(records), Err(ReadError::Broken { line: 1, .. })));
}

#[tokio::test(start_paused = true)]
async fn what_was_intended_and_never_confirmed_is_in_doubt() {
    let text = text().await;
    let records = read(&text).unwrap();
    for (at, record) in records.iter().enumerate() {
        let replay = Replay::of(records[..=at].to_vec()).unwrap();
        match &record.entry {
            Entry::EffectIntent { effect, .. } => assert_eq!(replay.in_doubt.last(), Some(effect)),
            Entry::EffectDone { effect, .. } => assert!(!replay.in_doubt.contains(effect)),
            _ => assert!(replay.in_doubt.is_empty(), "{:?}", replay.in_doubt),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_stops_the_run_before_the_effect() {
    let records = read(&text().await).unwrap().len();
    for fails_at in 1..records {
        let mut rig = Rig::new(&format!("journal = {{fails-at = {fails_at}}}"));
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::Failed, "{fails_at}:\n{}", told.text());
        assert!(
            told.report.reason.contains("append to the journal of run run-1: no space left"),
            "{fails_at}"
        );
        let written = rig.sim.journal_text("run-1");
        let records = read(&written).unwrap();
        assert_eq!(records.len(), fails_at - 1);
        for effect in rig.sim.world().effects {
            let intended = records.iter().any(|record| match &record.entry {
                Entry::EffectIntent { effect: intent, .. } => {
                    effect.text.starts_with("migrate") || *intent == effect.text
                }
                Entry::ReleaseIntent { .. } => effect.text == "create release 1",
                Entry::HeadIntent { .. } => {
                    ["head release 1", "mark release 1 unverified"].contains(&&*effect.text)
                }
                _ => false,
            });
            // That the run failed is bookkeeping about the run itself, and repeats without harm.
            assert!(
                intended || effect.text == "mark release 1 failed",
                "{fails_at}: {} was not intended",
                effect.text
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_cannot_be_recorded_is_told_all_the_same() {
    const FAULT: &str = "[[fault]]\nitem = 'user'\nhealth = 503\nbody = 'the database is away'\n";
    let mut rig = Rig::new(FAULT);
    rig.deploy().await;
    let records = read(&rig.sim.journal_text("run-1")).unwrap();
    let failed = records.iter().position(
        |record| matches!(&record.entry, Entry::StepDone { outcome, .. } if *outcome == Outcome::Failed),
    );
    let mut rig = Rig::new(&format!("journal = {{fails-at = {}}}\n{FAULT}", failed.unwrap() + 1));
    let told = rig.deploy().await;
    assert_eq!(told.report.outcome, RunOutcome::Failed);
    for words in ["no space left on the device", "got 503 from user"] {
        assert!(told.report.reason.contains(words), "{}", told.report.reason);
    }
    let note = told.events.iter().find_map(|event| match &event.kind {
        EventKind::StepFinished { outcome: Outcome::Failed, note, .. } => Some(note.clone()),
        _ => None,
    });
    let note = note.unwrap();
    assert!(note.contains("got 503 from user") && note.contains("no space left"), "{note}");
}

/// Folds entries as if a journal held them after its beginning.
fn fold(opened: &Record, entries: Vec<Entry>) -> Replay {
    let record = |entry| Record { entry, ..opened.clone() };
    Replay::of(std::iter::once(opened.clone()).chain(entries.into_iter().map(record)).collect()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_is_done_and_what_is_in_doubt_follows_the_last_word_on_it() {
    let opened = read(&text().await).unwrap().remove(0);
    let intent = |effect: &str| Entry::EffectIntent { step: "s".into(), effect: effect.into(), before: None };
    let ended = |outcome| {
        let (phase, step, note) = ("p".into(), "s".into(), String::new());
        Entry::StepDone { phase, step, outcome, note }
    };
    let folded = |entries| {
        let replay = fold(&opened, entries);
        (replay.done.contains("s"), replay.in_doubt.join(", "))
    };
    for (entries, done, doubt) in [
        (vec![intent("a"), intent("b"), intent("a")], false, "b, a"),
        (vec![intent("a"), ended(Outcome::Success)], true, ""),
        (vec![intent("a"), ended(Outcome::Skipped)], true, ""),
        // A step that may fail and lets the run go on has confirmed nothing.
        (vec![intent("a"), ended(Outcome::Warning)], true, "a"),
        (vec![intent("a"), ended(Outcome::Failed)], false, "a"),
        // Good before an interruption, and bad when it was looked at again.
        (vec![ended(Outcome::Success), ended(Outcome::Failed)], false, ""),
        (vec![ended(Outcome::Aborted), ended(Outcome::Success)], true, ""),
    ] {
        assert_eq!(folded(entries.clone()), (done, doubt.to_owned()), "{entries:?}");
    }
}
