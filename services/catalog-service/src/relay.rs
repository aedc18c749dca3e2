//! The outbox's other half: carries pending events from the documents to the event log.
//!
//! An event leaves its document only after the log has taken it. So a crash in between publishes it twice, with the
//! same identity, and never loses it; consumers drop the second one.

use std::sync::Arc;

use service_kit::eventlog::{ML_EVENTS, NewRecord};
use service_kit::events::{Publish, PublishError};
use service_kit::trace;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::event::Event;
use crate::store::{ProductStore, StoreError};

/// Events of one round, about.
const ROUND: usize = 200;
/// Products whose events are under way at a time. The embedded log has four connections.
const SIDE_BY_SIDE: usize = 32;

/// Publishing failed; what was not published stays pending.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The documents could not be read or written.
    #[error("cannot relay events")]
    Store(#[from] StoreError),
    /// The log did not take an event.
    #[error("cannot append to the event log")]
    Log(#[from] PublishError),
    /// An event cannot be written as JSON.
    #[error("cannot write event {0} as JSON")]
    Event(Uuid, #[source] serde_json::Error),
}

/// The events (product, event) of one product that the log has taken.
type Published = Result<Vec<(Uuid, Uuid)>, RelayError>;

/// Publishes the events of all products. One replica at a time runs it, so that the log stays free of duplicates.
pub struct Relay {
    store: Arc<dyn ProductStore>,
    log: Arc<dyn Publish>,
}

impl Relay {
    /// A relay from `store` to `log`.
    #[must_use]
    pub fn new(store: Arc<dyn ProductStore>, log: Arc<dyn Publish>) -> Self {
        Self { store, log }
    }

    /// Publishes everything that is pending. Answers how many events that were.
    ///
    /// # Errors
    /// [`RelayError`]; what was published until then is no longer pending.
    pub async fn publish(&self) -> Result<usize, RelayError> {
        let mut published = 0;
        loop {
            let pending = self.store.unpublished(ROUND).await?;
            if pending.is_empty() {
                return Ok(published);
            }
            let mut taken = Vec::with_capacity(pending.len());
            let appended = self.append(pending, &mut taken).await;
            published += taken.len();
            // Also after a failure: what the log has taken must not be sent again.
            self.store.mark_published(taken).await?;
            appended?;
        }
    }

    /// Appends the events, those of one product in their order, and notes in `taken` those that the log has. Products
    /// go side by side, since the log acknowledges each; one whose events fail keeps none of the others.
    async fn append(
        &self,
        pending: Vec<(Uuid, Event)>,
        taken: &mut Vec<(Uuid, Uuid)>,
    ) -> Result<(), RelayError> {
        let mut under_way: JoinSet<Published> = JoinSet::new();
        let mut failed = None;
        for of_product in pending.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((product, _)) = of_product.first() else { continue };
            let records = match records(of_product) {
                Ok(records) => records,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            let (log, key) = (Arc::clone(&self.log), product.to_string());
            let ids: Vec<_> = of_product.iter().map(|(product, event)| (*product, event.id)).collect();
            under_way.spawn(async move {
                log.publish(ML_EVENTS, &key, records).await?;
                Ok(ids)
            });
            if under_way.len() == SIDE_BY_SIDE {
                note(under_way.join_next().await, taken, &mut failed);
            }
        }
        while let Some(done) = under_way.join_next().await {
            note(Some(done), taken, &mut failed);
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Notes how the events of one product fared. A panic of the log is one of the relay.
fn note(
    done: Option<Result<Published, JoinError>>,
    taken: &mut Vec<(Uuid, Uuid)>,
    failed: &mut Option<RelayError>,
) {
    match done {
        None => {}
        Some(Ok(Ok(ids))) => taken.extend(ids),
        Some(Ok(Err(error))) => {
            failed.get_or_insert(error);
        }
        Some(Err(error)) => {
            failed.get_or_insert(RelayError::Log(PublishError::Unavailable(error.into())));
        }
    }
}

fn records(of_product: &[(Uuid, Event)]) -> Result<Vec<NewRecord>, RelayError> {
    let record = |(_, event): &(Uuid, Event)| {
        let mut payload = serde_json::to_value(event).map_err(|error| RelayError::Event(event.id, error))?;
        let headers = trace::take_from(&mut payload);
        Ok(NewRecord { id: event.id.to_string(), payload, headers })
    };
    of_product.iter().map(record).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use service_kit::Clock;
    use service_kit::eventlog::EventLog;
    use service_kit::sqlite::SqliteError;

    use super::*;
    use crate::event::Happened;
    use crate::product::{Details, ListingStatus, Owner, Product, Source};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{Stored, Write};

    fn write(product: u128, version: u64) -> Write {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let owner = Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(1) };
        let product = Product {
            id: Uuid::from_u128(product),
            ml_item_id: None,
            details: Details {
                title: "Lamp".to_owned(),
                category_id: None,
                price: None,
                currency_id: None,
                available_quantity: 0,
                status: ListingStatus::Active,
                sku: None,
                attributes: BTreeMap::new(),
            },
            source: Source::Api,
            ml_last_updated: None,
            version,
            created_at: now,
            updated_at: now,
        };
        let event = Event::of(Uuid::new_v4(), Happened::Updated, &owner, &product);
        Write { stored: Stored { owner, product, deleted_at: None }, expires_at: None, event: Some(event) }
    }

    async fn store_with(folder: &std::path::Path, products: u128, versions: u64) -> Arc<dyn ProductStore> {
        let store = SqliteStore::open(folder).await.unwrap();
        for product in 1..=products {
            store.insert(write(product, 1)).await.unwrap();
            for version in 2..=versions {
                store.replace(write(product, version), version - 1).await.unwrap();
            }
        }
        Arc::new(store)
    }

    #[tokio::test]
    async fn relays_side_by_side_lose_nothing_and_keep_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_with(folder.path(), 20, 3).await;
        let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
        let relays: Vec<_> = (0..4)
            .map(|_| {
                let relay = Relay::new(Arc::clone(&store), Arc::new(log.clone()));
                tokio::spawn(async move { relay.publish().await.unwrap() })
            })
            .collect();
        for relay in relays {
            relay.await.unwrap();
        }
        assert!(store.unpublished(1).await.unwrap().is_empty());
        let mut first_seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for record in log.read(ML_EVENTS, 0, 10_000).await.unwrap() {
            let versions = first_seen.entry(record.key).or_default();
            let version = record.payload["data"]["version"].as_u64().unwrap();
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        assert_eq!(first_seen.len(), 20);
        for (product, versions) in first_seen {
            assert_eq!(versions, [1, 2, 3], "{product}");
        }
    }

    #[tokio::test]
    async fn a_log_that_is_away_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_with(folder.path(), 2, 2).await;
        let log = EventLog::open(folder.path(), Clock::system()).await.unwrap();
        let away = |sql: &'static str| {
            log.pool().call(move |connection| connection.execute_batch(sql).map_err(SqliteError::from))
        };
        away("ALTER TABLE records RENAME TO away").await.unwrap();
        let relay = Relay::new(Arc::clone(&store), Arc::new(log.clone()));
        assert!(matches!(relay.publish().await, Err(RelayError::Log(_))));
        assert_eq!(store.unpublished(10).await.unwrap().len(), 4);
        away("ALTER TABLE away RENAME TO records").await.unwrap();
        assert_eq!(relay.publish().await.unwrap(), 4);
        assert_eq!(relay.publish().await.unwrap(), 0);
        assert_eq!(log.head(ML_EVENTS).await.unwrap(), 4);
    }
}
