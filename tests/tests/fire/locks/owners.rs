//! Owners of the lock that die, here and elsewhere, and one whose lock is taken away.

use std::time::{Duration, Instant};

use mlctl_tests::{eventually, kill, note};

use super::{TTL, assert_calm, lock, slowly, until_holder, until_rolling};
use crate::deployed;

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_owner_died_here_is_free_at_once() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let deploy = sandbox.start(&["deploy"]);
    until_rolling(&sandbox).await;
    kill(deploy.pid());
    deploy.finish().await;
    let killed = Instant::now();
    let state = lock(&sandbox).await;
    assert_eq!((&state["held"], &state["standing"]), (&false.into(), &"dead".into()), "{state:#}");
    sandbox.mlctl(&["lock", "show"]).await.ends(0).says("its process is dead");
    // Nobody waits here, and nobody is refused.
    let resumed = sandbox.start(&["deploy", "--resume"]);
    until_holder(&sandbox, &resumed).await;
    let took = killed.elapsed();
    note(&format!("the lock of a dead owner of this host was another's {took:?} after the kill"));
    assert!(took < TTL - Duration::from_secs(5), "{took:?}: that is no better than waiting for its end");
    resumed.finish().await.ends(0);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_owner_died_elsewhere_is_free_when_its_time_is_over() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    // Another host to all that looks at its name; its processes cannot be judged from here.
    let elsewhere = ["unshare", "--uts", "sh", "-c", "hostname elsewhere && exec \"$@\"", "sh"];
    let deploy = sandbox.start_by(&elsewhere, &["deploy"]);
    let state = until_holder(&sandbox, &deploy).await;
    assert_eq!(state["holder"]["request"]["operator"]["host"], "elsewhere");
    until_rolling(&sandbox).await;
    kill(deploy.pid());
    deploy.finish().await;
    let killed = Instant::now();
    sandbox.mlctl(&["deploy"]).await.ends(5).says("tester@elsewhere");
    sandbox.mlctl(&["lock", "release"]).await.ends(40).says("its owner lives and renews it");
    let expired = eventually("the lock to expire", TTL * 2, async || {
        let state = lock(&sandbox).await;
        if state["standing"] == "expired" { Ok(killed.elapsed()) } else { Err(format!("{state:#}")) }
    })
    .await;
    note(&format!("the lock of a dead owner of another host was free {expired:?} after the kill"));
    // It was renewed at most a third of its time before.
    let soonest = TTL * 2 / 3 - Duration::from_secs(1);
    assert!(soonest < expired && expired < TTL + Duration::from_secs(5), "{expired:?}");
    sandbox
        .mlctl(&["lock", "release"])
        .await
        .ends(0)
        .says("released; it was that of deploy by tester@elsewhere");
    sandbox.mlctl(&["lock", "release"]).await.ends(0).says("there is nothing to release");
    sandbox.mlctl(&["deploy", "--resume"]).await.ends(0);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_taken_away_ends_its_run() {
    let sandbox = deployed().await;
    slowly(&sandbox);
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    let deploy = sandbox.start(&["deploy"]);
    until_rolling(&sandbox).await;
    sandbox
        .mlctl(&["lock", "release"])
        .await
        .ends(40)
        .says("its owner lives and renews it: deploy by tester@")
        .says("--force");
    sandbox.mlctl(&["lock", "release", "--force"]).await.ends(40).says("say --yes");
    assert_eq!(lock(&sandbox).await["held"], true, "nothing has happened to it so far");
    sandbox
        .mlctl(&["lock", "release", "--force", "--yes"])
        .await
        .ends(0)
        .says("taken away from deploy by tester@");
    deploy.finish().await.ends(5).says("the lock is no longer ours").says("took it away at");
    sandbox.mlctl(&["deploy", "--resume"]).await.ends(0);
    assert_calm(&sandbox).await;
    sandbox.end().await;
}
