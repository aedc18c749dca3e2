//! Death of mlctl by record: killed as soon as a record of its journal is on the target, then carried on.
//!
//! Nothing in the product helps: the test follows the mirrored journal. Each story is played once undisturbed; its
//! journal says where it can be killed, its end what every killed one has to come to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mlctl_tests::{
    BACK, FRONT, Finished, Load, Running, Sandbox, assert_settled, at_full_length, get, kill, note,
};
use serde_json::Value;

use crate::knobs;

/// One act, and how it ends.
struct Story {
    name: &'static str,
    act: &'static [&'static str],
    code: i32,
}

impl Story {
    /// Returns the arguments of the next try. A rollback goes back and forth between the two newest releases.
    fn args(&self, head: u64) -> Vec<String> {
        let mut args: Vec<String> = self.act.iter().map(ToString::to_string).collect();
        if self.act == ["rollback"] {
            args.extend(["--to-revision".to_owned(), (head - 1).to_string()]);
        }
        args
    }
}

/// Both services of a version, with a store and migrations, so that a deploy has every kind of effect.
struct World {
    sandbox: Sandbox,
    version: u32,
}

/// What has to be the same, whoever was killed on the way; release numbers count from the head of before.
#[derive(Debug, PartialEq)]
struct End {
    status: Value,
    releases: Vec<String>,
    bodies: Vec<String>,
    effects: BTreeSet<String>,
}

impl World {
    /// Returns a world in which the first version runs, verified.
    async fn new() -> Self {
        let sandbox = knobs();
        sandbox.edit("\ntargets:\n", "\nstores:\n  db: {kind: postgresql, version: \">=14\"}\ntargets:\n");
        let with_store =
            "    needs: [db]\n    migrations: migrations\n    env:\n      DATABASE_URL: {store: db}\n";
        sandbox.edit_service("back", "    env:\n", with_store);
        sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: v1");
        let playbook = sandbox.system_folder().join("playbooks/deploy.yaml");
        let text = std::fs::read_to_string(&playbook).unwrap();
        assert!(text.contains("stable_for: 1s") && text.contains("within: 3s"), "the playbook has changed");
        let quick = text.replace("stable_for: 1s", "stable_for: 200ms").replace("within: 3s", "within: 1s");
        std::fs::write(playbook, quick).unwrap();
        let world = Self { sandbox, version: 1 };
        world.write_migration();
        world.sandbox.mlctl(&["deploy"]).await.ends(0);
        world
    }

    /// Writes the migration that belongs to the version.
    fn write_migration(&self) {
        let folder = self.sandbox.system_folder().join("migrations/sqlite");
        std::fs::create_dir_all(&folder).unwrap();
        let sql = format!("create table t{} (id integer);\n", self.version);
        std::fs::write(folder.join(format!("{:04}_table.up.sql", self.version)), sql).unwrap();
    }

    /// Changes the files to the next version.
    fn next_version(&mut self) {
        let old = format!("KNOB_VERSION: v{}\n", self.version);
        self.version += 1;
        self.sandbox.edit(&old, &format!("KNOB_VERSION: v{}\n", self.version));
        self.write_migration();
    }

    fn journals(&self) -> PathBuf {
        self.sandbox.local().join("knobs/journals")
    }

    fn runs(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.journals()).unwrap().filter_map(Result::ok);
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Returns the records that the target has of the newest run, and their text.
    fn newest(&self) -> (String, Vec<Value>, String) {
        let name = self.runs().pop_last().unwrap();
        let text = std::fs::read_to_string(self.journals().join(&name)).unwrap();
        // A line that a kill cut off is none.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let records = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (name.trim_end_matches(".jsonl").to_owned(), records, text)
    }

    fn copy_at_home(&self, run: &str) -> PathBuf {
        self.sandbox.state().join("runs/local/knobs").join(run).join("journal.jsonl")
    }

    async fn head(&self) -> u64 {
        self.sandbox.query(&["status"]).await["release"].as_u64().unwrap()
    }

    async fn bodies(&self) -> Vec<String> {
        let mut bodies = Vec::new();
        for port in [FRONT, BACK] {
            bodies.push(get(&self.sandbox.url(port)).await.body.trim().to_owned());
        }
        bodies
    }

    /// Returns how things stand after an act on the releases up to `newest`, of which `head` ran.
    async fn end(&self, newest: u64, head: u64) -> End {
        let mut status = self.sandbox.query(&["status"]).await;
        assert_settled(&status);
        let now = status["release"].as_u64().unwrap();
        status["release"] = if now == head { "as before".into() } else { (now - newest).into() };
        status.as_object_mut().unwrap().remove("replicas");
        let history = self.sandbox.query(&["history"]).await;
        let made = history.as_array().unwrap().iter().filter(|r| r["release"].as_u64().unwrap() > newest);
        let line = |r: &Value| {
            let number = r["release"].as_u64().unwrap() - newest;
            format!("+{number} {} head {} rollback {}", r["state"], r["head"], r["rollback_of"].is_u64())
        };
        End {
            status,
            releases: made.map(line).collect(),
            bodies: self.bodies().await,
            effects: effects(&self.newest().1),
        }
    }

    async fn newest_release(&self) -> u64 {
        self.sandbox.query(&["history"]).await[0]["release"].as_u64().unwrap()
    }
}

/// Returns what was begun, without the digests, counts and numbers that differ between two tries; asserts that each
/// effect was confirmed at most once. One that a resume finds done, such as a migration, needs no second word.
fn effects(records: &[Value]) -> BTreeSet<String> {
    let of = |wanted: &'static str| {
        let records = records.iter().filter(move |record| kind(record) == wanted);
        records.map(|record| record["effect"].as_str().unwrap())
    };
    let mut confirmed = BTreeMap::new();
    for effect in of("effect_done") {
        *confirmed.entry(effect).or_insert(0) += 1;
    }
    assert!(confirmed.values().all(|count| *count == 1), "{confirmed:#?}");
    let bare = |effect: &str| {
        let words = effect.split(' ').filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        words.collect::<Vec<_>>().join(" ")
    };
    of("effect_intent").map(bare).collect()
}

fn kind(record: &Value) -> &str {
    record["record"].as_str().unwrap()
}

/// Returns the numbers of the records to be killed at: the first and the last of each kind, or all of them.
fn points(records: &[Value], firsts: bool) -> Vec<usize> {
    let all = 1..=records.len();
    if at_full_length() {
        return all.collect();
    }
    let same = |at: usize, other: &Value| kind(other) == kind(&records[at - 1]);
    all.filter(|at| {
        let is_first = firsts && !records[..at - 1].iter().any(|other| same(*at, other));
        is_first || !records[*at..].iter().any(|other| same(*at, other))
    })
    .collect()
}

/// Kills a command as soon as the mirror of a run that is not among the known ones is as wanted.
async fn kill_when(
    world: &World,
    known: BTreeSet<String>,
    running: Running,
    wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Finished {
    let (folder, pid) = (world.journals(), running.pid());
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let follow = async move {
        let newest = || {
            let entries = std::fs::read_dir(&folder).ok()?.filter_map(Result::ok);
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let path = folder.join(names.filter(|name| !known.contains(name)).max()?);
            std::fs::read_to_string(path).ok()
        };
        while !is_over.load(Ordering::Acquire) {
            if newest().is_some_and(|text| wanted(&text)) {
                kill(pid);
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let follower = tokio::spawn(follow);
    let finished = running.finish().await;
    over.store(true, Ordering::Release);
    follower.await.unwrap();
    finished
}

/// Lets the copy at home be what a lost machine or a full disk leaves of it.
fn spoil_home(path: &Path, turn: usize) -> &'static str {
    let text = std::fs::read_to_string(path).unwrap();
    let last = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
    match turn % 5 {
        0 => return "as it was",
        1 => std::fs::write(path, &text[..last]).unwrap(),
        2 => std::fs::write(path, format!("{text}{}", &text[..40])).unwrap(),
        3 => std::fs::write(path, format!("{text}{}", &text[last..])).unwrap(),
        _ => std::fs::remove_file(path).unwrap(),
    }
    ["", "a record behind", "torn", "a record ahead", "gone"][turn % 5]
}

/// Plays a story killed at each of its points; `change` makes the files ready for the next try, `undo` comes after it.
async fn play(
    story: &Story,
    world: &mut World,
    firsts: bool,
    change: impl Fn(&mut World),
    undo: impl Fn(&World),
) -> usize {
    let (newest, head) = (world.newest_release().await, world.head().await);
    change(world);
    let act = story.args(head);
    world.sandbox.mlctl(&act.iter().map(String::as_str).collect::<Vec<_>>()).await.ends(story.code);
    undo(world);
    let (_, records, _) = world.newest();
    let wanted = world.end(newest, head).await;
    let mut was = wanted.bodies.clone();
    let points = points(&records, firsts);
    let urls = [world.sandbox.url(FRONT), world.sandbox.url(BACK)];
    let load = Load::start(&urls, 60, false, None);
    for (turn, at) in points.iter().enumerate() {
        let began = Instant::now();
        let (newest, head, known) = (world.newest_release().await, world.head().await, world.runs());
        change(world);
        let act = story.args(head);
        let running = world.sandbox.start(&act.iter().map(String::as_str).collect::<Vec<_>>());
        let lines = *at;
        let told = kill_when(world, known, running, move |text| {
            text.bytes().filter(|b| *b == b'\n').count() >= lines
        })
        .await;
        let (run, then, _) = world.newest();
        let last = then.last().unwrap();
        let home = spoil_home(&world.copy_at_home(&run), turn);
        let outcome = if kind(last) == "closed" {
            assert!(told.code.is_none_or(|code| code == story.code), "{}", told.told());
            world.sandbox.mlctl(&["deploy", "--resume"]).await.ends(6);
            "it was over".to_owned()
        } else {
            assert_eq!(told.code, None, "killed, not ended: {}", told.told());
            let resumed = world.sandbox.mlctl(&["deploy", "--resume"]).await.ends(story.code).says("resum");
            if kind(last) == "effect_intent" {
                let effect = last["effect"].as_str().unwrap();
                let doubt = format!(
                    "in doubt since the interruption: {effect}; it is probed before it is done again"
                );
                resumed.says(&doubt);
            } else {
                resumed.says_not("in doubt");
            }
            let (_, _, mirror) = world.newest();
            let copy = std::fs::read_to_string(world.copy_at_home(&run)).unwrap();
            assert_eq!(copy, mirror, "the copies differ");
            format!("carried on, ended with {}", story.code)
        };
        undo(world);
        let mut end = world.end(newest, head).await;
        // Versions go on, or back and forth, from one try to the next.
        match story.act {
            ["deploy"] if story.code == 0 => {
                assert_eq!(end.bodies, [format!("v{}", world.version), format!("v{}", world.version)]);
            }
            ["deploy"] => assert_eq!(end.bodies, was),
            _ => assert_ne!(end.bodies, was),
        }
        was = std::mem::replace(&mut end.bodies, wanted.bodies.clone());
        assert_eq!(end, wanted, "{}: killed at record {at}", story.name);
        note(&format!(
            "{}: record {at} of {} ({}), dead after {} ({}), home {home}: {outcome} ({:.1?})",
            story.name,
            records.len(),
            kind(&records[at - 1]),
            then.len(),
            kind(last),
            began.elapsed()
        ));
    }
    let tally = load.stop().await;
    note(&format!("{}: meanwhile {tally}", story.name));
    tally.is_clean();
    points.len()
}

/// Asserts that a story's journal has these kinds of record.
fn assert_kinds(world: &World, kinds: &[&str]) {
    let (_, records, _) = world.newest();
    let there: BTreeSet<&str> = records.iter().map(kind).filter(|kind| *kind != "resumed").collect();
    assert_eq!(there, kinds.iter().copied().collect(), "the kinds of record of this story");
}

const FORWARD: [&str; 8] = [
    "opened",
    "release_intent",
    "step_intent",
    "effect_intent",
    "effect_done",
    "step_done",
    "head_intent",
    "closed",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_killed_at_any_record_is_carried_on() {
    let mut world = World::new().await;
    let story = Story { name: "deploy", act: &["deploy"], code: 0 };
    let points = play(&story, &mut world, true, World::next_version, |_| {}).await;
    assert!(points >= 12, "{points} points");
    assert_kinds(&world, &FORWARD);
    world.sandbox.mlctl(&["deploy"]).await.ends(0).says("nothing to change");
    world.sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_that_goes_back_is_carried_on_from_any_record() {
    let mut world = World::new().await;
    let broken = |world: &mut World| {
        world.sandbox.edit_service(
            "back",
            "KNOB_VERSION: v1",
            "KNOB_VERSION: v1\n      KNOB_HEALTH: \"503\"",
        );
    };
    let whole = |world: &World| world.sandbox.edit_service("back", "\n      KNOB_HEALTH: \"503\"", "");
    let story = Story { name: "deploy that goes back", act: &["deploy"], code: 21 };
    let points = play(&story, &mut world, false, broken, whole).await;
    assert!(points >= 9, "{points} points");
    assert_kinds(&world, &[&FORWARD[..], &["rollback_decided"]].concat());
    world.sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_killed_at_any_record_is_carried_on() {
    let mut world = World::new().await;
    world.next_version();
    world.sandbox.mlctl(&["deploy"]).await.ends(0);
    let story = Story { name: "rollback", act: &["rollback"], code: 0 };
    let points = play(&story, &mut world, false, |_| {}, |_| {}).await;
    assert!(points >= 8, "{points} points");
    assert_kinds(&world, &FORWARD);
    world.sandbox.end().await;
}

/// Takes everything away that mlctl keeps at home.
fn lose_home(sandbox: &Sandbox) {
    for folder in [sandbox.state(), sandbox.root().join("home")] {
        // Nobody makes a new HOME: the second time it is not there.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
}

/// Kills a command on another host when it is about to write a workload; returns when that was.
async fn killed_on(world: &World, host: &str, args: &[&str]) -> Instant {
    let known = world.runs();
    let running = world.sandbox.start_on(host, args);
    let writes = |text: &str| text.contains("\"effect\":\"put workload/");
    let told = kill_when(world, known, running, writes).await;
    assert_eq!(told.code, None, "killed, not ended: {}", told.told());
    let (_, records, _) = world.newest();
    assert_eq!(records[0]["operator"]["host"], host, "this needs root and UTS namespaces: {:#}", records[0]);
    Instant::now()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_home_and_another_host_lose_no_run() {
    let mut world = World::new().await;
    let load = Load::start(&[world.sandbox.url(FRONT), world.sandbox.url(BACK)], 60, false, None);
    world.next_version();
    let died = killed_on(&world, "runner-1", &["deploy"]).await;
    lose_home(&world.sandbox);
    // From here nobody can see whether that process lives: its lease has to run out.
    let taken = world.sandbox.start_on("runner-2", &["deploy", "--resume"]).finish().await.ends(5);
    let taken = taken.says("tester@runner-1");
    let expires = taken.stderr.split("expires ").nth(1).unwrap().split('Z').next().unwrap().to_owned();
    let resume = ["deploy", "--resume", "--wait-lock", "60s"];
    world.sandbox.start_on("runner-2", &resume).finish().await.ends(0).says("resum");
    let (_, records, _) = world.newest();
    let resumed = records.iter().find(|record| kind(record) == "resumed").unwrap();
    assert_eq!(resumed["operator"]["host"], "runner-2");
    assert!(
        resumed["at"].as_str().unwrap().trim_end_matches('Z') >= &expires[..],
        "{resumed} before {expires}"
    );
    note(&format!("resumed on another host, its home lost: done {:.1?} after the death", died.elapsed()));
    assert_eq!(world.bodies().await, ["v2", "v2"]);
    assert_settled(&world.sandbox.query(&["status"]).await);
    effects(&records);

    // A rollback is cut off and carried on alike, and one from a home that never was needs nothing either.
    let there = world.head().await.to_string();
    lose_home(&world.sandbox);
    killed_on(&world, "runner-3", &["rollback"]).await;
    lose_home(&world.sandbox);
    world.sandbox.start_on("runner-4", &resume).finish().await.ends(0).says("resum");
    assert_eq!(world.bodies().await, ["v1", "v1"]);
    lose_home(&world.sandbox);
    world.sandbox.start_on("runner-5", &["rollback", "--to-revision", &there]).finish().await.ends(0);
    assert_eq!(world.bodies().await, ["v2", "v2"]);
    assert_settled(&world.sandbox.query(&["status"]).await);
    let tally = load.stop().await;
    note(&format!("on five hosts: meanwhile {tally}"));
    tally.is_clean();
    world.sandbox.end().await;
}
