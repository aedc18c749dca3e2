//! A topic, a database, and the oracle that compares them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use analytics_service::IDENTITY;
use analytics_service::consumer::GROUP;
use analytics_service::counting::Counting;
use analytics_service::event::{Event, USER_DELETED};
use analytics_service::metrics::ConsumerMetrics;
use analytics_service::store::AnalyticsStore;
use analytics_service::store::postgres::PostgresStore;
use analytics_service::store::sqlite::SqliteStore;
use rusqlite::Connection;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use service_kit::eventlog::{Headers, ML_EVENTS, NewRecord};
use service_kit::events::{Effect, Publish as _};
use service_kit::health::Kind;
use service_kit::kafka::{Consumer, Producer, Settings, Shown, dead_topic};
use service_kit::postgres::Pool;
use service_kit::testing::{kafka, servers};
use service_kit::{Base, Clock, Health, Metrics, Shutdown, ShutdownTrigger};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Counts by user and type.
pub type Totals = BTreeMap<(String, String), i64>;

/// What the replicas of a test share.
pub struct World {
    pub settings: Settings,
    pub producer: Arc<Producer>,
    database: Database,
    _folder: TempDir,
}

/// The kinds of database that analytics-service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Sqlite,
    Postgresql,
}

enum Database {
    Sqlite(PathBuf),
    Postgres(SecretString),
}

/// One consumer in this process.
pub struct Replica {
    pub metrics: Metrics,
    pub health: Health,
    pub task: JoinHandle<()>,
    trigger: ShutdownTrigger,
}

impl World {
    /// A topic of so many partitions with its topic of dead letters, and an empty database.
    pub async fn new(partitions: i32) -> Self {
        Self::with(Kept::Sqlite, partitions).await
    }

    /// [`World::new`] with a kind of database.
    pub async fn with(kept: Kept, partitions: i32) -> Self {
        let world = Self::without_dead_letters(kept, partitions).await;
        world.create_dead_topic().await;
        world
    }

    pub async fn without_dead_letters(kept: Kept, partitions: i32) -> Self {
        let settings = kafka::cluster();
        kafka::create(&settings, ML_EVENTS, partitions).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let database = match kept {
            Kept::Sqlite => {
                let path = folder.path().join("database.db");
                service_kit::testing::migrate(&path, &migrations.join("sqlite")).unwrap();
                Database::Sqlite(path)
            }
            Kept::Postgresql => {
                Database::Postgres(servers::postgresql(&migrations.join("postgres")).await.unwrap())
            }
        };
        let producer = Arc::new(Producer::new(&settings, "test").unwrap());
        Self { settings, producer, database, _folder: folder }
    }

    pub async fn create_dead_topic(&self) {
        kafka::create(&self.settings, &dead_topic(ML_EVENTS), 1).await.unwrap();
    }

    /// The database as `DATABASE_URL` says it.
    pub fn database_url(&self) -> String {
        match &self.database {
            Database::Sqlite(path) => format!("sqlite:{}", path.display()),
            Database::Postgres(url) => url.expose_secret().to_owned(),
        }
    }

    fn counting(&self, metrics: &ConsumerMetrics) -> Counting {
        let store: Arc<dyn AnalyticsStore> = match &self.database {
            Database::Sqlite(path) => Arc::new(SqliteStore::new(path)),
            Database::Postgres(url) => {
                Arc::new(PostgresStore::new(Pool::new("postgresql", "test", url, 2).unwrap()))
            }
        };
        Counting::new(store, Clock::system(), metrics.clone())
    }

    /// Starts a consumer with the effect that `wrap` makes of counting.
    pub fn start<E: Effect>(&self, wrap: impl FnOnce(Counting) -> E) -> Replica {
        let metrics = Metrics::new();
        let of_consumer = ConsumerMetrics::register(&metrics, None);
        let health = Health::new(IDENTITY, &Base::new(IDENTITY));
        let shown = Shown { lag: of_consumer.by_partition(), check: health.check("consumer", Kind::Info) };
        let effect = Arc::new(wrap(self.counting(&of_consumer)));
        let producer = Arc::clone(&self.producer);
        let consumer = Consumer::new(&self.settings, ML_EVENTS, GROUP, effect, producer, shown).unwrap();
        let (trigger, shutdown) = Shutdown::channel();
        Replica { metrics, health, task: tokio::spawn(consumer.run(shutdown)), trigger }
    }

    /// Publishes payloads under a key.
    pub async fn publish(&self, key: &str, payloads: Vec<Value>) {
        let records = payloads.into_iter().map(|payload| NewRecord {
            id: payload["id"].as_str().unwrap_or("none").to_owned(),
            payload,
            headers: Headers::new(),
        });
        self.producer.publish(ML_EVENTS, key, records.collect()).await.unwrap();
    }

    /// Publishes `count` events of each of `users`, some of them twice, some of them unreadable.
    pub async fn publish_mixture(&self, users: &[Uuid], count: usize, random: &mut Random) {
        for user in users {
            let mut payloads = Vec::new();
            for _ in 0..count {
                let types = ["product.created", "product.updated", "item.updated"];
                let event = event(types[random.below(3)], *user);
                match random.below(20) {
                    0 => payloads.push(json!({"id": Uuid::new_v4(), "type": "No Type"})),
                    1 => payloads.extend([event.clone(), event]),
                    _ => payloads.push(event),
                }
            }
            self.publish(&user.to_string(), payloads).await;
        }
    }

    /// Answers a question in both dialects: two texts and a number a row.
    async fn rows(&self, sql: &'static str) -> Vec<(String, String, i64)> {
        match &self.database {
            Database::Sqlite(path) => {
                let connection = Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(10)).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let rows =
                    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
                rows.collect::<Result<_, _>>().unwrap()
            }
            Database::Postgres(url) => {
                let mut connection = PgConnection::connect(url.expose_secret()).await.unwrap();
                sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap()
            }
        }
    }

    /// What the database counted.
    pub async fn totals(&self) -> Totals {
        let sql = "SELECT CAST(user_id AS text), event_type, events FROM analytics_totals";
        self.rows(sql).await.into_iter().map(|(user, kind, events)| ((user, kind), events)).collect()
    }

    /// The same from its hours.
    pub async fn totals_of_hours(&self) -> Totals {
        let sql = "SELECT CAST(user_id AS text), event_type, CAST(sum(events) AS bigint) FROM analytics_hours
                   GROUP BY 1, 2";
        self.rows(sql).await.into_iter().map(|(user, kind, events)| ((user, kind), events)).collect()
    }

    /// Partition, offset and reason of each dead letter in the database.
    pub async fn dead(&self) -> BTreeMap<(i64, i64), String> {
        let sql = "SELECT CAST(partition AS text), reason, position - 1 FROM analytics_dead_events";
        let rows = self.rows(sql).await.into_iter();
        rows.map(|(partition, reason, offset)| ((partition.parse().unwrap(), offset), reason)).collect()
    }

    /// The position of each partition.
    pub async fn positions(&self) -> BTreeMap<i32, i64> {
        let sql = "SELECT CAST(partition AS text), topic, position FROM analytics_positions";
        let rows = self.rows(sql).await.into_iter();
        rows.map(|(partition, _, position)| (partition.parse().unwrap(), position)).collect()
    }

    /// Waits until the database is at the end of every partition.
    pub async fn caught_up(&self, limit: Duration) {
        let started = Instant::now();
        loop {
            let (settings, group) = (self.settings.clone(), format!("nobody-{}", Uuid::new_v4()));
            let ends = tokio::task::spawn_blocking(move || kafka::lag(&settings, &group, ML_EVENTS).unwrap())
                .await
                .unwrap();
            let positions = self.positions().await;
            let behind: Vec<_> = ends
                .iter()
                .filter(|(partition, end)| positions.get(partition).copied().unwrap_or(0) < **end)
                .collect();
            if behind.is_empty() {
                return;
            }
            assert!(started.elapsed() < limit, "not caught up: {behind:?}, positions {positions:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Reads the topic from its beginning and compares what it adds up to with the database.
    pub async fn compare_with_replay(&self) -> usize {
        let settings = self.settings.clone();
        let records = tokio::task::spawn_blocking(move || kafka::read_all(&settings, ML_EVENTS).unwrap())
            .await
            .unwrap();
        let (mut seen, mut erased) = (BTreeSet::new(), BTreeSet::new());
        let (mut totals, mut dead) = (Totals::new(), BTreeSet::new());
        for record in &records {
            let payload = serde_json::from_slice::<Value>(&record.payload).ok();
            let Some(event) = payload.and_then(|payload| Event::read(&payload).ok()) else {
                dead.insert((i64::from(record.partition), record.offset));
                continue;
            };
            let user = event.owner.unwrap().user_id.to_string();
            if !seen.insert(event.id) || erased.contains(&user) {
                continue;
            }
            if event.event_type == USER_DELETED {
                totals.retain(|(of, _), _| *of != user);
                erased.insert(user);
            } else {
                *totals.entry((user, event.event_type)).or_default() += 1;
            }
        }
        assert_eq!(self.totals().await, totals, "totals and the replay of {} records", records.len());
        assert_eq!(self.totals_of_hours().await, totals, "hours");
        assert_eq!(self.dead().await.into_keys().collect::<BTreeSet<_>>(), dead, "dead letters");
        records.len()
    }

    /// The broker's own figure of the group's lag.
    pub async fn lag(&self) -> BTreeMap<i32, i64> {
        let settings = self.settings.clone();
        tokio::task::spawn_blocking(move || kafka::lag(&settings, GROUP, ML_EVENTS).unwrap()).await.unwrap()
    }
}

impl Replica {
    /// The lag that the replica shows, by partition.
    pub fn lag(&self) -> BTreeMap<i32, i64> {
        self.series("kafka_consumer_lag{")
    }

    pub fn stopped(&self) -> BTreeMap<i32, i64> {
        self.series("kafka_consumer_stopped{")
    }

    fn series(&self, name: &str) -> BTreeMap<i32, i64> {
        let text = self.metrics.encode();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .map(|line| {
                let partition = line.split("partition=\"").nth(1).unwrap().split('"').next().unwrap();
                let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                (partition.parse().unwrap(), value as i64)
            })
            .collect()
    }

    pub fn detail(&self) -> String {
        self.health.report().checks["consumer"].detail.clone()
    }

    pub async fn stop(self) {
        self.trigger.drain();
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("the stop takes too long")
            .unwrap();
    }
}

/// One event, now.
pub fn event(event_type: &str, user: Uuid) -> Value {
    json!({
        "id": Uuid::new_v4(), "type": event_type, "tenant": "default", "user_id": user,
        "at": jiff::Timestamp::now(), "data": {"n": 1},
    })
}

pub fn users(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

/// A small generator (xorshift), so that a failure can be repeated by its seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
