//! A product as a document, field by field.
//!
//! Times are whole microseconds since 1970, because the times of BSON have only milliseconds. A price is a whole number
//! of ten-thousandths: exact, and in order. Attributes are a list of pairs, because their names are MercadoLibre's and
//! may hold a dot or begin with a dollar sign. An event is kept as the JSON that will be published.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc, serialize_to_bson, serialize_to_document};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::MongoError;
use crate::event::Event;
use crate::price::Price;
use crate::product::{Details, ListingStatus, Owner, Product, Source};
use crate::search::searchable;
use crate::store::{Stored, Write};

/// One document of the collection `products`. What an index of only some documents looks at is absent elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProductDocument {
    #[serde(rename = "_id")]
    id: String,
    tenant: String,
    user_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ml_item_id: Option<String>,
    #[serde(flatten)]
    state: State,
    /// Time of the oldest pending event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending_since: Option<i64>,
    /// Oldest first.
    pending_events: Vec<PendingEvent>,
}

/// What each write sets anew.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    title: String,
    category_id: Option<String>,
    price: Option<i64>,
    currency_id: Option<String>,
    available_quantity: i64,
    status: ListingStatus,
    sku: Option<String>,
    attributes: Vec<Attribute>,
    source: Source,
    /// Text, because it is MercadoLibre's and compared as it came.
    ml_last_updated: Option<Timestamp>,
    searchable: String,
    version: i64,
    created_at: i64,
    updated_at: i64,
    deleted_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Attribute {
    name: String,
    value: String,
}

/// An event in its product's document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PendingEvent {
    /// Identity of the event.
    pub(super) id: String,
    /// When it happened.
    pub(super) at: i64,
    json: String,
}

impl PendingEvent {
    fn of(event: &Event) -> Result<Self, MongoError> {
        Ok(Self {
            id: event.id.to_string(),
            at: event.at.as_microsecond(),
            json: serde_json::to_string(event).map_err(MongoError::unreadable)?,
        })
    }

    /// The event as it was kept.
    pub(super) fn read(&self) -> Result<Event, MongoError> {
        serde_json::from_str(&self.json).map_err(MongoError::unreadable)
    }
}

impl ProductDocument {
    /// The document of a new product.
    pub(super) fn of(write: &Write) -> Result<Self, MongoError> {
        let Stored { owner, product, .. } = &write.stored;
        Ok(Self {
            id: product.id.to_string(),
            tenant: owner.tenant.clone(),
            user_id: owner.user_id.to_string(),
            ml_item_id: product.ml_item_id.clone(),
            state: State::of(write),
            pending_since: write.event.as_ref().map(|event| event.at.as_microsecond()),
            pending_events: write.event.iter().map(PendingEvent::of).collect::<Result<_, _>>()?,
        })
    }

    /// The product, and what is kept beside it.
    pub(super) fn read(self) -> Result<Stored, MongoError> {
        let state = self.state;
        let attributes: BTreeMap<String, String> =
            state.attributes.into_iter().map(|attribute| (attribute.name, attribute.value)).collect();
        let price = match state.price {
            Some(price) => Some(Price::from_ten_thousandths(price).map_err(MongoError::unreadable)?),
            None => None,
        };
        let product = Product {
            id: identity(&self.id)?,
            ml_item_id: self.ml_item_id,
            details: Details {
                title: state.title,
                category_id: state.category_id,
                price,
                currency_id: state.currency_id,
                available_quantity: u32::try_from(state.available_quantity)
                    .map_err(MongoError::unreadable)?,
                status: state.status,
                sku: state.sku,
                attributes,
            },
            source: state.source,
            ml_last_updated: state.ml_last_updated,
            version: u64::try_from(state.version).map_err(MongoError::unreadable)?,
            created_at: time(state.created_at)?,
            updated_at: time(state.updated_at)?,
        };
        let owner = Owner { tenant: self.tenant, user_id: identity(&self.user_id)? };
        Ok(Stored { owner, product, deleted_at: state.deleted_at.map(time).transpose()? })
    }
}

impl State {
    fn of(write: &Write) -> Self {
        let Stored { product, deleted_at, .. } = &write.stored;
        let details = &product.details;
        let attributes = details
            .attributes
            .iter()
            .map(|(name, value)| Attribute { name: name.clone(), value: value.clone() })
            .collect();
        Self {
            title: details.title.clone(),
            category_id: details.category_id.clone(),
            price: details.price.map(Price::ten_thousandths),
            currency_id: details.currency_id.clone(),
            available_quantity: i64::from(details.available_quantity),
            status: details.status,
            sku: details.sku.clone(),
            attributes,
            source: product.source,
            ml_last_updated: product.ml_last_updated,
            searchable: searchable(details, product.ml_item_id.as_deref()),
            version: product.version as i64,
            created_at: product.created_at.as_microsecond(),
            updated_at: product.updated_at.as_microsecond(),
            deleted_at: deleted_at.map(Timestamp::as_microsecond),
            expires_at: write.expires_at.map(Timestamp::as_microsecond),
        }
    }
}

/// The update that makes the document what `write` says and lets its event join those pending.
pub(super) fn replacement(write: &Write) -> Result<Document, MongoError> {
    let state = serialize_to_document(&State::of(write)).map_err(MongoError::unreadable)?;
    let mut update = doc! {"$set": state};
    if write.expires_at.is_none() {
        update.insert("$unset", doc! {"expires_at": ""});
    }
    if let Some(event) = &write.event {
        let event = PendingEvent::of(event)?;
        update.insert("$min", doc! {"pending_since": event.at});
        update.insert("$push", doc! {"pending_events": bson(&event)?});
    }
    Ok(update)
}

/// The update that leaves `rest` of a document's events pending.
pub(super) fn remainder(rest: &[PendingEvent]) -> Result<Document, MongoError> {
    let events = rest.iter().map(bson).collect::<Result<Vec<Bson>, _>>()?;
    Ok(match rest.first() {
        Some(first) => doc! {"$set": {"pending_events": events, "pending_since": first.at}},
        None => doc! {"$set": {"pending_events": events}, "$unset": {"pending_since": ""}},
    })
}

fn bson(event: &PendingEvent) -> Result<Bson, MongoError> {
    serialize_to_bson(event).map_err(MongoError::unreadable)
}

pub(super) fn identity(text: &str) -> Result<Uuid, MongoError> {
    text.parse().map_err(MongoError::unreadable)
}

fn time(micros: i64) -> Result<Timestamp, MongoError> {
    Timestamp::from_microsecond(micros).map_err(MongoError::unreadable)
}
