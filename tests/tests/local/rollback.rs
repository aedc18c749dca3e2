//! Going back: to the last release that passed, to one by number, of one service, and where it is refused.

use mlctl_tests::{Sandbox, get};
use serde_json::Value;

use crate::{BACK, FRONT, assert_settled, deployed};

async fn deploy(sandbox: &Sandbox, from: &str, to: &str, code: i32) {
    sandbox.edit(&format!("KNOB_VERSION: {from}"), &format!("KNOB_VERSION: {to}"));
    sandbox.mlctl(&["deploy"]).await.ends(code);
}

async fn versions(sandbox: &Sandbox) -> (String, String) {
    let body = async |port| get(&sandbox.url(port)).await.body.trim().to_owned();
    (body(FRONT).await, body(BACK).await)
}

fn both(version: &str) -> (String, String) {
    (version.to_owned(), version.to_owned())
}

async fn head(sandbox: &Sandbox) -> Value {
    let history = sandbox.query(&["history"]).await;
    history.as_array().unwrap().iter().find(|release| release["head"] == true).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_goes_where_it_is_told_and_never_to_what_failed() {
    let sandbox = deployed().await;
    deploy(&sandbox, "one", "two", 0).await;
    assert_eq!(versions(&sandbox).await, both("two"));

    // By default: the last one that passed verification, as a new release of its own.
    sandbox.mlctl(&["rollback", "--dry-run", "--exit-code"]).await.ends(10);
    assert_eq!(versions(&sandbox).await, both("two"), "a dry run changes nothing");
    sandbox.mlctl(&["rollback"]).await.ends(0);
    assert_eq!(versions(&sandbox).await, both("one"));
    let now = head(&sandbox).await;
    assert_eq!(
        (&now["release"], &now["rollback_of"], &now["state"]),
        (&3.into(), &1.into(), &"verified".into())
    );
    assert_settled(&sandbox.query(&["status"]).await);

    // By number; where we are is refused, as the head's own number and as an equal release; unknown ones too.
    sandbox.mlctl(&["rollback", "--to-revision", "3"]).await.ends(40);
    sandbox.mlctl(&["rollback", "--to-revision", "1"]).await.ends(40);
    sandbox.mlctl(&["rollback", "--to-revision", "99"]).await.ends(6).says("99");
    sandbox.mlctl(&["rollback", "--to-revision", "2"]).await.ends(0);
    assert_eq!(versions(&sandbox).await, both("two"));

    // One that did not pass is never the default: release 5 is in but not verified, 6 failed.
    sandbox.edit("KNOB_VERSION: two", "KNOB_VERSION: five");
    sandbox.mlctl(&["deploy", "--phase", "applications"]).await.ends(0);
    assert_eq!(head(&sandbox).await["state"], "unverified");
    assert_eq!(versions(&sandbox).await, both("five"));
    sandbox.mlctl(&["rollback"]).await.ends(0);
    assert_eq!(versions(&sandbox).await, both("two"), "the newest verified one that differs");

    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_goes_back_alone() {
    let sandbox = deployed().await;
    deploy(&sandbox, "one", "two", 0).await;
    sandbox.mlctl(&["rollback", "nobody"]).await.ends(6).says("nobody");
    sandbox.mlctl(&["rollback", "back"]).await.ends(0);
    assert_eq!(versions(&sandbox).await, ("two".to_owned(), "one".to_owned()));
    assert_settled(&sandbox.query(&["status"]).await);
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nowhere_to_go_from_the_first_release() {
    let sandbox = deployed().await;
    sandbox.mlctl(&["rollback"]).await.ends(40).says("verif");
    sandbox.end().await;
}
