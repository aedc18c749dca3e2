//! What every analytics database must do, as one suite: each adapter runs [`run`] with a way to open an empty one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use super::{AnalyticsStore, Applied, Batch, Counts, DeadLetter, Partition, Record, Retention};
use crate::event::{Event, Owner, USER_DELETED};
use crate::fold::Total;
use crate::query::{Bucket, Range};

/// Runs the whole suite, every part on a store of its own.
pub async fn run<F, S>(open: F)
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn AnalyticsStore>>,
{
    a_batch_is_counted_and_its_position_kept(&*open().await).await;
    positions_of_groups_and_partitions_are_apart(&*open().await).await;
    a_batch_read_at_another_position_changes_nothing(&*open().await).await;
    an_event_counts_once_wherever_it_stands(&*open().await).await;
    an_unreadable_record_is_kept_aside(&*open().await).await;
    an_erased_user_leaves_nothing_and_stays_out(&*open().await).await;
    hours_are_answered_by_range(&*open().await).await;
    a_partition_has_one_holder(&*open().await).await;
    pruning_takes_what_is_old_and_leaves_totals(&*open().await).await;
    of_concurrent_replicas_one_applies_each_batch(open().await).await;
    a_log_read_with_repetitions_adds_up_like_one_pass(&*open().await).await;
    open().await.check().await.unwrap();
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn owner(user: u128) -> Owner {
    Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(user) }
}

fn partition() -> Partition {
    Partition { topic: "ml-events".to_owned(), number: 0, group: "analytics".to_owned() }
}

fn event(id: u128, event_type: &str, user: u128, second: i64) -> Event {
    Event {
        id: Uuid::from_u128(id),
        event_type: event_type.to_owned(),
        owner: Some(owner(user)),
        at: at(second),
    }
}

fn record(position: u64, event: Event) -> Record {
    Record { position, content: Ok(event) }
}

fn batch(after: u64, records: Vec<Record>) -> Batch {
    Batch { partition: partition(), after, records, at: at(1_000_000) }
}

fn done(counted: u64, duplicate: u64, skipped: u64, dead: u64) -> Applied {
    Applied::Done(Counts { counted, duplicate, skipped, dead })
}

async fn events(store: &dyn AnalyticsStore, user: u128) -> BTreeMap<String, u64> {
    let totals = store.totals(&owner(user)).await.unwrap();
    totals.into_iter().map(|(event_type, total)| (event_type, total.events)).collect()
}

fn all_hours() -> Range {
    Range { from: 0, to: 1_000_000, bucket: Bucket::Hour }
}

async fn a_batch_is_counted_and_its_position_kept(store: &dyn AnalyticsStore) {
    assert_eq!(store.position(&partition()).await.unwrap(), 0);
    let first = vec![
        record(3, event(1, "product.created", 1, 100)),
        record(4, event(2, "product.created", 1, 50)),
        record(7, event(3, "item.updated", 2, 10)),
    ];
    assert_eq!(store.apply(batch(0, first)).await.unwrap(), done(3, 0, 0, 0));
    assert_eq!(store.position(&partition()).await.unwrap(), 7, "positions may have gaps");
    let second = vec![record(8, event(4, "product.created", 1, 60))];
    assert_eq!(store.apply(batch(7, second)).await.unwrap(), done(1, 0, 0, 0));
    let totals = store.totals(&owner(1)).await.unwrap();
    assert_eq!(totals, [("product.created".to_owned(), Total { events: 3, last_at: at(100) })]);
    assert!(events(store, 99).await.is_empty());
    let stranger = Owner { tenant: "other".to_owned(), ..owner(1) };
    assert!(store.totals(&stranger).await.unwrap().is_empty(), "a namesake of another tenant sees nothing");
}

async fn positions_of_groups_and_partitions_are_apart(store: &dyn AnalyticsStore) {
    store.apply(batch(0, vec![record(5, event(1, "a", 1, 0))])).await.unwrap();
    let other_partition = Partition { number: 1, ..partition() };
    let other_group = Partition { group: "audit".to_owned(), ..partition() };
    for other in [other_partition, other_group] {
        assert_eq!(store.position(&other).await.unwrap(), 0, "{other:?}");
    }
}

async fn a_batch_read_at_another_position_changes_nothing(store: &dyn AnalyticsStore) {
    let first = batch(0, vec![record(1, event(1, "a", 1, 0)), record(2, event(2, "a", 1, 0))]);
    store.apply(first.clone()).await.unwrap();
    assert_eq!(store.apply(first).await.unwrap(), Applied::Moved, "delivered again");
    let ahead = batch(9, vec![record(10, event(3, "a", 1, 0))]);
    assert_eq!(store.apply(ahead).await.unwrap(), Applied::Moved, "nothing is skipped");
    assert_eq!(store.position(&partition()).await.unwrap(), 2);
    assert_eq!(events(store, 1).await["a"], 2);
}

async fn an_event_counts_once_wherever_it_stands(store: &dyn AnalyticsStore) {
    let twice =
        vec![record(1, event(1, "a", 1, 0)), record(2, event(1, "a", 1, 0)), record(3, event(2, "a", 1, 0))];
    assert_eq!(store.apply(batch(0, twice)).await.unwrap(), done(2, 1, 0, 0));
    let again = vec![record(4, event(2, "a", 1, 0)), record(5, event(3, "a", 1, 0))];
    assert_eq!(store.apply(batch(3, again)).await.unwrap(), done(1, 1, 0, 0));
    assert_eq!(events(store, 1).await["a"], 3);
}

async fn an_unreadable_record_is_kept_aside(store: &dyn AnalyticsStore) {
    let letter = DeadLetter { reason: "no envelope".to_owned(), payload: "{".to_owned() };
    let records = vec![
        record(1, event(1, "a", 1, 0)),
        Record { position: 2, content: Err(letter.clone()) },
        record(3, event(2, "a", 1, 0)),
    ];
    assert_eq!(store.apply(batch(0, records)).await.unwrap(), done(2, 0, 0, 1));
    assert_eq!(store.position(&partition()).await.unwrap(), 3, "it blocks nothing");
    assert_eq!(store.dead_letters(10).await.unwrap(), [(2, letter)]);
    let last = DeadLetter { reason: "last".to_owned(), payload: String::new() };
    let only_dead = vec![Record { position: 4, content: Err(last.clone()) }];
    assert_eq!(store.apply(batch(3, only_dead)).await.unwrap(), done(0, 0, 0, 1));
    assert_eq!(store.position(&partition()).await.unwrap(), 4);
    assert_eq!(store.dead_letters(1).await.unwrap(), [(4, last)]);
}

async fn an_erased_user_leaves_nothing_and_stays_out(store: &dyn AnalyticsStore) {
    let before = vec![record(1, event(1, "a", 1, 0)), record(2, event(2, "a", 2, 0))];
    store.apply(batch(0, before)).await.unwrap();
    let erasure = vec![
        record(3, event(3, "a", 1, 0)),
        record(4, event(4, USER_DELETED, 1, 0)),
        record(5, event(5, "a", 1, 0)),
    ];
    assert_eq!(store.apply(batch(2, erasure)).await.unwrap(), done(0, 0, 3, 0));
    let late = vec![record(6, event(6, "a", 1, 0)), record(7, event(7, "a", 2, 0))];
    assert_eq!(store.apply(batch(5, late)).await.unwrap(), done(1, 0, 1, 0));
    assert!(events(store, 1).await.is_empty());
    assert!(store.hours(&owner(1), all_hours()).await.unwrap().is_empty());
    assert_eq!(events(store, 2).await["a"], 2);
}

async fn hours_are_answered_by_range(store: &dyn AnalyticsStore) {
    let seconds = [3_599, 3_600, 7_199, 7_200, 10_800];
    let records =
        seconds.iter().zip(1..).map(|(second, id)| record(id, event(u128::from(id), "a", 1, *second)));
    store.apply(batch(0, records.collect())).await.unwrap();
    let hours = store.hours(&owner(1), Range { from: 1, to: 3, bucket: Bucket::Hour }).await.unwrap();
    let hours: Vec<_> = hours.iter().map(|row| (row.hour, row.event_type.as_str(), row.events)).collect();
    assert_eq!(hours, [(1, "a", 2), (2, "a", 1)]);
}

async fn a_partition_has_one_holder(store: &dyn AnalyticsStore) {
    let ours = partition();
    let other = Partition { number: 1, ..partition() };
    let assign = |holder: &'static str, now, until| store.assign(&ours, holder, at(now), at(until));
    assert!(assign("one", 0, 10).await.unwrap());
    assert!(!assign("two", 9, 19).await.unwrap(), "it is taken");
    assert!(assign("one", 9, 20).await.unwrap(), "the holder renews");
    assert!(store.assign(&other, "two", at(9), at(19)).await.unwrap(), "partitions are apart");
    assert!(assign("two", 20, 30).await.unwrap(), "what ended is free");
    store.unassign(&ours, "one").await.unwrap();
    assert!(!assign("one", 21, 31).await.unwrap(), "only the holder gives it back");
    store.unassign(&ours, "two").await.unwrap();
    assert!(assign("one", 21, 31).await.unwrap());
}

async fn pruning_takes_what_is_old_and_leaves_totals(store: &dyn AnalyticsStore) {
    let old = Batch {
        at: at(100),
        ..batch(
            0,
            vec![
                record(1, event(1, "a", 1, 0)),
                record(2, event(2, USER_DELETED, 2, 0)),
                Record {
                    position: 3,
                    content: Err(DeadLetter { reason: "r".to_owned(), payload: "p".to_owned() }),
                },
            ],
        )
    };
    store.apply(old).await.unwrap();
    let retention = |second| Retention {
        seen_before: at(second),
        dead_before: at(second),
        erased_before: at(second),
        hours_before: second / 100,
    };
    assert_eq!(store.prune(retention(99)).await.unwrap(), 0);
    assert_eq!(
        store.prune(retention(101)).await.unwrap(),
        5,
        "two identities, one letter, one mark, one hour"
    );
    assert_eq!(events(store, 1).await["a"], 1);
    assert!(store.hours(&owner(1), all_hours()).await.unwrap().is_empty());
    let again = vec![record(4, event(1, "a", 1, 0)), record(5, event(3, "a", 2, 0))];
    assert_eq!(store.apply(batch(3, again)).await.unwrap(), done(2, 0, 0, 0), "what was pruned is forgotten");
}

async fn of_concurrent_replicas_one_applies_each_batch(store: Arc<dyn AnalyticsStore>) {
    let replicas: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut counted = 0;
                loop {
                    let after = store.position(&partition()).await.unwrap();
                    if after == 20 {
                        return counted;
                    }
                    let records = (after + 1..=after + 5)
                        .map(|position| record(position, event(u128::from(position), "a", 1, 0)))
                        .collect();
                    if let Applied::Done(counts) = store.apply(batch(after, records)).await.unwrap() {
                        counted += counts.counted;
                    }
                }
            })
        })
        .collect();
    let mut counted = 0;
    for replica in replicas {
        counted += replica.await.unwrap();
    }
    assert_eq!(counted, 20);
    assert_eq!(events(&*store, 1).await["a"], 20);
}

/// Batches of random length, each delivered up to three times, over a log in which events repeat, against a plain sum.
async fn a_log_read_with_repetitions_adds_up_like_one_pass(store: &dyn AnalyticsStore) {
    let mut random = Random(7);
    let types = ["product.created", "product.updated", "item.updated"];
    let log: Vec<Event> = (0..600)
        .map(|_| {
            // The event follows from its identity, so that a second one with it is a repetition.
            let id = u128::from(random.below(450));
            let event_type = if id % 97 == 96 { USER_DELETED } else { types[(id % 3) as usize] };
            event(id, event_type, id % 5, (id * 1_000) as i64)
        })
        .collect();

    let mut seen = BTreeSet::new();
    let mut erased = BTreeSet::new();
    let mut expected: BTreeMap<(u128, String), u64> = BTreeMap::new();
    for event in log.iter().filter(|event| seen.insert(event.id)) {
        let user = event.owner.as_ref().unwrap().user_id.as_u128();
        if event.event_type == USER_DELETED {
            erased.insert(user);
            expected.retain(|(of, _), _| *of != user);
        } else if !erased.contains(&user) {
            *expected.entry((user, event.event_type.clone())).or_default() += 1;
        }
    }
    assert!(!erased.is_empty() && !expected.is_empty() && seen.len() < log.len(), "the log has every case");

    let mut after = 0;
    while after < log.len() as u64 {
        let length = 1 + random.below(40);
        let records = log.iter().zip(1..).skip(after as usize).take(length as usize);
        let batch = batch(after, records.map(|(event, position)| record(position, event.clone())).collect());
        after = batch.records.last().unwrap().position;
        assert!(matches!(store.apply(batch.clone()).await.unwrap(), Applied::Done(_)));
        for _ in 0..random.below(3) {
            assert_eq!(store.apply(batch.clone()).await.unwrap(), Applied::Moved);
        }
    }
    let mut counted = BTreeMap::new();
    let mut by_hours = BTreeMap::new();
    for user in 0..5 {
        counted.extend(
            events(store, user).await.into_iter().map(|(event_type, events)| ((user, event_type), events)),
        );
        for row in store.hours(&owner(user), all_hours()).await.unwrap() {
            *by_hours.entry((user, row.event_type)).or_default() += row.events;
        }
    }
    assert_eq!(counted, expected);
    assert_eq!(by_hours, expected, "hours and totals tell the same");
}

/// A small generator (xorshift), so that every run sees the same log.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
