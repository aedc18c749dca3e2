//! The catalog with a real Kafka: its events go there, and deleted users come from there.

use std::time::Duration;

use catalog_service::erasure::GROUP;
use serde_json::{Value, json};
use service_kit::eventlog::ML_EVENTS;
use service_kit::kafka::{Producer, Settings, dead_topic};
use service_kit::testing::{eventually_within, kafka};

use crate::running::{System, id};

const LIMIT: Duration = Duration::from_secs(30);

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

async fn read(settings: &Settings) -> Vec<(String, Value)> {
    let settings = settings.clone();
    let found = blocking(move || kafka::read_all(&settings, ML_EVENTS).unwrap()).await;
    found.into_iter().map(|one| (one.key, serde_json::from_slice(&one.payload).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn events_go_to_kafka_in_order_and_deleted_users_come_from_there() {
    let settings = kafka::cluster();
    kafka::create(&settings, ML_EVENTS, 3).await.unwrap();
    kafka::create(&settings, &dead_topic(ML_EVENTS), 1).await.unwrap();
    let variables =
        [("KAFKA_BROKERS", settings.brokers.as_str()), ("KAFKA_TOPIC_PREFIX", settings.prefix.as_str())];
    let system = System::new().await;
    let replica = system.start_with(&variables).await;
    let (leaving, staying) = (system.user(&replica, "default"), system.user(&replica, "default"));
    let made = leaving.product("Mine").await;
    leaving.put(id(&made), &json!({"version": 1, "price": 12.5})).await;
    staying.product("Theirs").await;
    let events = eventually_within(LIMIT, "the events", || async {
        let events = read(&settings).await;
        (events.len() == 3).then_some(events)
    })
    .await;
    let versions: Vec<u64> = events
        .iter()
        .filter(|(key, _)| key == id(&made))
        .map(|(_, event)| event["data"]["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [1, 2]);

    let producer = Producer::new(&settings, "test").unwrap();
    system.publish_to(&producer, "user.updated", &staying).await;
    system.publish_to(&producer, "user.deleted", &leaving).await;
    eventually_within(LIMIT, "the erasure", || async { leaving.titles("").await.is_empty().then_some(()) })
        .await;
    assert_eq!(staying.titles("").await, ["Theirs"]);
    replica.stop().await;
    let told = settings.clone();
    let lag = blocking(move || kafka::lag(&told, GROUP, ML_EVENTS).unwrap()).await;
    assert_eq!(lag.values().sum::<i64>(), 0, "{lag:?}");

    // A later start reads on where the last one stopped.
    let replica = system.start_with(&variables).await;
    let staying = staying.at(&replica);
    system.publish_to(&producer, "user.deleted", &staying).await;
    eventually_within(LIMIT, "the second erasure", || async {
        staying.titles("").await.is_empty().then_some(())
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_is_away_stops_neither_the_start_nor_a_request() {
    let system = System::new().await;
    let replica = system.start_with(&[("KAFKA_BROKERS", "127.0.0.1:1")]).await;
    let user = system.user(&replica, "default");
    let began = std::time::Instant::now();
    user.product("Lamp").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(user.titles("").await, ["Lamp"]);
    replica.stop().await;
}
