//! The pending events within the documents of products.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use serde::Deserialize;
use uuid::Uuid;

use super::document::{self, PendingEvent, identity};
use super::{ATTEMPTS, Collections, MongoError, READ_TIME_MAX};
use crate::event::Event;

/// What the outbox sees of a document.
#[derive(Debug, Deserialize)]
struct Pending {
    #[serde(rename = "_id")]
    id: String,
    version: i64,
    pending_events: Vec<PendingEvent>,
}

fn pending(collections: &Collections) -> Collection<Pending> {
    collections.products.clone_with_type()
}

fn seen() -> Document {
    doc! {"version": 1, "pending_events": 1}
}

/// The documents that wait; the oldest event of one decides its place.
pub(super) fn waiting() -> (Document, Document) {
    // A comparison, not `$exists`: every server can answer it from the index of the documents that have the field.
    (doc! {"pending_since": {"$gte": i64::MIN}}, doc! {"pending_since": 1, "_id": 1})
}

/// See [`crate::store::ProductStore::unpublished`].
pub(super) async fn unpublished(
    collections: &Collections,
    max: usize,
) -> Result<Vec<(Uuid, Event)>, MongoError> {
    let (filter, order) = waiting();
    let mut documents = pending(collections)
        .find(filter)
        .sort(order)
        .projection(seen())
        // Each has one event at least.
        .limit(i64::try_from(max).unwrap_or(i64::MAX))
        .max_time(READ_TIME_MAX)
        .await?;
    let mut found = Vec::new();
    while found.len() < max && documents.advance().await? {
        let document = documents.deserialize_current()?;
        let product = identity(&document.id)?;
        for event in &document.pending_events {
            found.push((product, event.read()?));
        }
    }
    Ok(found)
}

/// See [`crate::store::ProductStore::mark_published`].
///
/// What remains of a document's events is computed here and stored only if the document still has the events that were
/// read: each new event comes with a new version, and another relay leaves fewer of them. Otherwise it is read again.
pub(super) async fn mark_published(
    collections: &Collections,
    published: &[(Uuid, Uuid)],
) -> Result<(), MongoError> {
    let mut by_product: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (product, event) in published {
        by_product.entry(product.to_string()).or_default().insert(event.to_string());
    }
    for _ in 0..ATTEMPTS {
        let updates = updates(collections, &by_product).await?;
        if updates.is_empty() {
            return Ok(());
        }
        let command = doc! {
            "update": collections.products.name(),
            "updates": updates,
            "ordered": false,
            "writeConcern": {"w": "majority"},
        };
        // What this did not do, for whatever reason, the next round finds still there.
        collections.database.run_command(command).await?;
    }
    Err(MongoError::Contended)
}

/// One statement for each document that still holds an event of `published`.
async fn updates(
    collections: &Collections,
    published: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<Document>, MongoError> {
    let products: Vec<&String> = published.keys().collect();
    let mut documents = pending(collections)
        .find(doc! {"_id": {"$in": products}})
        .projection(seen())
        .max_time(READ_TIME_MAX)
        .await?;
    let mut updates = Vec::new();
    while documents.advance().await? {
        let document = documents.deserialize_current()?;
        let Some(events) = published.get(&document.id) else { continue };
        let count = document.pending_events.len();
        let rest: Vec<PendingEvent> =
            document.pending_events.into_iter().filter(|event| !events.contains(&event.id)).collect();
        if rest.len() == count {
            continue;
        }
        let unchanged = doc! {
            "_id": document.id,
            "version": document.version,
            "pending_events": {"$size": i64::try_from(count).unwrap_or(i64::MAX)},
        };
        updates.push(doc! {"q": unchanged, "u": document::remainder(&rest)?});
    }
    Ok(updates)
}
