//! Items as MercadoLibre gives them, and what one of them does to the product that mirrors it.
//!
//! Two workers may fetch the same item and hand it over in either order. So an item takes effect only when its
//! `last_updated` is newer than the one taken over before, and a deleted product stays behind as a tombstone that an
//! older item cannot bring back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use crate::price::Price;
use crate::product::{Details, ListingStatus, Owner, Problems, Product};
use crate::store::Stored;

/// An item of MercadoLibre, reduced to what the catalog keeps; other fields are ignored, since MercadoLibre adds new
/// ones at will.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    id: String,
    title: String,
    #[serde(default)]
    category_id: Option<String>,
    #[serde(default)]
    price: Option<Price>,
    #[serde(default)]
    currency_id: Option<String>,
    /// Present only for the item's owner.
    #[serde(default)]
    available_quantity: Option<u32>,
    #[serde(default)]
    status: ListingStatus,
    /// The older place of the seller's number; the attribute `SELLER_SKU` goes before it.
    #[serde(default)]
    seller_custom_field: Option<String>,
    #[serde(default)]
    attributes: Vec<Attribute>,
    last_updated: Timestamp,
    /// The item is gone at MercadoLibre.
    #[serde(default)]
    deleted: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct Attribute {
    id: String,
    #[serde(default)]
    value_name: Option<String>,
}

/// An item whose values are checked and translated into ours.
#[derive(Clone, Debug)]
pub struct ItemState {
    /// The item at MercadoLibre.
    pub ml_item_id: String,
    /// What the item says.
    pub details: Details,
    /// When the item last changed at MercadoLibre.
    pub last_updated: Timestamp,
    /// The item is gone at MercadoLibre.
    pub deleted: bool,
}

/// Why an item is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The identity does not look like `MLA123`.
    #[error("id must be three capital letters and digits, such as MLA123")]
    Id,
    /// A value is refused.
    #[error("{0}")]
    Details(Problems),
}

impl Item {
    /// Checks the item and translates it.
    ///
    /// # Errors
    /// [`ItemError`] when its identity or a value is refused.
    pub fn check(self) -> Result<ItemState, ItemError> {
        if !is_item_id(&self.id) {
            return Err(ItemError::Id);
        }
        let mut attributes: BTreeMap<String, String> = self
            .attributes
            .into_iter()
            .filter_map(|attribute| {
                Some((attribute.id, attribute.value_name.filter(|value| !value.is_empty())?))
            })
            .collect();
        let sku = attributes.remove("SELLER_SKU").or(self.seller_custom_field).filter(|sku| !sku.is_empty());
        let details = Details {
            title: self.title,
            category_id: self.category_id,
            price: self.price,
            currency_id: self.currency_id,
            available_quantity: self.available_quantity.unwrap_or(0),
            status: self.status,
            sku,
            attributes,
        };
        details.check().map_err(ItemError::Details)?;
        Ok(ItemState { ml_item_id: self.id, details, last_updated: self.last_updated, deleted: self.deleted })
    }
}

/// Whether `id` is a site and a number, such as `MLA123`, as MercadoLibre writes it.
fn is_item_id(id: &str) -> bool {
    id.len() <= 32
        && id.is_char_boundary(3)
        && id[..3].bytes().all(|byte| byte.is_ascii_uppercase())
        && id.len() > 3
        && id[3..].bytes().all(|byte| byte.is_ascii_digit())
}

/// What an item does to the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make a product for it.
    Create,
    /// Bring the tombstoned product back.
    Revive(Box<Product>),
    /// Take its details over.
    Update(Box<Product>),
    /// Remember only that this newer state was seen; the details are the same.
    Refresh(Box<Product>),
    /// Leave a tombstone.
    Delete(Box<Product>),
    /// Nothing: this very state is known.
    Unchanged,
    /// Nothing: a newer state is known, or the product was deleted after this state.
    Stale,
    /// Nothing: the item is another owner's product.
    Conflict,
}

/// Decides what `item` of `owner` does, given what the store holds under its identity.
#[must_use]
pub fn decide(owner: &Owner, item: &ItemState, known: Option<Stored>) -> Decision {
    let Some(known) = known else {
        // An item that is gone and that we never had needs no trace.
        return if item.deleted { Decision::Unchanged } else { Decision::Create };
    };
    if known.owner != *owner {
        return Decision::Conflict;
    }
    let product = Box::new(known.product);
    let seen = product.ml_last_updated;
    if let Some(deleted_at) = known.deleted_at {
        // The seller changed the item at MercadoLibre after the deletion here: it lives on.
        let newer = item.last_updated > deleted_at && seen.is_none_or(|seen| item.last_updated > seen);
        return match (newer, item.deleted) {
            (true, false) => Decision::Revive(product),
            (_, true) => Decision::Unchanged,
            (false, false) => Decision::Stale,
        };
    }
    match seen {
        Some(seen) if item.last_updated < seen => Decision::Stale,
        _ if item.deleted => Decision::Delete(product),
        // The same state again. What a client changed here since then stays until the item changes.
        Some(seen) if item.last_updated == seen => Decision::Unchanged,
        _ if item.details == product.details => Decision::Refresh(product),
        _ => Decision::Update(product),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::product::Source;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn owner(tenant: &str) -> Owner {
        Owner { tenant: tenant.to_owned(), user_id: Uuid::from_u128(1) }
    }

    fn item(second: i64, title: &str) -> ItemState {
        let item = json!({"id": "MLA1", "title": title, "price": 10, "last_updated": at(second)});
        serde_json::from_value::<Item>(item).unwrap().check().unwrap()
    }

    fn known(second: i64, deleted_at: Option<i64>) -> Stored {
        Stored {
            owner: owner("a"),
            product: Product {
                id: Uuid::from_u128(9),
                ml_item_id: Some("MLA1".to_owned()),
                details: item(second, "Lamp").details,
                source: Source::Sync,
                ml_last_updated: Some(at(second)),
                version: 1,
                created_at: at(0),
                updated_at: at(0),
            },
            deleted_at: deleted_at.map(at),
        }
    }

    fn name(decision: &Decision) -> &'static str {
        match decision {
            Decision::Create => "create",
            Decision::Revive(_) => "revive",
            Decision::Update(_) => "update",
            Decision::Refresh(_) => "refresh",
            Decision::Delete(_) => "delete",
            Decision::Unchanged => "unchanged",
            Decision::Stale => "stale",
            Decision::Conflict => "conflict",
        }
    }

    #[test]
    fn only_a_newer_item_takes_effect() {
        let gone = |second| ItemState { deleted: true, ..item(second, "Lamp") };
        for (row, decision, expected) in [
            ("never seen", decide(&owner("a"), &item(5, "Lamp"), None), "create"),
            ("never seen and gone", decide(&owner("a"), &gone(5), None), "unchanged"),
            ("newer", decide(&owner("a"), &item(6, "Lamps"), Some(known(5, None))), "update"),
            ("newer, same details", decide(&owner("a"), &item(6, "Lamp"), Some(known(5, None))), "refresh"),
            ("same state", decide(&owner("a"), &item(5, "Lamps"), Some(known(5, None))), "unchanged"),
            ("older", decide(&owner("a"), &item(4, "Lamps"), Some(known(5, None))), "stale"),
            ("gone", decide(&owner("a"), &gone(6), Some(known(5, None))), "delete"),
            ("gone, same second", decide(&owner("a"), &gone(5), Some(known(5, None))), "delete"),
            ("gone, but older", decide(&owner("a"), &gone(4), Some(known(5, None))), "stale"),
            ("before the tombstone", decide(&owner("a"), &item(7, "Lamp"), Some(known(5, Some(8)))), "stale"),
            ("after the tombstone", decide(&owner("a"), &item(9, "Lamp"), Some(known(5, Some(8)))), "revive"),
            ("gone again", decide(&owner("a"), &gone(9), Some(known(5, Some(8)))), "unchanged"),
            ("another owner's", decide(&owner("b"), &item(9, "Lamp"), Some(known(5, None))), "conflict"),
            (
                "another owner's tombstone",
                decide(&owner("b"), &item(9, "Lamp"), Some(known(5, Some(8)))),
                "conflict",
            ),
        ] {
            assert_eq!(name(&decision), expected, "{row}");
        }
    }

    #[test]
    fn an_item_is_translated() {
        let state = serde_json::from_value::<Item>(json!({
            "id": "MLB42", "title": "Lâmpada", "price": null, "currency_id": "BRL", "available_quantity": 3,
            "status": "a_new_word", "seller_custom_field": "old", "permalink": "https://example.com",
            "attributes": [{"id": "SELLER_SKU", "value_name": "new"}, {"id": "BRAND", "value_name": "X", "values": []},
                           {"id": "GTIN", "value_name": null}],
            "last_updated": "2026-11-24T03:00:00.123Z",
        }))
        .unwrap()
        .check()
        .unwrap();
        assert_eq!(state.details.sku.as_deref(), Some("new"));
        assert_eq!(state.details.status, ListingStatus::Unknown);
        assert_eq!(state.details.price, None);
        assert_eq!(state.details.attributes, BTreeMap::from([("BRAND".to_owned(), "X".to_owned())]));
    }

    #[test]
    fn an_identity_is_a_site_and_a_number() {
        for (id, good) in [
            ("MLA1", true),
            ("MLB1234567890", true),
            ("MLA", false),
            ("mla1", false),
            ("MLA1x", false),
            ("ñLA1", false),
            ("", false),
            ("MLAU1", false),
        ] {
            assert_eq!(is_item_id(id), good, "{id:?}");
        }
    }
}
