//! Publishing: one contract for the embedded log and Kafka, and what Kafka's producer does when brokers fail. The
//! brokers that fail are librdkafka's own mock; the contract is kept by a real one.

#![expect(clippy::unwrap_used, reason = "what is not as expected here fails the test")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};
use service_kit::Clock;
use service_kit::eventlog::{EventLog, ML_EVENTS, NewRecord};
use service_kit::events::{Publish, PublishError};
use service_kit::kafka::{Producer, Settings, dead_topic};
use service_kit::testing::kafka::{self, Found};

fn record(id: &str) -> NewRecord {
    NewRecord {
        id: id.to_owned(),
        payload: json!({"id": id, "n": 1}),
        headers: [("traceparent".to_owned(), "00-1".to_owned())].into(),
    }
}

/// What was published, by key and id, in the order of each key.
type Seen = Vec<(String, String, Value, String)>;

/// Events of a key come back complete, in order, with their headers.
async fn keeps_the_contract(publisher: &dyn Publish, read: impl AsyncFn() -> Seen) {
    publisher.reachable().await.unwrap();
    publisher.publish(ML_EVENTS, "k1", vec![record("a"), record("b")]).await.unwrap();
    publisher.publish(ML_EVENTS, "k2", vec![record("x")]).await.unwrap();
    let many: Vec<_> = (0..200).map(|number| record(&format!("c{number}"))).collect();
    publisher.publish(ML_EVENTS, "k1", many).await.unwrap();
    publisher.publish(ML_EVENTS, "k1", Vec::new()).await.unwrap();
    publisher.flush().await;
    let seen = read().await;
    assert_eq!(seen.len(), 203);
    let of = |wanted: &str| -> Vec<String> {
        seen.iter().filter(|(key, ..)| key == wanted).map(|(_, id, ..)| id.clone()).collect()
    };
    let mut expected = vec!["a".to_owned(), "b".to_owned()];
    expected.extend((0..200).map(|number| format!("c{number}")));
    assert_eq!(of("k1"), expected);
    assert_eq!(of("k2"), ["x"]);
    for (_, id, payload, traceparent) in &seen {
        assert_eq!((payload, traceparent.as_str()), (&json!({"id": id, "n": 1}), "00-1"));
    }
}

#[tokio::test]
async fn the_embedded_log_keeps_the_contract_of_publishing() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
    keeps_the_contract(&log.clone(), async || {
        let records = log.read(ML_EVENTS, 0, 1_000).await.unwrap();
        records
            .into_iter()
            .map(|one| (one.key, one.id, one.payload, one.headers["traceparent"].clone()))
            .collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real server: make e2e-services"]
async fn kafka_keeps_the_contract_of_publishing() {
    let mut settings = kafka::cluster();
    let missing = Producer::new(&settings, "test").unwrap().reachable().await.unwrap_err();
    assert!(
        missing.contains("KAFKA_CREATE_TOPICS") && missing.contains(&settings.named(ML_EVENTS)),
        "{missing}"
    );
    settings.create_topics = true;
    settings.partitions = 3;
    let producer = Producer::new(&settings, "test").unwrap();
    keeps_the_contract(&producer, async || {
        let settings = settings.clone();
        let found = tokio::task::spawn_blocking(move || kafka::read_all(&settings, ML_EVENTS).unwrap());
        let seen = |one: Found| {
            let payload = serde_json::from_slice(&one.payload).unwrap();
            (one.key, one.headers["event-id"].clone(), payload, one.headers["traceparent"].clone())
        };
        found.await.unwrap().into_iter().map(seen).collect()
    })
    .await;
    let too_long = NewRecord { payload: json!("x".repeat(2_000_000)), ..record("long") };
    let refused = producer.publish(ML_EVENTS, "k", vec![too_long]).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused(_)), "{refused:?}");
    producer.publish(ML_EVENTS, "k", vec![record("after")]).await.unwrap();
}

fn mock() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, Settings) {
    let cluster = MockCluster::new(1).unwrap();
    for topic in [ML_EVENTS.to_owned(), dead_topic(ML_EVENTS)] {
        cluster.create_topic(&topic, 2, 1).unwrap();
    }
    let settings = Settings::new(cluster.bootstrap_servers());
    (cluster, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_go_away_cost_a_caller_seconds_and_come_back() {
    let (cluster, settings) = mock();
    let producer = Arc::new(Producer::new(&settings, "test").unwrap());
    producer.publish(ML_EVENTS, "k", vec![record("a")]).await.unwrap();
    cluster.broker_down(1).unwrap();
    let began = Instant::now();
    let error = producer.publish(ML_EVENTS, "k", vec![record("b")]).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    // The client knows by now that nobody is there.
    let began = Instant::now();
    producer.publish(ML_EVENTS, "k", vec![record("c")]).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(producer.reachable().await.is_err());
    cluster.broker_up(1).unwrap();
    let began = Instant::now();
    while producer.publish(ML_EVENTS, "k", vec![record("d")]).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the producer does not come back");
    }
    producer.reachable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_fails_for_a_moment_is_asked_again() {
    let (cluster, settings) = mock();
    let producer = Producer::new(&settings, "test").unwrap();
    let failures = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2];
    cluster.request_errors(RDKafkaApiKey::Produce, &failures);
    producer.publish(ML_EVENTS, "k", vec![record("a"), record("b")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_forbidden_may_be_allowed_later() {
    let (cluster, settings) = mock();
    let producer = Producer::new(&settings, "test").unwrap();
    cluster.topic_error(ML_EVENTS, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let error = producer.publish(ML_EVENTS, "k", vec![record("a")]).await.unwrap_err();
    assert!(error.is_transient(), "an operator can allow it: {error:?}");
}

#[tokio::test]
async fn nobody_waits_at_the_start_for_brokers_that_are_not_there() {
    let began = Instant::now();
    let producer = Producer::new(&Settings::new("127.0.0.1:1"), "test").unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    let error = producer.publish(ML_EVENTS, "k", vec![record("a")]).await.unwrap_err();
    assert!(error.is_transient());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
