//! What is wrong with a journal: the first bad line, told by what happened to it.

use super::rig::Rig;
use crate::run::journal::{Entry, Fault, Record, Tail, Writer, Wrong, inspect, read};

/// Returns the lines of a run that went well.
async fn lines() -> Vec<String> {
    let rig = Rig::running("").await;
    rig.sim.journal_text("run-1").split_inclusive('\n').map(ToOwned::to_owned).collect()
}

fn record(line: &str) -> Record {
    serde_json::from_str(line).unwrap()
}

/// Returns a record as somebody writes it who knows how hashes are made.
async fn forged(before: &[String], entry: Entry) -> String {
    let records = read(&before.concat()).unwrap();
    let sim = crate::sim::Sim::from_toml("").unwrap();
    let journal = sim.journal("forged");
    Writer::after("forged", &records, &journal, &sim.clock()).append(entry).await.unwrap();
    sim.journal_text("forged")
}

#[tokio::test(start_paused = true)]
async fn a_whole_journal_has_no_fault() {
    let lines = lines().await;
    let found = inspect(lines.concat().as_bytes());
    assert_eq!((found.fault, found.tail, found.lines), (None, None, lines.len()));
    assert_eq!((found.run.as_deref(), found.closed), (Some("run-1"), true));
    assert_eq!(found.intact.len(), lines.len());
    assert_eq!(found.intact[0].hash, record(&lines[0]).hash);
    assert!(found.intact[0].what.ends_with(": deploy of shop"), "{}", found.intact[0].what);
}

#[tokio::test(start_paused = true)]
async fn the_first_bad_line_and_what_happened_to_it() {
    let whole = lines().await;
    let all = whole.len();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed = whole.clone();
        change(&mut changed);
        changed
    };
    let edited = |at: usize| {
        with(&|lines| {
            let mut record = record(&lines[at]);
            record.at = record.at.saturating_add(std::time::Duration::from_secs(1)).unwrap();
            lines[at] = serde_json::to_string(&record).unwrap() + "\n";
        })
    };
    let renumbered = with(&|lines| lines[4] = lines[4].replacen("\"seq\":5", "\"seq\":9", 1));
    let other = forged(&whole[..4], Entry::Interrupted).await;
    let inserted = with(&|lines| lines.insert(4, other.clone()));
    let two_writers = with(&|lines| lines.insert(5, other.clone()));
    let rehashed = with(&|lines| lines[4] = other.clone());
    let after_end = forged_after_end(&whole).await;
    let no_opening = vec![forged(&[], Entry::Interrupted).await];
    for (name, journal, line, seq, wrong) in [
        ("edited", edited(3), 4, Some(4), Wrong::Edited),
        ("edited at the end", edited(all - 1), all, Some(all as u64), Wrong::Edited),
        ("another number", renumbered, 5, Some(9), Wrong::Edited),
        ("deleted", with(&|lines| drop(lines.remove(3))), 4, Some(5), Wrong::Missing { from: 4, to: 4 }),
        (
            "several deleted",
            with(&|lines| drop(lines.drain(3..6))),
            4,
            Some(7),
            Wrong::Missing { from: 4, to: 6 },
        ),
        (
            "beginning deleted",
            with(&|lines| drop(lines.remove(0))),
            1,
            Some(2),
            Wrong::Missing { from: 1, to: 1 },
        ),
        ("reordered", with(&|lines| lines.swap(3, 4)), 4, Some(5), Wrong::Moved),
        ("copied", with(&|lines| lines.insert(6, lines[2].clone())), 7, Some(3), Wrong::Copied { line: 3 }),
        ("inserted with a hash", inserted, 6, Some(5), Wrong::Forked { line: 5 }),
        ("two writers", two_writers, 6, Some(5), Wrong::Forked { line: 5 }),
        ("replaced with a hash", rehashed, 6, Some(6), Wrong::Replaced),
        ("after the end", after_end, all + 1, Some(all as u64 + 1), Wrong::AfterEnd),
        ("no plan", no_opening, 1, Some(1), Wrong::NoOpening),
    ] {
        let text = journal.concat();
        let found = inspect(text.as_bytes());
        assert_eq!(found.fault, Some(Fault { line, seq, wrong: wrong.clone() }), "{name}");
        assert_eq!(found.lines, journal.len(), "{name}");
        if wrong != Wrong::NoOpening {
            assert_eq!(found.intact.len(), line - 1, "{name}");
            assert!(read(&text).is_err(), "{name}: what resume reads is as strict");
        }
    }
}

/// Appends a record to a journal that was closed, with the right number and hashes.
async fn forged_after_end(whole: &[String]) -> Vec<String> {
    let text = whole.concat();
    let records = read(&text).unwrap();
    let sim = crate::sim::Sim::from_toml("").unwrap();
    let journal = sim.journal("more");
    Writer::after("more", &records, &journal, &sim.clock()).append(Entry::Interrupted).await.unwrap();
    let mut lines = whole.to_vec();
    lines.push(sim.journal_text("more"));
    lines
}

#[tokio::test(start_paused = true)]
async fn a_cut_behind_a_whole_record_is_no_fault_of_the_chain() {
    let whole = lines().await;
    for end in 1..whole.len() {
        let found = inspect(whole[..end].concat().as_bytes());
        assert_eq!((found.fault, found.tail, found.intact.len(), found.closed), (None, None, end, false));
    }
}

#[tokio::test(start_paused = true)]
async fn what_kills_and_power_cuts_leave() {
    let whole = lines().await.concat();
    let cases: &[(&str, Vec<u8>, Option<Tail>)] = &[
        ("torn", [whole.as_bytes(), b"{\"seq\":9"].concat(), Some(Tail::Torn(8))),
        ("NUL bytes", [whole.as_bytes(), &[0; 512]].concat(), Some(Tail::Nuls(512))),
        ("torn, then NUL bytes", [whole.as_bytes(), b"{\"s\0\0"].concat(), Some(Tail::Torn(5))),
        ("no UTF-8", [whole.as_bytes(), b"{\"a\":\"\xff\xfe"].concat(), Some(Tail::Torn(8))),
    ];
    for (name, bytes, tail) in cases {
        let found = inspect(bytes);
        assert_eq!((found.fault, found.tail, found.closed), (None, *tail, true), "{name}");
        let lossy = String::from_utf8_lossy(bytes);
        assert_eq!(read(&lossy), read(&whole), "{name}: resume reads what was acknowledged");
    }
    for (name, bytes, tail) in [
        ("empty", &b""[..], None),
        ("only a torn line", b"{\"seq\":1,", Some(Tail::Torn(9))),
        ("only NUL bytes", &[0; 4096], Some(Tail::Nuls(4096))),
    ] {
        let found = inspect(bytes);
        assert_eq!((found.fault, found.tail, found.lines), (None, tail, 0), "{name}");
        assert_eq!(read(&String::from_utf8_lossy(bytes)), Ok(Vec::new()), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_the_middle_is_told_by_its_line() {
    let whole = lines().await;
    let cut = |at: usize, line: &[u8]| {
        let (before, after) = (whole[..at].concat(), whole[at..].concat());
        [before.as_bytes(), line, after.as_bytes()].concat()
    };
    let half = &whole[3].as_bytes()[..20];
    let long = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
    for (name, bytes, line, says) in [
        // Without dropping the torn line first, the next record stands behind it on the same line.
        ("torn in the middle", cut(3, half), 4, "it is not a record: "),
        ("torn, with a newline", cut(3, &[half, b"\n"].concat()), 4, "it is not a record: "),
        ("NUL bytes before a record", cut(3, &[0; 7]), 4, "it is not a record: 7 NUL bytes"),
        ("a line of NUL bytes", cut(3, b"\0\0\0\n"), 4, "it is not a record: 3 NUL bytes"),
        ("an empty line", cut(3, b"\n"), 4, "it is not a record: the line is empty"),
        ("no UTF-8", cut(3, b"{\"a\":\"\xff\"}\n"), 4, "it is not a record: "),
        ("a number", cut(3, b"7\n"), 4, "it is not a record: "),
        ("a long line", cut(3, &long), 4, "it is not a record: "),
    ] {
        let found = inspect(&bytes);
        let fault = found.fault.unwrap();
        assert_eq!((fault.line, fault.seq, fault.word()), (line, None, "malformed"), "{name}");
        assert!(fault.text().starts_with(says), "{name}: {}", fault.text());
        assert_eq!(found.intact.len(), 3, "{name}");
        assert!(read(&String::from_utf8_lossy(&bytes)).is_err(), "{name}");
    }
}

#[test]
fn a_line_beyond_the_bound_is_damage_and_not_read() {
    let mut line = vec![b' '; crate::run::journal::LONGEST];
    line.extend(b"{}\n");
    line[0] = b'{';
    let fault = inspect(&line).fault.unwrap();
    assert!(fault.text().contains("67108864 are the most"), "{}", fault.text());
    let mut inspection = crate::run::journal::Inspection::default();
    inspection.too_long(100_000_000);
    inspection.line(b"torn");
    let found = inspection.end();
    assert!(found.fault.unwrap().text().contains("100000000 bytes"));
    assert_eq!(found.tail, Some(Tail::Torn(4)));
}
