//! Journals and evidence: verified, repaired, kept, pruned.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlctl_tests::{BACK, Finished, Sandbox, assert_settled, eventually, get, kill, note};
use serde_json::Value;

use crate::deployed;

/// A value that may be nowhere outside the secret's own file.
const CANARY: &str = "kanarie-7f3e91c2-geheim";
/// The same in base64, and behind `ops:` as a Basic header has it.
const ENCODED: [&str; 2] = ["a2FuYXJpZS03ZjNlOTFjMi1nZWhlaW0", "b3BzOmthbmFyaWUtN2YzZTkxYzItZ2VoZWlt"];

/// Where the sandbox keeps the journal of a run: on the target, and at home.
struct Copies {
    target: PathBuf,
    home: PathBuf,
}

impl Copies {
    fn of(sandbox: &Sandbox, run: &str) -> Self {
        Self {
            target: sandbox.local().join("knobs/journals").join(format!("{run}.jsonl")),
            home: home(sandbox).join(run).join("journal.jsonl"),
        }
    }

    fn read(&self) -> (String, String) {
        (std::fs::read_to_string(&self.target).unwrap(), std::fs::read_to_string(&self.home).unwrap())
    }
}

fn home(sandbox: &Sandbox) -> PathBuf {
    sandbox.state().join("runs/local/knobs")
}

async fn newest_run(sandbox: &Sandbox) -> String {
    let runs = sandbox.query(&["runs"]).await;
    runs["runs"][0]["run"].as_str().unwrap().to_owned()
}

/// Returns a text without its last lines.
fn without_last(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines[..lines.len() - count].concat()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_kept_beside_the_run_and_holds_no_secret() {
    let mut sandbox = deployed().await;
    sandbox.set("KNOBS_CANARY", CANARY);
    let program = "echo \"token is $CANARY\"; printf %s \"$CANARY\" | /usr/bin/base64; \
        printf %s \"ops:$CANARY\" | /usr/bin/base64; echo \"store at postgres://ops:$STORE_KEY@db/knobs\"; \
        echo nothing secret here; exit 7";
    sandbox.edit_service("back", "build: {artifact: knobs}", &format!("command: [/bin/sh, -c, '{program}']"));
    let env = "KNOB_VERSION: two\n      CANARY: {secret: canary, as: env}\n      STORE_KEY: paardbatterij";
    sandbox.edit_service("back", "KNOB_VERSION: one", env);
    sandbox.edit("targets:\n", "secrets:\n  canary: {env: KNOBS_CANARY}\ntargets:\n");
    let failed = sandbox.mlctl(&["deploy"]).await.ends(21).says("code 7").says("nothing secret here");
    let run = newest_run(&sandbox).await;
    let folder = home(&sandbox).join(&run).join("evidence");
    assert!(failed.stdout.contains(&format!("evidence: {}", folder.display())), "{}", failed.told());

    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).unwrap()).unwrap();
    let failure = &index["failures"][0];
    assert_eq!((&index["run"], &failure["phase"]), (&run.as_str().into(), &"applications".into()));
    assert!(failure["cause"].as_str().unwrap().contains("code 7"), "{index:#}");
    let mut sorts = Vec::new();
    for file in failure["files"].as_array().unwrap() {
        let text = std::fs::read_to_string(folder.join(file["file"].as_str().unwrap())).unwrap();
        assert_eq!(file["bytes"], text.len(), "{file}");
        if file["item"] == "workload/back" {
            sorts.push(file["what"].as_str().unwrap().to_owned());
        }
    }
    for sort in ["status", "replica", "log", "event", "plan"] {
        assert!(sorts.iter().any(|each| each == sort), "no {sort} in {sorts:?}");
    }
    let read = |what: &str| {
        let name = format!("workload.back.{what}.txt");
        let path = files_below(&folder).into_iter().find(|path| path.ends_with(&name));
        path.map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default()
    };
    // Whether a replica that crashed is still there is the target's business.
    let log = format!("{}{}", read("log"), read("previous_log"));
    for line in ["token is ***", "postgres://ops:***@db/knobs", "nothing secret here"] {
        assert!(log.contains(line), "no `{line}` in:\n{log}");
    }
    assert!(log.lines().filter(|line| line.ends_with(": ***")).count() >= 2, "both base64 lines: {log}");
    assert!(
        read("plan").contains("\"secret_value\": \"canary\""),
        "what is a reference stays: {}",
        read("plan")
    );
    // Nothing at home holds the value: neither evidence nor events nor journals. Nor was it printed.
    let shown = sandbox.mlctl(&["runs", "show", &run]).await.ends(0);
    let secrets = [CANARY, ENCODED[0], ENCODED[1]];
    for path in files_below(&sandbox.state()) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{}", path.display());
        let evidence = path.starts_with(&folder);
        assert!(!evidence || !text.contains("paardbatterij"), "{}", path.display());
    }
    for told in [&failed, &shown] {
        assert!(!secrets.iter().any(|secret| told.told().contains(secret)), "{}", told.told());
    }

    // The commands that lead there.
    assert!(shown.stdout.contains("workload.back.log.txt"), "{}", shown.told());
    let events = sandbox.mlctl(&["runs", "show", &run, "-o", "json"]).await.ends(0).events();
    let file = events.iter().find(|event| event["kind"] == "evidence").unwrap()["file"].as_str().unwrap();
    assert!(Path::new(file).starts_with(&folder) && Path::new(file).exists(), "{file}");
    let runs = sandbox.query(&["runs"]).await;
    assert_eq!(runs["runs"][0]["evidence"], folder.display().to_string());
    assert_eq!(runs["runs"][1]["evidence"], Value::Null);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_cannot_be_kept_costs_no_run() {
    let sandbox = deployed().await;
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: two\n      KNOB_NEVER_READY: \"true\"");
    let running = sandbox.start(&["deploy"]);
    rolling(&sandbox).await;
    kill(running.pid());
    running.finish().await;
    // A file where the folder should be: nothing can be written below it, as on a disk that is full.
    let run = newest_run(&sandbox).await;
    let folder = home(&sandbox).join(&run).join("evidence");
    std::fs::write(&folder, "").unwrap();
    let resumed = resume(&sandbox).await.ends(21).says("warning: keep evidence in").says("the run goes on");
    assert_eq!(resumed.stderr.matches("keep evidence in").count(), 1, "{}", resumed.told());
    resumed.says("evidence about back, replica").says_not(&format!("evidence: {}", folder.display()));
    assert_settled(&sandbox.query(&["status"]).await);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "one\n");
    sandbox.mlctl(&["audit", "verify"]).await.ends(0);
    sandbox.end().await;
}

/// Verifies, and returns what was found about the one run with a finding.
async fn findings(sandbox: &Sandbox, code: i32) -> Vec<Value> {
    let audit = sandbox.mlctl(&["audit", "verify", "-o", "json"]).await.ends(code).json();
    let runs = audit["runs"].as_array().unwrap().clone();
    runs.into_iter().flat_map(|run| run["findings"].as_array().unwrap().clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_to_a_journal_is_told_and_only_tails_are_repaired() {
    let sandbox = deployed().await;
    let run = newest_run(&sandbox).await;
    let copies = Copies::of(&sandbox, &run);
    let (target, at_home) = copies.read();
    assert_eq!(target, at_home);
    sandbox.mlctl(&["audit", "verify"]).await.ends(0).says("1 journal checked: all hold together");
    let lines: Vec<&str> = target.split_inclusive('\n').collect();
    let count = lines.len();
    let changed = |change: &dyn Fn(&mut Vec<String>)| {
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut changed);
        changed.concat()
    };
    let edited = lines[2].replacen("\"phase\":\"", "\"phase\":\"x", 1);
    assert_ne!(edited, lines[2]);
    // Damage in the middle is told by its line, in either copy, and never repaired.
    for (what, line, text) in [
        ("edited", 3, changed(&|lines| lines[2].clone_from(&edited))),
        ("deleted", 3, changed(&|lines| drop(lines.remove(2)))),
        ("reordered", 3, changed(&|lines| lines.swap(2, 3))),
        ("inserted", 5, changed(&|lines| lines.insert(4, lines[1].clone()))),
        ("malformed", 4, changed(&|lines| lines.insert(3, "{\"seq\":\n".to_owned()))),
        ("malformed", 3, changed(&|lines| lines.insert(2, "\0\0\0\0\n".to_owned()))),
    ] {
        for (copy, path, whole) in [("target", &copies.target, &target), ("home", &copies.home, &at_home)] {
            std::fs::write(path, &text).unwrap();
            let found = findings(&sandbox, 30).await;
            assert_eq!(found.len(), 1, "{what}: {found:#?}");
            let finding = (&found[0]["copy"], &found[0]["what"], &found[0]["line"]);
            assert_eq!(finding, (&copy.into(), &what.into(), &line.into()), "{found:#?}");
            if copy == "target" {
                sandbox.mlctl(&["audit", "verify", "--repair"]).await.ends(30).says(&format!("line {line}"));
                assert_eq!(
                    std::fs::read_to_string(path).unwrap(),
                    text,
                    "{what}: no whole record is rewritten"
                );
            }
            std::fs::write(path, whole).unwrap();
        }
    }
    // A copy cut behind a whole record holds together; the other one shows what is missing, and mends it.
    for (copy, path) in [("target", &copies.target), ("home", &copies.home)] {
        std::fs::write(path, without_last(&target, 2)).unwrap();
        let found = findings(&sandbox, 30).await;
        assert_eq!((found.len(), &found[0]["copy"], &found[0]["what"]), (1, &copy.into(), &"short".into()));
        let text = found[0]["text"].as_str().unwrap();
        assert!(text.starts_with(&format!("records {} (", count - 1)), "{text}");
        sandbox.mlctl(&["audit", "verify", &run, "--repair"]).await.ends(0).says("repaired");
        assert_eq!(std::fs::read_to_string(path).unwrap(), target);
    }
    // What kills and power cuts leave is a note, and dropped when asked.
    for (tail, says) in [("{\"seq\":99,\"at\"", "torn last line of 14 bytes"), ("\0\0\0\0\0", "5 NUL bytes")]
    {
        for path in [&copies.target, &copies.home] {
            std::fs::write(path, format!("{target}{tail}")).unwrap();
            sandbox.mlctl(&["audit", "verify"]).await.ends(0).says(says);
            sandbox.mlctl(&["audit", "verify", "--repair"]).await.ends(0).says("repaired");
            assert_eq!(std::fs::read_to_string(path).unwrap(), target);
        }
    }
    export(&sandbox, &run, &copies, &target).await;
    // Another machine has no copy, and misses none.
    std::fs::remove_dir_all(sandbox.state()).unwrap();
    sandbox.mlctl(&["audit", "verify"]).await.ends(0).says("all hold together");
    sandbox.mlctl(&["audit", "verify", "nothing-like-it"]).await.ends(6);
    sandbox.end().await;
}

/// Exports a whole journal and a broken one.
async fn export(sandbox: &Sandbox, run: &str, copies: &Copies, whole: &str) {
    let exported = sandbox.mlctl(&["audit", "export"]).await.ends(0).events();
    let records: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = exported.iter().map(|line| &line["record"]).collect();
    assert_eq!(told, records.iter().collect::<Vec<_>>());
    assert!(exported.iter().all(|line| line["run"] == run));
    std::fs::write(&copies.target, whole.replacen("step_intent", "step_done", 1)).unwrap();
    let broken = sandbox.mlctl(&["audit", "export", run]).await.ends(30).says("not exported whole");
    let last = broken.events().pop().unwrap();
    assert!(last["broken"]["line"].as_u64().is_some(), "{last}");
    std::fs::write(&copies.target, whole).unwrap();
}

/// Waits until a release replaces what runs.
async fn rolling(sandbox: &Sandbox) {
    eventually("the first new replica", Duration::from_secs(40), async || {
        let events = sandbox.newest_events();
        let rolling = events.iter().any(|event| {
            event["kind"] == "workload" && event["phase"] == "applications" && event["updated"] == 1
        });
        if rolling { Ok(()) } else { Err(format!("{} events so far", events.len())) }
    })
    .await;
}

/// Rolls both services to the second version and kills mlctl in the middle.
async fn killed_in_the_middle(sandbox: &Sandbox) {
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.edit("minReady: 300ms", "minReady: 1s");
    let running = sandbox.start(&["deploy"]);
    rolling(sandbox).await;
    // While it is at work nothing is found that only a run at work shows, and nothing is repaired.
    sandbox.mlctl(&["audit", "verify"]).await.ends(0);
    sandbox.mlctl(&["audit", "verify", "--repair"]).await.ends(5).says("locked");
    kill(running.pid());
    assert_eq!(running.finish().await.code, None, "killed, not ended");
}

async fn resume(sandbox: &Sandbox) -> Finished {
    sandbox.mlctl(&["deploy", "--resume"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn resume_trusts_the_mirror_and_refuses_one_that_lost_records() {
    let sandbox = deployed().await;
    killed_in_the_middle(&sandbox).await;
    let run = newest_run(&sandbox).await;
    let copies = Copies::of(&sandbox, &run);
    let (target, _) = copies.read();

    // A journal that was changed: what the run did cannot be known.
    std::fs::write(
        &copies.target,
        target.replacen("\"record\":\"step_intent\"", "\"record\":\"step_xntent\"", 1),
    )
    .unwrap();
    resume(&sandbox)
        .await
        .ends(3)
        .says("does not hold together")
        .says(&format!("mlctl audit verify {run}"))
        .says("nothing was done");
    sandbox.mlctl(&["runs", "show", &run]).await.ends(3).says("audit verify");
    sandbox.mlctl(&["runs"]).await.ends(0).says("broken journal");

    // Two records that the target had acknowledged are gone there: effects could happen twice.
    std::fs::write(&copies.target, without_last(&target, 2)).unwrap();
    resume(&sandbox).await.ends(3).says("lacks 2 records").says("--repair");
    sandbox.mlctl(&["audit", "verify", "--repair"]).await.ends(0);
    assert_eq!(copies.read().0, target);

    std::fs::write(&copies.target, without_last(&target, 1)).unwrap();
    resume(&sandbox).await.ends(3).says("lacks 1 record that").says("--repair");
    sandbox.mlctl(&["audit", "verify", "--repair"]).await.ends(0);

    // A copy at home without the last record is what a kill between the two copies leaves.
    std::fs::write(&copies.home, without_last(&target, 1)).unwrap();
    sandbox.mlctl(&["audit", "verify", &run]).await.ends(0);
    // A newer run that died before its first record changed nothing, and hides nothing. Nor do other files.
    let never_began = copies.target.with_file_name(format!("{}.jsonl", name_at(SystemTime::now(), 7)));
    std::fs::write(&never_began, "{\"seq\":1,\"at\":\"20").unwrap();
    sandbox.mlctl(&["runs"]).await.ends(0).says("never began");
    let resumed = resume(&sandbox).await.ends(0);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n", "{}", resumed.told());
    assert_settled(&sandbox.query(&["status"]).await);
    let (target, at_home) = copies.read();
    assert_eq!(target, at_home, "both copies go on from the same record");
    sandbox.mlctl(&["audit", "verify", &run]).await.ends(0).says("all hold together");
    resume(&sandbox).await.ends(6);
    sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    sandbox.end().await;
}

/// Returns the name of a run that began at that time: a ULID.
fn name_at(at: SystemTime, nth: u8) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let millis = u64::try_from(at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let digit = |at: u32| char::from(DIGITS[usize::try_from(millis >> (5 * at) & 31).unwrap()]);
    let time: String = (0..10).rev().map(digit).collect();
    format!("{time}{}{}", "0".repeat(15), char::from(DIGITS[usize::from(nth)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn old_runs_go_at_the_beginning_of_the_next_one() {
    let sandbox = deployed().await;
    let first = newest_run(&sandbox).await;
    let days = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60 + 60);
    let journal = std::fs::read(&Copies::of(&sandbox, &first).target).unwrap();
    let make = |days_ago: u64, nth: u8| {
        let name = name_at(days(days_ago), nth);
        let copies = Copies::of(&sandbox, &name);
        std::fs::create_dir_all(copies.home.with_file_name("evidence/1-step")).unwrap();
        std::fs::write(copies.home.with_file_name("events.jsonl"), "").unwrap();
        for path in [&copies.home, &copies.target] {
            std::fs::write(path, &journal).unwrap();
        }
        name
    };
    let (ancient, old) = (make(400, 1), make(90, 2));
    let (middle, young) = (make(15, 3), make(13, 4));
    std::fs::create_dir(home(&sandbox).join("notes")).unwrap();
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let took = sandbox.mlctl(&["deploy"]).await.ends(0).took;
    for (name, kept, evidence) in
        [(&ancient, false, false), (&old, false, false), (&middle, true, false), (&young, true, true)]
    {
        let copies = Copies::of(&sandbox, name);
        let folder = copies.home.parent().unwrap();
        let there = (folder.exists(), folder.join("evidence").exists(), copies.target.exists());
        assert_eq!(there, (kept, evidence, kept), "{name}");
    }
    assert!(home(&sandbox).join("notes").exists(), "what is no run is not ours");
    for name in [&first, &newest_run(&sandbox).await] {
        assert!(Copies::of(&sandbox, name).target.exists(), "{name}");
    }

    // A full house: what the limits cost is a listing.
    for nth in 0..1_000_u64 {
        let at = days(2) + Duration::from_millis(nth);
        std::fs::create_dir(home(&sandbox).join(name_at(at, 5))).unwrap();
    }
    sandbox.edit("KNOB_VERSION: two", "KNOB_VERSION: three");
    let full = sandbox.mlctl(&["deploy"]).await.ends(0).took;
    note(&format!("a deploy among 5 runs took {took:.1?}, among 1,000 {full:.1?}"));
    let left = std::fs::read_dir(home(&sandbox)).unwrap().count();
    assert_eq!(left, 1_001, "a thousand runs, and the notes");
    sandbox.end().await;
}
