//! Batches that end in the wrong moment, events that nobody can read, and what is shown of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use analytics_service::counting::Counting;
use analytics_service::event::{Event, USER_DELETED};
use async_trait::async_trait;
use serde_json::json;
use service_kit::eventlog::ML_EVENTS;
use service_kit::events::{Applied, Batch, Delivered, Effect, EffectError, Partition};
use service_kit::kafka::dead_topic;
use service_kit::testing::{eventually_within, kafka};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::world::{Kept, Random, World, event, users};

const LIMIT: Duration = Duration::from_secs(60);

/// What a test does to a counting consumer.
#[derive(Default)]
struct Fault {
    /// Batches that are stored before the one after which nothing more happens; none when too large.
    stuck_after: Option<usize>,
    stored: AtomicUsize,
    stuck: Notify,
    /// The database is away.
    away: AtomicBool,
    /// The event that the database refuses.
    refused: Option<Uuid>,
}

struct Faulty(Counting, Arc<Fault>);

#[async_trait]
impl Effect for Faulty {
    type Event = Event;

    fn read(&self, record: &Delivered) -> Result<Event, String> {
        self.0.read(record)
    }

    async fn position(&self, partition: &Partition) -> Result<Option<u64>, EffectError> {
        self.0.position(partition).await
    }

    async fn apply(&self, batch: Batch<Event>) -> Result<Applied, EffectError> {
        let fault = &self.1;
        if fault.away.load(Ordering::SeqCst) {
            return Err(EffectError::Unavailable("the test says so".into()));
        }
        if batch.records.iter().any(|(_, read)| read.as_ref().is_ok_and(|e| Some(e.id) == fault.refused)) {
            return Err(EffectError::Refused("the test says so".into()));
        }
        let applied = self.0.apply(batch).await;
        if Some(fault.stored.fetch_add(1, Ordering::SeqCst)) == fault.stuck_after {
            // Stored, and Kafka is not told: the task ends here.
            fault.stuck.notify_one();
            std::future::pending::<()>().await;
        }
        applied
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn a_consumer_that_ends_between_the_commit_and_the_offset_counts_once() {
    end_between_commit_and_offset(Kept::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn a_consumer_that_ends_between_the_commit_and_the_offset_counts_once_in_postgresql() {
    end_between_commit_and_offset(Kept::Postgresql).await;
}

async fn end_between_commit_and_offset(kept: Kept) {
    let world = World::with(kept, 3).await;
    let mut random = Random(11);
    let users = users(9);
    world.publish_mixture(&users, 150, &mut random).await;
    for stuck_after in [0, 1, 2, 0] {
        let fault = Arc::new(Fault { stuck_after: Some(stuck_after), ..Fault::default() });
        let replica = world.start(|counting| Faulty(counting, Arc::clone(&fault)));
        tokio::time::timeout(LIMIT, fault.stuck.notified()).await.unwrap();
        let (stored, told) = (world.positions().await, world.lag().await);
        replica.task.abort();
        let _cut_off = replica.task.await;
        assert!(stored.values().sum::<i64>() > 0);
        assert!(told.values().sum::<i64>() > 0, "Kafka was not told of everything");
        world.publish_mixture(&users, 20, &mut random).await;
    }
    let replica = world.start(|counting| counting);
    world.caught_up(LIMIT).await;
    replica.stop().await;
    assert!(world.compare_with_replay().await > 9 * 190);
    assert_eq!(world.lag().await.values().sum::<i64>(), 0, "the stop told Kafka where the database is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn consumers_that_join_and_leave_in_the_middle_of_batches_count_once() {
    join_and_leave(Kept::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn consumers_that_join_and_leave_in_the_middle_of_batches_count_once_in_postgresql() {
    join_and_leave(Kept::Postgresql).await;
}

async fn join_and_leave(kept: Kept) {
    let world = Arc::new(World::with(kept, 4).await);
    let users = users(12);
    let publishing = {
        let (world, users) = (Arc::clone(&world), users.clone());
        tokio::spawn(async move {
            let mut random = Random(5);
            for _ in 0..60 {
                world.publish_mixture(&users, 10, &mut random).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            for user in &users[..2] {
                let late = vec![event(USER_DELETED, *user), event("item.updated", *user)];
                world.publish(&user.to_string(), late).await;
            }
        })
    };
    let one = world.start(|counting| counting);
    eventually_within(LIMIT, "the first assignment", || async { (one.lag().len() == 4).then_some(()) }).await;
    let two = world.start(|counting| counting);
    eventually_within(LIMIT, "the second's share", || async {
        (one.lag().len() == 2 && two.lag().len() == 2).then_some(())
    })
    .await;
    let three = world.start(|counting| counting);
    eventually_within(LIMIT, "the third's share, and each partition shown once", || async {
        let shown: Vec<i32> = [&one, &two, &three].iter().flat_map(|one| one.lag().into_keys()).collect();
        let partitions: BTreeSet<i32> = shown.iter().copied().collect();
        (!three.lag().is_empty() && shown.len() == 4 && partitions.len() == 4).then_some(())
    })
    .await;
    one.stop().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let four = world.start(|counting| counting);
    two.stop().await;
    publishing.await.unwrap();
    world.caught_up(LIMIT).await;
    eventually_within(LIMIT, "each partition shown once", || async {
        (three.lag().len() + four.lag().len() == 4).then_some(())
    })
    .await;
    three.stop().await;
    four.stop().await;
    world.compare_with_replay().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn the_lag_is_the_brokers_own() {
    let world = World::new(2).await;
    let fault = Arc::new(Fault::default());
    let replica = world.start(|counting| Faulty(counting, Arc::clone(&fault)));
    let mut random = Random(3);
    let users = users(6);
    world.publish_mixture(&users, 30, &mut random).await;
    world.caught_up(LIMIT).await;
    fault.away.store(true, Ordering::SeqCst);
    world.publish_mixture(&users, 100, &mut random).await;
    let lag = eventually_within(LIMIT, "the lag", || async {
        let (shown, brokers) = (replica.lag(), world.lag().await);
        (shown == brokers && shown.values().sum::<i64>() >= 600).then_some(shown)
    })
    .await;
    assert_eq!(lag.len(), 2);
    assert!(replica.detail().contains("the test says so"), "{}", replica.detail());
    fault.away.store(false, Ordering::SeqCst);
    world.caught_up(LIMIT).await;
    eventually_within(LIMIT, "no lag", || async {
        let zero = BTreeMap::from([(0, 0), (1, 0)]);
        (replica.lag() == zero && world.lag().await == zero).then_some(())
    })
    .await;
    replica.stop().await;
    world.compare_with_replay().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn poison_goes_aside_with_its_reason_and_nothing_waits_for_it() {
    let world = World::new(1).await;
    let user = users(1)[0];
    let refused = event("product.created", user);
    let fault = Fault { refused: refused["id"].as_str().unwrap().parse().ok(), ..Fault::default() };
    world
        .publish(
            "k",
            vec![
                event("product.created", user),
                json!({"id": "x\u{0}"}),
                refused,
                event("product.updated", user),
            ],
        )
        .await;
    let replica = world.start(|counting| Faulty(counting, Arc::new(fault)));
    world.caught_up(LIMIT).await;
    replica.stop().await;
    let totals: Vec<_> = world.totals().await.into_iter().map(|((_, kind), events)| (kind, events)).collect();
    assert_eq!(totals, [("product.created".to_owned(), 1), ("product.updated".to_owned(), 1)]);
    let in_database = world.dead().await;
    assert_eq!(in_database.keys().copied().collect::<Vec<_>>(), [(0, 1), (0, 2)]);
    let settings = world.settings.clone();
    let letters =
        tokio::task::spawn_blocking(move || kafka::read_all(&settings, &dead_topic(ML_EVENTS)).unwrap())
            .await
            .unwrap();
    let offsets: Vec<&str> = letters.iter().map(|letter| letter.headers["dead-offset"].as_str()).collect();
    assert_eq!(offsets, ["1", "2"]);
    for letter in &letters {
        assert_eq!(letter.key, "k");
        assert_eq!(letter.headers["dead-topic"], world.settings.named(ML_EVENTS));
        let offset: i64 = letter.headers["dead-offset"].parse().unwrap();
        assert_eq!(letter.headers["dead-reason"], in_database[&(0, offset)]);
    }
    assert!(letters[1].headers["dead-reason"].contains("the test says so"), "{:?}", letters[1].headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn a_partition_whose_poison_cannot_be_put_aside_stops_and_says_so() {
    let world = World::without_dead_letters(Kept::Sqlite, 2).await;
    let user = users(1)[0];
    let replica = world.start(|counting| counting);
    // Until a key of each partition is known.
    let mut keys: BTreeMap<i32, String> = BTreeMap::new();
    while keys.len() < 2 {
        let key = Uuid::new_v4().to_string();
        world.publish(&key, vec![event("product.created", user)]).await;
        let settings = world.settings.clone();
        let all = tokio::task::spawn_blocking(move || kafka::read_all(&settings, ML_EVENTS).unwrap())
            .await
            .unwrap();
        keys.extend(all.into_iter().map(|record| (record.partition, record.key)));
    }
    world.publish(&keys[&0], vec![json!({"id": "x"}), event("product.updated", user)]).await;
    eventually_within(LIMIT, "the stop", || async { (replica.stopped().get(&0) == Some(&1)).then_some(()) })
        .await;
    assert!(replica.detail().contains("partition 0 waits"), "{}", replica.detail());
    world.publish(&keys[&1], vec![event("product.deleted", user)]).await;
    eventually_within(LIMIT, "the other partition", || async {
        world.totals().await.contains_key(&(user.to_string(), "product.deleted".to_owned())).then_some(())
    })
    .await;
    assert!(world.dead().await.is_empty());
    assert!(
        !world.totals().await.contains_key(&(user.to_string(), "product.updated".to_owned())),
        "nothing is skipped"
    );
    world.create_dead_topic().await;
    world.caught_up(LIMIT).await;
    eventually_within(LIMIT, "no stop", || async { (replica.stopped().get(&0) == Some(&0)).then_some(()) })
        .await;
    replica.stop().await;
    world.compare_with_replay().await;
}
