//! What the rest of the system learns of a product: one event per change, kept beside the product until published.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::product::{Owner, Product};

/// What happened to a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was made, or came back after a deletion.
    Created,
    /// Its details changed.
    Updated,
    /// It was deleted.
    Deleted,
}

impl Happened {
    /// The event's type in the log.
    #[must_use]
    pub fn event_type(self) -> &'static str {
        match self {
            Self::Created => "product.created",
            Self::Updated => "product.updated",
            Self::Deleted => "product.deleted",
        }
    }
}

/// One event in the system's envelope. Consumers drop a second one with the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Identity of the event, the same in every delivery.
    pub id: Uuid,
    /// What happened, such as `product.updated`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Tenant of the product's owner.
    pub tenant: String,
    /// The product's owner.
    pub user_id: Uuid,
    /// When it happened.
    pub at: Timestamp,
    /// What a consumer needs to know without asking the catalog.
    pub data: Value,
    /// The span that caused it, kept beside it until it is published: a header then, and no part of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Event {
    /// Tells that `happened` to `product`, as it is afterwards.
    #[must_use]
    pub fn of(id: Uuid, happened: Happened, owner: &Owner, product: &Product) -> Self {
        Self {
            id,
            event_type: happened.event_type().to_owned(),
            tenant: owner.tenant.clone(),
            user_id: owner.user_id,
            at: product.updated_at,
            data: json!({
                "product_id": product.id,
                "ml_item_id": product.ml_item_id,
                "version": product.version,
                "source": product.source,
                "category_id": product.details.category_id,
                "price": product.details.price,
                "currency_id": product.details.currency_id,
                "available_quantity": product.details.available_quantity,
                "status": product.details.status,
            }),
            traceparent: service_kit::trace::current().map(|context| context.to_string()),
        }
    }
}
