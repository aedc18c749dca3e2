//! The wall clock of mlctl and of the agent jumps ahead and back in the middle of a deploy.
//!
//! libfaketime moves it for these processes alone: the machine's own clock is nobody's to change. What the kernel
//! counts since boot stays as it is, as on a machine whose clock is set.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use mlctl_tests::{BACK, Running, Sandbox, eventually, get, kill, of_folder};
use serde_json::Value;

use super::{PATIENCE, assert_calm, at, journals, lock, releases, slowly, until_rolling};
use crate::deployed;

const HOUR: i64 = 3_600;

/// A clock that only some processes see.
struct FakeClock {
    file: PathBuf,
    env: Vec<String>,
}

impl FakeClock {
    /// # Panics
    /// Where libfaketime is not installed: `tests/requirements.sh` brings it.
    fn of(sandbox: &Sandbox) -> Self {
        let Some(library) = library() else {
            panic!("libfaketimeMT.so.1 is not here: tests/requirements.sh installs it");
        };
        let file = sandbox.root().join("clock");
        let clock = Self {
            env: vec![
                "env".to_owned(),
                format!("LD_PRELOAD={}", library.display()),
                format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                "FAKETIME_NO_CACHE=1".to_owned(),
                "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            ],
            file,
        };
        clock.set(0);
        clock
    }

    /// Moves it by so many seconds from the true time.
    fn set(&self, seconds: i64) {
        // Whole or as before: it is read all the time.
        let fresh = self.file.with_extension("new");
        std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(fresh, &self.file).unwrap();
    }

    fn start(&self, sandbox: &Sandbox, args: &[&str]) -> Running {
        let program: Vec<&str> = self.env.iter().map(String::as_str).collect();
        sandbox.start_by(&program, args)
    }
}

fn library() -> Option<PathBuf> {
    let of_machine = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = of_machine.chain(["/usr/lib64".into(), "/usr/lib".into()]);
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())
}

/// Puts an agent with that clock in the place of the one that runs.
async fn agent_with(sandbox: &Sandbox, clock: &FakeClock) -> Running {
    let agents: Vec<_> =
        of_folder(&sandbox.local()).into_iter().filter(|each| each.is_verb("agent")).collect();
    let [agent] = &agents[..] else { panic!("one agent expected: {agents:?}") };
    kill(agent.pid);
    eventually("the agent to be gone", PATIENCE, async || {
        if Path::new(&format!("/proc/{}/exe", agent.pid)).exists() { Err(String::new()) } else { Ok(()) }
    })
    .await;
    let args: Vec<&str> = agent.args[1..].iter().map(String::as_str).collect();
    let running = clock.start(sandbox, &args);
    let pid = running.pid();
    eventually("the agent to answer", PATIENCE, async || {
        sandbox.query(&["status"]).await;
        let now: Vec<_> =
            of_folder(&sandbox.local()).into_iter().filter(|each| each.is_verb("agent")).collect();
        if now.len() == 1 && now[0].pid == pid { Ok(()) } else { Err(format!("{pid} expected: {now:?}")) }
    })
    .await;
    running
}

/// Waits until the holder has renewed the lock under a clock that is so far from the true one.
async fn until_renewed(sandbox: &Sandbox, seconds: i64) {
    eventually("a renewal under the other clock", PATIENCE, async || {
        let state = lock(sandbox).await;
        let expires: Timestamp = state["holder"]["expires"]
            .as_str()
            .unwrap_or_default()
            .parse()
            .map_err(|_| format!("{state:#}"))?;
        let off = expires.as_second() - Timestamp::now().as_second() - seconds;
        assert_eq!(state["standing"], "held", "{state:#}");
        if off.abs() < 120 { Ok(()) } else { Err(format!("it shows {off} s off: {state:#}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_and_back_loses_no_lock_and_no_order() {
    let sandbox = deployed().await;
    let clock = FakeClock::of(&sandbox);
    let agent = agent_with(&sandbox, &clock).await;
    slowly(&sandbox);
    // Long enough for a renewal under each clock.
    sandbox.edit("minReady: 2s", "minReady: 4s");
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let deploy = clock.start(&sandbox, &["deploy"]);
    until_rolling(&sandbox).await;
    // One who waits all the while keeps its place, whatever the clock shows.
    let waiting = clock.start(&sandbox, &["restart", "back", "--wait-lock", "5m"]);
    let line = super::until_in_line(&sandbox, &waiting).await;
    for jump in [HOUR, -HOUR] {
        clock.set(jump);
        until_renewed(&sandbox, jump).await;
        let now = super::until_in_line(&sandbox, &waiting).await;
        assert_eq!(now[0]["ticket"], line[0]["ticket"], "the same place");
    }
    deploy.finish().await.ends(0);
    waiting.finish().await.ends(0);

    let kept = releases(&sandbox).await;
    let states: Vec<&str> = kept.iter().map(|(_, state, _)| state.as_str()).collect();
    assert_eq!(states, ["verified", "verified"], "one head after the other: {kept:?}");
    assert_eq!(get(&sandbox.url(BACK)).await.body, "two\n");
    let journals_of_two = journals(&sandbox);
    let times: Vec<i64> = journals_of_two[&kept[1].2].iter().map(|record| at(record).as_second()).collect();
    let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
    assert!(spread > HOUR - 120, "the clock of mlctl has jumped: {spread} s between its records");

    // An hour ago by its clock, and yet the newest run: the order is that in which they came.
    sandbox.edit("KNOB_VERSION: two", "KNOB_VERSION: three");
    let late = clock.start(&sandbox, &["deploy"]);
    until_rolling(&sandbox).await;
    kill(late.pid());
    late.finish().await;
    let runs = sandbox.query(&["runs"]).await;
    let newest: &Value = &runs["runs"][0];
    assert_eq!((&newest["release"], &newest["state"]), (&3.into(), &"cut off".into()), "{runs:#}");
    sandbox.mlctl_within(Duration::from_secs(150), &["deploy", "--resume"]).await.ends(0);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "three\n");
    assert_calm(&sandbox).await;
    sandbox.end().await;
    agent.finish().await;
}
