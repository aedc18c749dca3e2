//! The rules of the catalog: every operation on products, over any store.

mod once;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use service_kit::Clock;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::erasure::erase;
use crate::event::{Event, Happened};
use crate::item::{Decision, Item, ItemState, decide};
use crate::metrics::{Outcome, ProductUpdates};
use crate::product::{Change, Details, Owner, Problems, Product, Source};
use crate::search::{Mark, Search};
use crate::store::{Inserted, ProductStore, Replaced, StoreError, Stored, Write};

pub use self::once::{Key, KeyError, Made};

/// How often a write is tried anew when others write the same document in between.
const ATTEMPTS: u32 = 5;
/// How long a tombstone holds off older items; MercadoLibre repeats nothing older than days.
const TOMBSTONE_LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How long a product of the probe tenant lives after its last write.
const PROBE_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// A source of identities, handed in so that tests know them.
pub type NewId = Arc<dyn Fn() -> Uuid + Send + Sync>;

/// Why an operation on products was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The owner has no such product.
    #[error("there is no product {0}")]
    NotFound(Uuid),
    /// The client has seen another version than the store holds.
    #[error("product {id} is no longer at version {seen}: read it again and repeat the change")]
    VersionConflict {
        /// The product.
        id: Uuid,
        /// The version that the client named.
        seen: u64,
    },
    /// Values are refused.
    #[error("the product is refused: {0}")]
    Invalid(Problems),
    /// The account was erased; its token outlived it.
    #[error("the account was deleted: register again to keep products")]
    OwnerErased,
    /// The key came before, with another request.
    #[error("the Idempotency-Key belongs to another request: use a new one for each product")]
    KeyReused,
    /// The same request is not finished yet.
    #[error("the first request with this Idempotency-Key is not finished: try again")]
    KeyInFlight,
    /// Others wrote the same document each time.
    #[error("product {0} is being changed by others: try again")]
    Contended(String),
    /// The store failed.
    #[error("the operation on the catalog failed")]
    Store(#[from] StoreError),
}

/// One page of a search.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Page {
    /// The products, newest first.
    pub products: Vec<Product>,
    /// Where the next page begins; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// What became of one item of a hand-over.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ItemResult {
    /// The item as named by the sender, empty when it named none.
    pub ml_item_id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Our product for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    /// Why the item was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The catalog: the operations that the routes offer.
pub struct Catalog {
    store: Arc<dyn ProductStore>,
    clock: Clock,
    new_id: NewId,
    updates: ProductUpdates,
    /// Wakes the relay of this process when there is an event to publish.
    wake: Arc<Notify>,
}

impl Catalog {
    /// A catalog over `store`. `wake` is notified after each write that left an event.
    #[must_use]
    pub fn new(
        store: Arc<dyn ProductStore>,
        clock: Clock,
        new_id: NewId,
        updates: ProductUpdates,
        wake: Arc<Notify>,
    ) -> Self {
        Self { store, clock, new_id, updates, wake }
    }

    /// The owner's product.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], also for the product of another owner, or the store's failure.
    pub async fn get(&self, owner: &Owner, id: Uuid) -> Result<Product, CatalogError> {
        self.store.find(owner, id).await?.ok_or(CatalogError::NotFound(id))
    }

    /// Removes every product of an owner whose account was deleted. Repeating it is harmless.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn erase(&self, owner: &Owner) -> Result<(), CatalogError> {
        Ok(erase(&*self.store, owner, self.clock.now()).await?)
    }

    /// One page of the owner's products.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn search(&self, owner: &Owner, search: Search) -> Result<Page, CatalogError> {
        // One product more than asked for tells whether there is a next page.
        let limit = search.limit as usize;
        let mut products = self.store.search(owner, &Search { limit: search.limit + 1, ..search }).await?;
        let more = products.len() > limit;
        products.truncate(limit);
        let next_cursor = products.last().filter(|_| more).map(|last| Mark::of(last).write());
        Ok(Page { products, next_cursor })
    }

    /// Changes a product that the client has seen at `change.version`. A change of nothing writes nothing.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::VersionConflict`], [`CatalogError::Invalid`] or the store's failure.
    pub async fn update(&self, owner: &Owner, id: Uuid, change: Change) -> Result<Product, CatalogError> {
        let seen = change.version;
        let result = self.try_update(owner, id, change).await;
        self.count(owner, Source::Api, &result, |after| {
            if after.version == seen { Outcome::Unchanged } else { Outcome::Updated }
        });
        result
    }

    async fn try_update(&self, owner: &Owner, id: Uuid, change: Change) -> Result<Product, CatalogError> {
        let before = self.get(owner, id).await?;
        let seen = change.version;
        if before.version != seen {
            return Err(CatalogError::VersionConflict { id, seen });
        }
        let details = change.apply(&before.details).map_err(CatalogError::Invalid)?;
        if details == before.details {
            return Ok(before);
        }
        let after = Product { details, source: Source::Api, ..before };
        let written = self.write(owner, after, Some(Happened::Updated), None).await?;
        written.ok_or(CatalogError::VersionConflict { id, seen })
    }

    /// Deletes a product; with `seen`, only at that version.
    ///
    /// # Errors
    /// [`CatalogError::NotFound`], [`CatalogError::VersionConflict`] or the store's failure.
    pub async fn delete(&self, owner: &Owner, id: Uuid, seen: Option<u64>) -> Result<(), CatalogError> {
        let result = self.try_delete(owner, id, seen).await;
        self.count(owner, Source::Api, &result, |()| Outcome::Deleted);
        result
    }

    async fn try_delete(&self, owner: &Owner, id: Uuid, seen: Option<u64>) -> Result<(), CatalogError> {
        for _ in 0..ATTEMPTS {
            let before = self.get(owner, id).await?;
            if let Some(seen) = seen.filter(|seen| *seen != before.version) {
                return Err(CatalogError::VersionConflict { id, seen });
            }
            let gone = Product { source: Source::Api, ..before };
            if self.write(owner, gone, Some(Happened::Deleted), Some(self.now())).await?.is_some() {
                return Ok(());
            }
        }
        Err(CatalogError::Contended(id.to_string()))
    }

    /// Takes over items of MercadoLibre, one after the other. Repeating a hand-over is harmless, so a failure of the
    /// store ends it and the sender sends all of it again.
    ///
    /// # Errors
    /// [`CatalogError::OwnerErased`] or the store's failure; a refused item is a result, not an error.
    pub async fn take_items(
        &self,
        owner: &Owner,
        source: Source,
        items: Vec<Value>,
    ) -> Result<Vec<ItemResult>, CatalogError> {
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let ml_item_id = item.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let checked = serde_json::from_value::<Item>(item)
                .map_err(|error| error.to_string())
                .and_then(|item| item.check().map_err(|error| error.to_string()));
            let result = match checked {
                Ok(item) => self.take_item(owner, source, item).await.map(|(outcome, product_id)| {
                    ItemResult { ml_item_id, outcome, product_id, message: None }
                }),
                Err(message) => {
                    tracing::warn!(item = ml_item_id, message, "an item of MercadoLibre is refused");
                    Ok(ItemResult {
                        ml_item_id,
                        outcome: Outcome::Invalid,
                        product_id: None,
                        message: Some(message),
                    })
                }
            };
            self.count(owner, source, &result, |result| result.outcome);
            results.push(result?);
        }
        Ok(results)
    }

    async fn take_item(
        &self,
        owner: &Owner,
        source: Source,
        item: ItemState,
    ) -> Result<(Outcome, Option<Uuid>), CatalogError> {
        for _ in 0..ATTEMPTS {
            let known = self.store.find_item(&item.ml_item_id).await?;
            let mine = known.as_ref().filter(|known| known.owner == *owner).map(|known| known.product.id);
            let taken_over = |before: Box<Product>, details: Details| Product {
                details,
                source,
                ml_last_updated: Some(item.last_updated),
                ..*before
            };
            let (outcome, written) = match decide(owner, &item, known) {
                Decision::Unchanged => return Ok((Outcome::Unchanged, mine)),
                Decision::Stale => return Ok((Outcome::Stale, mine)),
                Decision::Conflict => return Ok((Outcome::Conflict, None)),
                Decision::Create => {
                    let id = (self.new_id)();
                    (
                        Outcome::Created,
                        self.insert(owner, id, item.details.clone(), source, Some(&item)).await?,
                    )
                }
                Decision::Revive(before) => {
                    let after =
                        Product { created_at: self.now(), ..taken_over(before, item.details.clone()) };
                    (Outcome::Created, self.write(owner, after, Some(Happened::Created), None).await?)
                }
                Decision::Update(before) => {
                    let after = taken_over(before, item.details.clone());
                    (Outcome::Updated, self.write(owner, after, Some(Happened::Updated), None).await?)
                }
                Decision::Refresh(before) => {
                    let details = before.details.clone();
                    (Outcome::Unchanged, self.write(owner, taken_over(before, details), None, None).await?)
                }
                Decision::Delete(before) => {
                    let details = before.details.clone();
                    let after = taken_over(before, details);
                    let written = self.write(owner, after, Some(Happened::Deleted), Some(self.now())).await?;
                    (Outcome::Deleted, written)
                }
            };
            if let Some(product) = written {
                return Ok((outcome, Some(product.id)));
            }
        }
        Err(CatalogError::Contended(item.ml_item_id))
    }

    /// Stores a new product; `None` when another document holds its item by now.
    async fn insert(
        &self,
        owner: &Owner,
        id: Uuid,
        details: Details,
        source: Source,
        item: Option<&ItemState>,
    ) -> Result<Option<Product>, CatalogError> {
        let now = self.now();
        let product = Product {
            id,
            ml_item_id: item.map(|item| item.ml_item_id.clone()),
            details,
            source,
            ml_last_updated: item.map(|item| item.last_updated),
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let write = self.prepare(owner, product.clone(), Some(Happened::Created), None);
        let has_event = write.event.is_some();
        match self.store.insert(write).await? {
            Inserted::Done => {
                self.wake_relay(has_event);
                Ok(Some(product))
            }
            Inserted::ItemTaken => Ok(None),
            // Our own earlier attempt, whose answer was lost, or the first request of an idempotency key.
            Inserted::IdTaken => Ok(self.store.find(owner, id).await?),
            Inserted::OwnerErased => Err(CatalogError::OwnerErased),
        }
    }

    /// Stores `product`, read before at its version, as the next version; `None` when it was written in between.
    async fn write(
        &self,
        owner: &Owner,
        product: Product,
        happened: Option<Happened>,
        deleted_at: Option<Timestamp>,
    ) -> Result<Option<Product>, CatalogError> {
        let expected = product.version;
        let after = Product { version: expected + 1, updated_at: self.now(), ..product };
        let write = self.prepare(owner, after.clone(), happened, deleted_at);
        let has_event = write.event.is_some();
        match self.store.replace(write, expected).await? {
            Replaced::Done => {
                self.wake_relay(has_event);
                Ok(Some(after))
            }
            Replaced::Stale => Ok(None),
        }
    }

    fn prepare(
        &self,
        owner: &Owner,
        product: Product,
        happened: Option<Happened>,
        deleted_at: Option<Timestamp>,
    ) -> Write {
        let probe = owner.is_probe();
        let event =
            happened.filter(|_| !probe).map(|happened| Event::of((self.new_id)(), happened, owner, &product));
        let expires_at = match (probe, deleted_at) {
            (true, _) => Some(after(product.updated_at, PROBE_LIFE)),
            (false, Some(deleted_at)) => Some(after(deleted_at, TOMBSTONE_LIFE)),
            (false, None) => None,
        };
        Write { stored: Stored { owner: owner.clone(), product, deleted_at }, expires_at, event }
    }

    fn wake_relay(&self, has_event: bool) {
        if has_event {
            self.wake.notify_one();
        }
    }

    /// Now, in whole milliseconds: what every document store keeps.
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// Counts the outcome of one write, except a probe's.
    fn count<T>(
        &self,
        owner: &Owner,
        source: Source,
        result: &Result<T, CatalogError>,
        done: impl FnOnce(&T) -> Outcome,
    ) {
        if owner.is_probe() {
            return;
        }
        let outcome = match result {
            Ok(value) => done(value),
            Err(CatalogError::Invalid(_) | CatalogError::NotFound(_) | CatalogError::OwnerErased) => {
                Outcome::Invalid
            }
            Err(
                CatalogError::VersionConflict { .. } | CatalogError::KeyReused | CatalogError::KeyInFlight,
            ) => Outcome::Conflict,
            Err(CatalogError::Contended(_) | CatalogError::Store(_)) => Outcome::Failed,
        };
        self.updates.count(outcome, source);
    }
}

/// `start` and `span` later, or the end of time.
fn after(start: Timestamp, span: SignedDuration) -> Timestamp {
    start.saturating_add(span).unwrap_or(Timestamp::MAX)
}
