//! Random `kill -9` of agent, shims, programs and the relay under load.
//!
//! What each kill may cost is written down in `siege`, and exactly that is asserted. `MLCTL_TEST_SEED` chooses the
//! order of kills; the seed of a run is in its output.

mod books;
mod census;
mod clients;
mod deck;
mod siege;
mod soak;

use std::time::Duration;

use mlctl_tests::{at_full_length, eventually, kill, note};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use census::{Census, is_zombie, runs};
use deck::seed;
use siege::{Siege, WANTED, WORKER};

/// The program of the besieged system.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ledger");

#[tokio::test(flavor = "multi_thread")]
async fn random_kills_cost_what_they_may_and_nothing_else() {
    let seed = seed();
    let count = if at_full_length() { 50 } else { 12 };
    note(&format!("{count} kills, MLCTL_TEST_SEED={seed}"));
    let mut siege = Siege::lay(PROGRAM, seed).await;
    let kills = siege.dice.kills(count);
    for (number, kind) in kills.into_iter().enumerate() {
        siege.kill(kind).await;
        // Replicas of a new release have ended never before: theirs is no crash loop.
        if number % 6 == 5 {
            siege.deploy().await;
        }
    }
    siege.lift().await;
}

fn tell(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_not_counted_as_alive() {
    let siege = Siege::lay(PROGRAM, seed()).await;
    for with_agent in [true, false] {
        let before = Census::take(&siege.sandbox);
        let victim = before.of(WORKER)[0].clone();
        // Nothing asks it how it is; and its shim, which should wait for it, hangs.
        tell(victim.shim, Signal::SIGSTOP);
        if !with_agent {
            before.agents.iter().for_each(|agent| kill(*agent));
        }
        kill(victim.program);
        eventually("a zombie", Duration::from_secs(5), async || {
            if is_zombie(victim.program) { Ok(()) } else { Err("it is none".to_owned()) }
        })
        .await;
        eventually("the dead one to be missed", Duration::from_secs(10), async || {
            let status = siege.sandbox.query(&["status", WORKER]).await;
            let ready = status["replicas"].as_array().unwrap().iter().any(|each| each["ready"] == true);
            if ready { Err(format!("{status:#}")) } else { Ok(()) }
        })
        .await;
        siege.settles("a zombie whose shim hangs").await;
        assert!(!runs(victim.shim), "it hangs on");
        // The zombie itself could still be asked how it had ended.
        let status = siege.sandbox.query(&["status", WORKER]).await;
        assert_eq!(status["replicas"][0]["last_exit"], "signal 9 (SIGKILL)", "{status:#}");
        siege.owes_nothing("a zombie of a service nobody asks");
    }
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_at_once_bring_back_one_agent() {
    let siege = Siege::lay(PROGRAM, seed()).await;
    let before = Census::take(&siege.sandbox);
    for _ in 0..3 {
        Census::take(&siege.sandbox).agents.iter().for_each(|agent| kill(*agent));
        let commands: Vec<_> = (0..6).map(|_| siege.sandbox.start(&["status", "-o", "json"])).collect();
        for command in commands {
            command.finish().await.ends(0);
        }
        siege.settles("six commands at once").await;
        assert_eq!(Census::take(&siege.sandbox).members, before.members);
    }
    siege.owes_nothing("agents killed and brought back");
    siege.lift().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_build_makes_way_and_leaves_everything_running() {
    let siege = Siege::lay(PROGRAM, seed()).await;
    let before = Census::take(&siege.sandbox);
    before.agents.iter().for_each(|agent| kill(*agent));
    // The same binary, under the name of an older build.
    let folder = siege.sandbox.local().join("ledger").to_str().unwrap().to_owned();
    let runtime = siege.sandbox.root().join("run/mlctl").to_str().unwrap().to_owned();
    let older =
        siege.sandbox.start(&["agent", "--folder", &folder, "--runtime", &runtime, "--build", "0.0.1 older"]);
    eventually("the older agent", Duration::from_secs(10), async || {
        let agents = Census::take(&siege.sandbox).agents;
        if agents == [older.pid()] { Ok(()) } else { Err(format!("{agents:?}")) }
    })
    .await;
    siege.answers().await;
    siege.settles("an agent of an older build").await;
    older.finish().await.ends(0);
    let after = Census::take(&siege.sandbox);
    assert_eq!(
        (&after.members, &after.relays),
        (&before.members, &before.relays),
        "taken over, not started again"
    );
    assert!(after.is_whole(&WANTED).is_ok());
    siege.owes_nothing("an agent that made way");
    siege.lift().await;
}
