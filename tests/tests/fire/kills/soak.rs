//! Kills and rollouts until the time is over, and what grows meanwhile.
//!
//! `MLCTL_SOAK_MINUTES` says for how long; without it, a few rounds prove that the measuring works.

use std::collections::BTreeMap;
use std::time::Duration;

use mlctl_tests::note;
use tokio::time::Instant;

use super::census::{Census, started, weight};
use super::deck::{Kill, seed};
use super::siege::Siege;

/// Descriptors a process may have more at rest than at its first rest: one that ends late.
const DESCRIPTORS: usize = 2;
/// Memory in kilobytes that a process may have grown by: allocators keep some of what a busy moment took.
const KILOBYTES: u64 = 6 * 1024;
/// Rounds until a process has seen everything once, and takes no more memory for that.
const WARM: usize = 3;

/// How one process did over its life, looked at while nobody asks anything.
#[derive(Debug, Default)]
struct Life {
    what: &'static str,
    looks: Vec<(u64, usize)>,
}

impl Life {
    /// Says what has grown.
    fn growth(&self) -> Option<String> {
        let warm = self.looks.get(WARM..).filter(|rest| !rest.is_empty())?;
        let (first, last) = (warm[0], warm[warm.len() - 1]);
        let leaks = last.1 > first.1 + DESCRIPTORS || last.0 > first.0 + KILOBYTES;
        leaks.then(|| format!("{} grew: (kilobytes, descriptors) at rest {:?}", self.what, self.looks))
    }
}

fn minutes() -> Option<u64> {
    let text = std::env::var("MLCTL_SOAK_MINUTES").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("MLCTL_SOAK_MINUTES is `{text}`: expected a number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_grows_however_often_replicas_die() {
    let seed = seed();
    let limit = minutes().map(|minutes| Duration::from_secs(minutes * 60));
    note(&format!("soak for {limit:?} (none: {} rounds), MLCTL_TEST_SEED={seed}", 2 * WARM));
    let began = Instant::now();
    let mut siege = Siege::lay(super::PROGRAM, seed).await;
    let mut lives: BTreeMap<(i32, u64), Life> = BTreeMap::new();
    let mut rounds = 0;
    while limit.map_or(rounds < 2 * WARM, |limit| began.elapsed() < limit) {
        // Agent and relay die in the first third only: what they hold shows when they live on.
        let early = limit.is_some_and(|limit| began.elapsed() < limit / 3);
        let kinds: &[Kill] = if early { &Kill::ALL } else { &Kill::OF_REPLICAS };
        let kind = *siege.dice.one_of(kinds);
        siege.kill(kind).await;
        rounds += 1;
        if rounds % 6 == 0 {
            siege.deploy().await;
        }
        siege.clients.pause().await;
        siege.settles("a pause").await;
        for (what, pid) in kept(&Census::take(&siege.sandbox)) {
            if let (Some(start), Some(weight)) = (started(pid), weight(pid)) {
                let life = lives.entry((pid, start)).or_default();
                life.what = what;
                life.looks.push(weight);
            }
        }
        siege.clients.go_on();
    }
    for what in ["agent", "relay", "shim of the relay", "shim"] {
        let longest = lives.values().filter(|life| life.what == what).map(|life| &life.looks);
        let longest = longest.max_by_key(|looks| looks.len()).unwrap();
        let ends = (longest[0], longest[longest.len() - 1]);
        note(&format!("{what}, over {} looks: (kilobytes, descriptors) {ends:?}", longest.len()));
        assert!(what == "shim" || longest.len() > WARM, "no {what} lived long enough to tell");
    }
    let grown: Vec<String> = lives.values().filter_map(Life::growth).collect();
    assert!(grown.is_empty(), "after {rounds} rounds: {grown:#?}");
    note(&format!("{rounds} rounds in {:.0?}", began.elapsed()));
    siege.lift().await;
}

/// Returns the processes that should hold no more as time goes by.
fn kept(census: &Census) -> Vec<(&'static str, i32)> {
    let named = |what: &'static str, pids: &[i32]| pids.iter().map(|pid| (what, *pid)).collect::<Vec<_>>();
    let shims: Vec<i32> = census.members.iter().map(|member| member.shim).collect();
    [
        named("agent", &census.agents),
        named("relay", &census.relays),
        named("shim of the relay", &census.relay_shims),
        named("shim", &shims),
    ]
    .concat()
}
