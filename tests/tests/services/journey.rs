//! A user's journey over all services on real stores: `tests/journey.sh`, as README tells people to run it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mlctl_tests::stores::Store;
use mlctl_tests::{note, pause, repository};

use crate::system::{Stores, System};
use crate::{client, records, redis, sql};

/// Time for the services to find stores again that were away.
const FOUND_AGAIN_WITHIN: Duration = Duration::from_secs(90);

fn journey(gateway: &str) -> Result<String, String> {
    let script = repository().join("tests/journey.sh").display().to_string();
    client(60, &["bash", &script, gateway])
}

/// Tries until the journey is made: services find their stores, and limits open, a moment after they are there.
#[track_caller]
fn served(gateway: &str) -> String {
    let began = Instant::now();
    loop {
        match journey(gateway) {
            Ok(told) => return told,
            Err(reason) => assert!(began.elapsed() < FOUND_AGAIN_WITHIN, "{reason}"),
        }
        pause(Duration::from_millis(500));
    }
}

/// Returns a number that a line of the journey tells.
fn told(journey: &str, step: &str) -> usize {
    let line = journey.lines().find(|line| line.starts_with(step)).unwrap();
    line.split_whitespace().find_map(|word| word.trim_end_matches(',').parse().ok()).unwrap()
}

/// Returns how many different events the topic has: what was published twice is one.
fn events(stores: &Stores) -> usize {
    let records = records(&stores.kafka.brokers(), "ml-events").unwrap();
    let id = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["id"].as_str().unwrap_or_else(|| panic!("no id in {line}")).to_owned()
    };
    records.lines().map(id).collect::<BTreeSet<String>>().len()
}

#[test]
fn a_user_is_served_by_real_stores_and_again_after_all_were_killed() {
    let mut stores = Stores::start().prepared();
    let mut system = System::start(&stores);
    let count =
        |stores: &Stores, text: &str| -> usize { sql(&stores.database(), text).unwrap().parse().unwrap() };

    let began = Instant::now();
    let first = served(system.gateway());
    note(&format!("served by new stores after {:.1?}", began.elapsed()));
    first.lines().for_each(note);
    let items = told(&first, "sync");

    // What the stores themselves have of it.
    let users = count(&stores, "select count(*) from users");
    assert!(users >= 1 && count(&stores, "select count(*) from ml_accounts") >= 1, "{users} users");
    let published = events(&stores);
    assert!(published > items, "{published} events of {items} items");
    let limits = redis(&stores.state.url(), &["dbsize"]).unwrap();
    assert_ne!(limits, "0", "no limit is kept in the Redis that must keep them");
    let dump = client(20, &["pg_dump", "-d", &stores.database()]).unwrap();
    for token in ["APP_USR-", "TG-"] {
        assert!(!dump.contains(token), "PostgreSQL holds a token of MercadoLibre in clear");
    }
    assert!(dump.contains("ml_accounts"), "the dump is none");

    // All stores at once, as the power of a rack goes.
    stores.each().into_iter().for_each(Store::kill);
    assert!(journey(system.gateway()).is_err(), "somebody was served without a store");
    stores.each().into_iter().try_for_each(Store::restart).unwrap();
    let began = Instant::now();
    let second = served(system.gateway());
    note(&format!("all stores killed and back: served again after {:.1?}", began.elapsed()));
    assert_eq!(told(&second, "sync"), items);
    system.lives();

    // The first user and what was counted of it are there still, and no event was lost or counted twice.
    assert!(count(&stores, "select count(*) from users") > users);
    let began = Instant::now();
    loop {
        let events = events(&stores);
        let counted = count(&stores, "select count(*) from analytics_seen_events");
        let summed = count(&stores, "select sum(events) from analytics_totals");
        if (counted, summed) == (events, events) {
            break;
        }
        assert!(
            began.elapsed() < FOUND_AGAIN_WITHIN,
            "{events} events in Kafka, {counted} seen, {summed} counted"
        );
        pause(Duration::from_millis(200));
    }
}
