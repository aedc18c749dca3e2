//! The embedded event log, in Kafka's place: topics of one partition, append-only, with consumer groups.
//!
//! Offsets begin with 1 and have no gaps; 0 means "nothing yet". Appending takes the write lock, so an offset that can
//! be read has no smaller one still to come.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Clock;
use crate::sqlite::{Pool, SqliteError};

/// The topic of the system's events.
pub const ML_EVENTS: &str = "ml-events";

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS topics (topic TEXT PRIMARY KEY, head INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    topic TEXT NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL,
    payload TEXT NOT NULL, headers TEXT NOT NULL, appended_at TEXT NOT NULL,
    PRIMARY KEY (topic, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS group_offsets (
    consumer_group TEXT NOT NULL, topic TEXT NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic)
) WITHOUT ROWID;
";

/// Headers of a record, by name.
pub type Headers = std::collections::BTreeMap<String, String>;

/// An event to append.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRecord {
    /// Id of the event: consumers know by it what they have seen.
    pub id: String,
    /// The event as JSON.
    pub payload: serde_json::Value,
    /// Headers, for example `traceparent`.
    pub headers: Headers,
}

/// An event as it was appended.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Place in the topic, from 1.
    pub offset: u64,
    /// Id of the event.
    pub id: String,
    /// What the event is about; events of one key keep their order.
    pub key: String,
    /// The event as JSON.
    pub payload: serde_json::Value,
    /// Headers.
    pub headers: Headers,
    /// When it was appended.
    pub appended_at: Timestamp,
}

/// The log; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventLog {
    pool: Pool,
    clock: Clock,
}

impl EventLog {
    /// The log under the folder that all services share (`EMBEDDED_DIR`), with its tables made.
    ///
    /// # Errors
    /// [`SqliteError`] when the file cannot be opened.
    pub async fn open(embedded: &Path, clock: Clock) -> Result<Self, SqliteError> {
        let pool = Pool::new("kafka", &embedded.join("kafka").join("log.db"), 4);
        pool.call(|connection| Ok::<_, SqliteError>(connection.execute_batch(SCHEMA)?)).await?;
        Ok(Self { pool, clock })
    }

    /// The pool behind the log, for metrics and readiness.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Appends events of one key in one transaction; all or none. Answers the offset of the last one.
    ///
    /// # Errors
    /// [`SqliteError`]; nothing is appended then.
    pub async fn append(&self, topic: &str, key: &str, records: Vec<NewRecord>) -> Result<u64, SqliteError> {
        let (topic, key) = (topic.to_owned(), key.to_owned());
        let now = self.clock.now().to_string();
        self.pool
            .write(move |transaction| {
                let mut head = head(transaction, &topic)?;
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO records (topic, position, id, key, payload, headers, appended_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?;
                for record in &records {
                    head += 1;
                    let headers = encode(&record.headers)?;
                    let payload = encode(&record.payload)?;
                    insert.execute(params![topic, head, record.id, key, payload, headers, now])?;
                }
                transaction.execute(
                    "INSERT INTO topics (topic, head) VALUES (?1, ?2)
                     ON CONFLICT (topic) DO UPDATE SET head = excluded.head",
                    params![topic, head],
                )?;
                Ok(unsigned(head))
            })
            .await
    }

    /// At most `max` events after an offset, in order.
    ///
    /// # Errors
    /// [`SqliteError`], also when a stored record cannot be read.
    pub async fn read(&self, topic: &str, after: u64, max: usize) -> Result<Vec<Record>, SqliteError> {
        let topic = topic.to_owned();
        self.pool
            .call(move |connection| {
                let mut query = connection.prepare_cached(
                    "SELECT position, id, key, payload, headers, appended_at FROM records
                     WHERE topic = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
                )?;
                let mut rows = query.query(params![topic, signed(after), signed(max as u64)])?;
                let mut records = Vec::new();
                while let Some(row) = rows.next()? {
                    let [payload, headers, at]: [String; 3] = [row.get(3)?, row.get(4)?, row.get(5)?];
                    records.push(Record {
                        offset: unsigned(row.get(0)?),
                        id: row.get(1)?,
                        key: row.get(2)?,
                        payload: decode("an event", &payload)?,
                        headers: decode("the headers of an event", &headers)?,
                        appended_at: at.parse().map_err(|error: jiff::Error| SqliteError::Corrupt {
                            what: "the time of an event",
                            source: error.into(),
                        })?,
                    });
                }
                Ok(records)
            })
            .await
    }

    /// Offset of the last event, 0 when there is none.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub async fn head(&self, topic: &str) -> Result<u64, SqliteError> {
        let topic = topic.to_owned();
        self.pool.call(move |connection| head(connection, &topic).map(unsigned)).await
    }

    /// Offset up to which a consumer group is done, 0 for a new group: it begins at the beginning.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub async fn committed(&self, group: &str, topic: &str) -> Result<u64, SqliteError> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.pool
            .call(move |connection| {
                let mut query = connection.prepare_cached(
                    "SELECT position FROM group_offsets WHERE consumer_group = ?1 AND topic = ?2",
                )?;
                let found = query.query_row(params![group, topic], |row| row.get(0)).optional()?;
                Ok(unsigned(found.unwrap_or(0)))
            })
            .await
    }

    /// Notes that a group is done up to an offset; never goes back.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub async fn commit(&self, group: &str, topic: &str, offset: u64) -> Result<(), SqliteError> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.pool
            .write(move |transaction| {
                transaction.execute(
                    "INSERT INTO group_offsets (consumer_group, topic, position) VALUES (?1, ?2, ?3)
                     ON CONFLICT (consumer_group, topic)
                     DO UPDATE SET position = max(position, excluded.position)",
                    params![group, topic, signed(offset)],
                )?;
                Ok(())
            })
            .await
    }

    /// How many events a group has still to read.
    ///
    /// # Errors
    /// [`SqliteError`].
    pub async fn lag(&self, group: &str, topic: &str) -> Result<u64, SqliteError> {
        let committed = self.committed(group, topic).await?;
        Ok(self.head(topic).await?.saturating_sub(committed))
    }
}

fn head(connection: &Connection, topic: &str) -> Result<i64, SqliteError> {
    let mut query = connection.prepare_cached("SELECT head FROM topics WHERE topic = ?1")?;
    Ok(query.query_row([topic], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn encode<T: serde::Serialize>(value: &T) -> Result<String, SqliteError> {
    serde_json::to_string(value)
        .map_err(|source| SqliteError::Corrupt { what: "an event to append", source: source.into() })
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, SqliteError> {
    serde_json::from_str(text).map_err(|source| SqliteError::Corrupt { what, source: source.into() })
}

/// SQLite's integers are signed; no offset comes near the difference.
fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn unsigned(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}
