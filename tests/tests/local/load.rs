//! Load that is cut off: what it leaves behind is in nobody's way.

use std::path::PathBuf;
use std::time::Duration;

use mlctl_tests::{Sandbox, eventually, kill};

use crate::knobs;

/// Adds a load test whose setup takes a name that only its teardown gives back.
fn with_setup(sandbox: &Sandbox) {
    sandbox.edit(
        "targets:\n",
        "load:\n  verify:\n    rate: 20/s\n    duration: 6s\n    setup:\n      \
         - {name: register, post: \"/names/{{uuid}}\", expect: 201, save: {name: /name}}\n    \
         mix: [{name: root, weight: 1, get: /}]\n    \
         teardown: [{name: remove, delete: \"/names/{{name}}\", expect: 204}]\n\
         targets:\n",
    );
    sandbox.edit_service(
        "front",
        "KNOB_VERSION: one",
        "KNOB_VERSION: one\n      KNOB_NAMES: \"{data}/names\"",
    );
}

/// Returns the names that are taken now.
fn taken(sandbox: &Sandbox) -> usize {
    let mut open: Vec<PathBuf> = vec![sandbox.local()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        if folder.ends_with("names") {
            return entries.count();
        }
        open.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    0
}

async fn is_taken(sandbox: &Sandbox, names: usize) {
    eventually("the setup of the load", Duration::from_secs(60), async || match taken(sandbox) {
        found if found == names => Ok(()),
        found => Err(format!("{found} names are taken")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_load_is_in_nobodys_way() {
    let sandbox = knobs();
    with_setup(&sandbox);
    let running = sandbox.start(&["deploy"]);
    is_taken(&sandbox, 1).await;
    kill(running.pid());
    assert_eq!(running.finish().await.code, None, "killed, not ended");
    // The same run, the same step: it takes a name of its own, and gives it back.
    sandbox.mlctl(&["deploy", "--resume"]).await.ends(0);
    assert_eq!(taken(&sandbox), 1, "what was killed could not tidy up");

    let running = sandbox.start(&["loadtest"]);
    is_taken(&sandbox, 2).await;
    kill(running.pid());
    running.finish().await;
    sandbox.mlctl(&["loadtest"]).await.ends(0).says("--seed");
    assert_eq!(taken(&sandbox), 2);

    // A seed that is told says the same names again: refused is not unreachable.
    let running = sandbox.start(&["loadtest", "--seed", "5"]);
    is_taken(&sandbox, 3).await;
    kill(running.pid());
    running.finish().await;
    let told = sandbox.mlctl(&["loadtest", "--seed", "5"]).await.ends(30);
    told.says("POST /names/{{uuid}}").says("got 409, expected 201").says("without --seed");
    sandbox.end().await;
}
