//! Broken releases: each is explained with evidence and taken back, while the old one goes on serving.

use std::time::Duration;

use mlctl_tests::{Load, get, note, of_folder};

use crate::{BACK, FRONT, assert_settled, deployed, item, knobs};

/// A way in which a release can be broken, and what has to be told about it.
struct Breakage {
    name: &'static str,
    /// What the environment of `back` says besides.
    env: &'static str,
    /// Time a replica has to stay ready: longer than a program lives that crashes later.
    min_ready: &'static str,
    evidence: &'static [&'static str],
    /// True when it shows before a replica of it counts as ready: then nobody ever sees an answer of it.
    unseen: bool,
}

const BREAKAGES: [Breakage; 5] = [
    Breakage {
        name: "exits at once",
        env: "KNOB_EXIT: \"7\"",
        min_ready: "300ms",
        evidence: &["version two exits with 7 as it was told", "code 7"],
        unseen: true,
    },
    Breakage {
        name: "crashes after three seconds",
        env: "KNOB_CRASH_AFTER_MS: \"3000\"",
        min_ready: "4s",
        evidence: &["index out of bounds", "code 101"],
        unseen: true,
    },
    Breakage {
        name: "never ready",
        env: "KNOB_NEVER_READY: \"true\"",
        min_ready: "300ms",
        evidence: &["503", "warming up for ever"],
        unseen: true,
    },
    Breakage {
        name: "ready, but its health says no",
        env: "KNOB_HEALTH: \"503\"",
        min_ready: "300ms",
        evidence: &["503", "the disk of knobs is full", "2xx on /health"],
        unseen: false,
    },
    Breakage {
        name: "bad environment variable",
        env: "KNOB_DELAY_MS: soon",
        min_ready: "300ms",
        evidence: &["KNOB_DELAY_MS is `soon`: expected milliseconds", "code 3"],
        unseen: true,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_release_is_explained_and_taken_back() {
    let sandbox = deployed().await;
    let whole = std::fs::read_to_string(sandbox.system_file()).unwrap();
    for breakage in BREAKAGES {
        let urls = [sandbox.url(FRONT), sandbox.url(BACK)];
        let load = Load::start(&urls, 100, false, None);
        sandbox.edit_service(
            "back",
            "KNOB_VERSION: one",
            &format!("KNOB_VERSION: two\n      {}", breakage.env),
        );
        sandbox.edit_service("back", "minReady: 300ms", &format!("minReady: {}", breakage.min_ready));
        let mut finished = sandbox.mlctl(&["deploy"]).await.ends(21);
        for text in breakage.evidence {
            finished = finished.says(text);
        }
        let tally = load.stop().await;
        note(&format!("{}: back again after {:.1?}; meanwhile {tally}", breakage.name, finished.took));
        tally.is_clean();
        if breakage.unseen {
            assert_eq!(tally.bodies.keys().collect::<Vec<_>>(), ["one"], "{}", breakage.name);
        }
        assert_eq!(get(&sandbox.url(BACK)).await.body, "one\n", "{}", breakage.name);
        assert_settled(&sandbox.query(&["status"]).await);
        let history = sandbox.query(&["history"]).await;
        let failed = history.as_array().unwrap().iter().find(|release| release["state"] == "failed");
        assert!(failed.is_some(), "{}: {history:#}", breakage.name);
        // The next one starts from the release that works.
        std::fs::write(sandbox.system_file(), &whole).unwrap();
    }
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_artifact_is_refused_before_anything_changes() {
    let sandbox = deployed().await;
    let before = (sandbox.query(&["history"]).await, of_folder(&sandbox.local()).len());
    sandbox.edit_service("back", "artifact: knobs", "artifact: nowhere");
    sandbox.mlctl(&["deploy"]).await.ends(20).says("nowhere");
    let after = (sandbox.query(&["history"]).await, of_folder(&sandbox.local()).len());
    assert_eq!(before, after);
    assert_eq!(get(&sandbox.url(BACK)).await.body, "one\n");
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_deploy_that_fails_is_kept_and_explained() {
    let sandbox = knobs();
    sandbox.edit_service("back", "KNOB_VERSION: one", "KNOB_VERSION: one\n      KNOB_EXIT: \"7\"");
    let failed = sandbox.mlctl(&["deploy"]).await.ends(20).says("exits with 7 as it was told").says("code 7");
    assert!(
        failed.took < Duration::from_secs(15),
        "a program that exits at once is told at once: {:?}",
        failed.took
    );
    let status = sandbox.query(&["status"]).await;
    let back = item(&status, "back");
    assert!(
        back["status"] != "current" && back["cause"].as_str().is_some_and(|cause| cause.contains('7')),
        "{status:#}"
    );
    sandbox.mlctl(&["logs", "back", "--previous"]).await.ends(0).says("exits with 7 as it was told");
    // What was kept is no obstacle for what works.
    sandbox.edit_service("back", "\n      KNOB_EXIT: \"7\"", "");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_settled(&sandbox.query(&["status"]).await);
    sandbox.end().await;
}
