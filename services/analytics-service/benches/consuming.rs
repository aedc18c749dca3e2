//! How many events a core counts: a topic is filled, then a consumer in this process catches up. CPU by getrusage, all
//! threads of the process: Kafka's client and the embedded database are in it, the broker and PostgreSQL are not.
//!
//! `MLCTL_TEST_KAFKA_BROKERS=HOST:PORT cargo bench -p analytics-service --bench consuming -- [EVENTS] [USERS] [postgresql]`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for measuring")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_service::consumer::GROUP;
use analytics_service::counting::Counting;
use analytics_service::metrics::ConsumerMetrics;
use analytics_service::store::postgres::PostgresStore;
use analytics_service::store::sqlite::SqliteStore;
use analytics_service::store::{AnalyticsStore, Partition};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::json;
use service_kit::eventlog::{Headers, ML_EVENTS, NewRecord};
use service_kit::events::Publish as _;
use service_kit::health::Kind;
use service_kit::kafka::{Consumer, Producer, Shown, dead_topic};
use service_kit::postgres::Pool;
use service_kit::testing::{kafka, servers};
use service_kit::{Base, Clock, Health, Metrics, Shutdown};
use uuid::Uuid;

const PARTITIONS: u32 = 6;

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let (events, users) = (*numbers.first().unwrap_or(&100_000), *numbers.get(1).unwrap_or(&1_000));
    let settings = kafka::cluster();
    kafka::create(&settings, ML_EVENTS, PARTITIONS as i32).await.unwrap();
    kafka::create(&settings, &dead_topic(ML_EVENTS), 1).await.unwrap();
    let producer = Arc::new(Producer::new(&settings, "bench").unwrap());
    let users: Vec<Uuid> = (0..users).map(|_| Uuid::new_v4()).collect();
    let (began, before) = (Instant::now(), cpu());
    for chunk in 0..events.div_ceil(200) {
        // One key a call, as the services publish.
        let user = users[chunk % users.len()];
        let records = (0..200).map(|number| {
            let id = Uuid::new_v4();
            let types = ["product.created", "product.updated", "item.updated"];
            let payload = json!({
                "id": id, "type": types[number % 3], "tenant": "default", "user_id": users[(chunk * 7 + number) % users.len()],
                "at": jiff::Timestamp::now(), "data": {"ml_item_id": "MLA123456", "status": "active", "price": 12.5,
                "available_quantity": 3, "last_updated": "2026-11-24T03:00:00Z", "deleted": false, "source": "sync"},
            });
            NewRecord { id: id.to_string(), payload, headers: Headers::new() }
        });
        producer.publish(ML_EVENTS, &user.to_string(), records.collect()).await.unwrap();
    }
    let events = events.div_ceil(200) * 200;
    let (took, used) = (began.elapsed().as_secs_f64(), cpu() - before);
    println!(
        "published {events} events: {:.0} a second, {:.0} a second of CPU",
        events as f64 / took,
        events as f64 / used
    );

    let folder = tempfile::tempdir().unwrap();
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let store: Arc<dyn AnalyticsStore> = if std::env::args().any(|argument| argument == "postgresql") {
        let url = servers::postgresql(&migrations.join("postgres")).await.unwrap();
        Arc::new(PostgresStore::new(Pool::new("postgresql", "bench", &url, 2).unwrap()))
    } else {
        let database = folder.path().join("database.db");
        service_kit::testing::migrate(&database, &migrations.join("sqlite")).unwrap();
        Arc::new(SqliteStore::new(&database))
    };
    let metrics = ConsumerMetrics::register(&Metrics::new(), None);
    let identity = analytics_service::IDENTITY;
    let health = Health::new(identity, &Base::new(identity));
    let shown = Shown { lag: metrics.by_partition(), check: health.check("consumer", Kind::Info) };
    let counting = Arc::new(Counting::new(Arc::clone(&store), Clock::system(), metrics));
    let (trigger, shutdown) = Shutdown::channel();
    let (mut began, mut before, mut first) = (Instant::now(), cpu(), 0);
    let consumer = Consumer::new(&settings, ML_EVENTS, GROUP, counting, producer, shown).unwrap();
    let task = tokio::spawn(consumer.run(shutdown));
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut done = 0;
        for number in 0..PARTITIONS {
            let partition =
                Partition { topic: settings.named(ML_EVENTS), number, group: settings.named(GROUP) };
            done += store.position(&partition).await.unwrap() as usize;
        }
        if done > 0 && first == 0 {
            // Joining the group is not counting.
            (began, before, first) = (Instant::now(), cpu(), done);
        }
        if done == events {
            break;
        }
    }
    let (took, used, counted) = (began.elapsed().as_secs_f64(), cpu() - before, (events - first) as f64);
    println!(
        "counted {counted} events in {took:.1} s: {:.0} a second, {:.0} a second of CPU",
        counted / took,
        counted / used
    );
    let backlog = 600_000.0;
    println!(
        "an hour behind at 10,000 events a minute ({backlog} events, as many again coming in): {:.0} s",
        backlog / (counted / took - 10_000.0 / 60.0)
    );
    trigger.drain();
    task.await.unwrap();
}
