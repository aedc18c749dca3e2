//! What is kept of a failure is about that failure: its release, its replicas, its time.

use serde_json::Value;

use crate::deployed;

/// Returns the lines of one kind of evidence.
fn lines(events: &[Value], what: &str) -> Vec<String> {
    let pieces = events.iter().filter(|event| event["kind"] == "evidence" && event["what"] == what);
    let lines = pieces.flat_map(|event| event["lines"].as_array().unwrap().clone());
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_about_the_release_that_failed() {
    let sandbox = deployed().await;
    sandbox.edit("KNOB_VERSION: one", "KNOB_VERSION: two");
    sandbox.mlctl(&["deploy"]).await.ends(0);
    sandbox.edit_service("back", "KNOB_VERSION: two", "KNOB_VERSION: three\n      KNOB_EXIT: \"7\"");
    sandbox.mlctl(&["deploy"]).await.ends(21);
    let events = sandbox.newest_events();
    let log = lines(&events, "log");
    assert!(!log.is_empty() && log.iter().all(|line| line.contains("version three")), "{log:#?}");
    let replicas = lines(&events, "replica");
    assert!(replicas.iter().all(|line| line.contains("exit code 7")), "{replicas:#?}");
    let failing: Vec<&str> = replicas.iter().filter_map(|line| line.split(' ').next()).collect();
    let happened = lines(&events, "event");
    assert!(!failing.is_empty() && !happened.is_empty(), "{happened:#?}");
    for line in &happened {
        let who = line.split(' ').nth(1).unwrap();
        assert!(who == "back" || failing.contains(&who), "{line} is about another one than {failing:?}");
        assert!(!line.contains("stopped"), "{line}");
    }
    // Every end has its beginning, however quick it came; and what holds for all of them is told once.
    let told = sandbox.query(&["events"]).await;
    let told = told.as_array().unwrap();
    for name in &failing {
        let of = |reason: &str| {
            let mine = told.iter().filter(|event| event["replica"] == *name && event["reason"] == reason);
            mine.count()
        };
        assert_eq!(of("started"), of("exited") + of("stopped"), "{told:#?}");
    }
    let noted = told.iter().filter(|event| event["text"].as_str().unwrap().contains("control group")).count();
    assert!(noted <= 1, "told {noted} times");
    sandbox.end().await;
}
