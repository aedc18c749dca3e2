//! The product: what it holds, what a client may send, and which values are refused.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use service_kit::PROBE_TENANT;
use uuid::Uuid;

use crate::price::Price;

/// Longest title, in characters.
const TITLE_MAX: usize = 256;
/// Longest category, SKU, attribute name or attribute value, in characters.
pub(crate) const FIELD_MAX: usize = 256;
/// Most attributes of one product.
pub(crate) const ATTRIBUTES_MAX: usize = 100;
/// Largest stock of one product, in pieces.
const QUANTITY_MAX: u32 = 99_999_999;

/// Whose product it is. Nobody sees or changes the products of another owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The tenant of the user.
    pub tenant: String,
    /// The user within the tenant.
    pub user_id: Uuid,
}

impl Owner {
    /// Whether this is a load test's user: it leaves no event, no business metric and, after an hour, no product.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.tenant == PROBE_TENANT
    }
}

/// Where the last change of a product came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A client of the public routes.
    Api,
    /// A notification of MercadoLibre, by way of integration-service.
    Webhook,
    /// A synchronisation of the seller's items, by way of integration-service.
    Sync,
}

impl Source {
    /// Every source, in the order of the metric's series.
    pub const ALL: [Self; 3] = [Self::Api, Self::Webhook, Self::Sync];

    /// The word used in answers, events and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Webhook => "webhook",
            Self::Sync => "sync",
        }
    }
}

/// The state of a listing, in MercadoLibre's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ListingStatus {
    /// On sale.
    #[default]
    Active,
    /// Taken off sale, by its seller or for want of stock.
    Paused,
    /// Ended for good.
    Closed,
    /// Held back by MercadoLibre.
    UnderReview,
    /// Switched off by MercadoLibre.
    Inactive,
    /// Waiting for a payment of its seller.
    PaymentRequired,
    /// Accepted, not yet on sale.
    NotYetActive,
    /// A word that this version does not know; only an item of MercadoLibre can carry it.
    #[serde(other)]
    Unknown,
}

impl ListingStatus {
    /// Whether a client may ask for this state; the others are MercadoLibre's to give.
    fn is_clients_choice(self) -> bool {
        matches!(self, Self::Active | Self::Paused | Self::Closed)
    }
}

/// What a product says, without its identity and history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Details {
    /// The title, 1 to 256 characters.
    pub title: String,
    /// MercadoLibre's category, such as `MLA1055`.
    pub category_id: Option<String>,
    /// The price; absent on listings that have none (contact advertisements).
    pub price: Option<Price>,
    /// Three capital letters, such as `ARS`.
    pub currency_id: Option<String>,
    /// Pieces on stock.
    pub available_quantity: u32,
    /// The state of the listing.
    pub status: ListingStatus,
    /// The seller's own number for it.
    pub sku: Option<String>,
    /// Attributes by MercadoLibre's name, such as `BRAND`.
    pub attributes: BTreeMap<String, String>,
}

/// One product of one owner, as stored and as answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Product {
    /// Our identity of it.
    pub id: Uuid,
    /// The MercadoLibre item it mirrors; unique over all owners. Only a synchronisation sets it.
    pub ml_item_id: Option<String>,
    /// What the product says.
    #[serde(flatten)]
    pub details: Details,
    /// Where the last change came from.
    pub source: Source,
    /// `last_updated` of the newest item state taken over from MercadoLibre.
    pub ml_last_updated: Option<Timestamp>,
    /// 1 when made, one more with each write.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A field whose value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field as the client names it.
    pub field: &'static str,
    /// What the field should be.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}", self.field, self.expected)
    }
}

/// Every refused field of one product, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Details {
    /// Checks every field and reports all that are refused at once.
    ///
    /// # Errors
    /// [`Problems`] lists each refused field and what it should be.
    pub fn check(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, field: &'static str, expected: String| {
            if !holds {
                problems.push(Problem { field, expected });
            }
        };
        require(is_text(&self.title, TITLE_MAX), "title", format!("a text of 1 to {TITLE_MAX} characters"));
        require(
            self.category_id.as_deref().is_none_or(|category| is_text(category, FIELD_MAX)),
            "category_id",
            format!("null or a text of 1 to {FIELD_MAX} characters"),
        );
        require(
            self.currency_id.as_deref().is_none_or(is_currency),
            "currency_id",
            "null or three capital letters, such as ARS".to_owned(),
        );
        require(
            self.available_quantity <= QUANTITY_MAX,
            "available_quantity",
            format!("a whole number from 0 to {QUANTITY_MAX}"),
        );
        require(
            self.sku.as_deref().is_none_or(|sku| is_text(sku, FIELD_MAX)),
            "sku",
            format!("null or a text of 1 to {FIELD_MAX} characters"),
        );
        require(
            self.attributes.len() <= ATTRIBUTES_MAX
                && self
                    .attributes
                    .iter()
                    .all(|(name, value)| is_text(name, FIELD_MAX) && is_text(value, FIELD_MAX)),
            "attributes",
            format!("at most {ATTRIBUTES_MAX} pairs of texts of 1 to {FIELD_MAX} characters"),
        );
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

/// Whether `text` has 1 to `max` characters, is not blank and holds no control character.
fn is_text(text: &str, max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control)
}

/// Whether `text` looks like an ISO 4217 code.
fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Body of `POST /products`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Draft {
    #[cfg_attr(test, schemars(length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    title: String,
    price: Price,
    #[serde(default)]
    #[cfg_attr(test, schemars(length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    category_id: Option<String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(regex(pattern = "^[A-Z]{3}$")))]
    currency_id: Option<String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(range(max = QUANTITY_MAX)))]
    available_quantity: u32,
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "crate::schema::ClientsChoice"))]
    status: ListingStatus,
    #[serde(default)]
    #[cfg_attr(test, schemars(length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    sku: Option<String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "crate::schema::Attributes"))]
    attributes: BTreeMap<String, String>,
}

impl Draft {
    /// The details that the draft asks for.
    ///
    /// # Errors
    /// [`Problems`] lists each refused field and what it should be.
    pub fn into_details(self) -> Result<Details, Problems> {
        let asked = Some(self.status);
        let details = Details {
            title: self.title,
            category_id: self.category_id,
            price: Some(self.price),
            currency_id: self.currency_id,
            available_quantity: self.available_quantity,
            status: self.status,
            sku: self.sku,
            attributes: self.attributes,
        };
        check_with_status(&details, asked)?;
        Ok(details)
    }
}

/// Body of `PUT /products/{id}`: a field left out keeps its value, `null` empties a field that may be empty.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The version that the client has seen; another one in the store is a conflict.
    pub version: u64,
    #[cfg_attr(test, schemars(length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    title: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(with = "Option<String>", length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    category_id: Option<Option<String>>,
    price: Option<Price>,
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = "^[A-Z]{3}$")))]
    currency_id: Option<Option<String>>,
    #[cfg_attr(test, schemars(range(max = QUANTITY_MAX)))]
    available_quantity: Option<u32>,
    #[cfg_attr(test, schemars(with = "Option<crate::schema::ClientsChoice>"))]
    status: Option<ListingStatus>,
    #[serde(default, deserialize_with = "given")]
    #[cfg_attr(test, schemars(with = "Option<String>", length(min = 1, max = 256), regex(pattern = crate::schema::TEXT_PATTERN)))]
    sku: Option<Option<String>>,
    #[cfg_attr(test, schemars(with = "Option<crate::schema::Attributes>"))]
    attributes: Option<BTreeMap<String, String>>,
}

/// Tells `null` (inner `None`) from a field left out (outer `None`).
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl Change {
    /// The details after this change of `before`.
    ///
    /// # Errors
    /// [`Problems`] lists each refused field and what it should be.
    pub fn apply(self, before: &Details) -> Result<Details, Problems> {
        let after = Details {
            title: self.title.unwrap_or_else(|| before.title.clone()),
            category_id: self.category_id.unwrap_or_else(|| before.category_id.clone()),
            price: self.price.or(before.price),
            currency_id: self.currency_id.unwrap_or_else(|| before.currency_id.clone()),
            available_quantity: self.available_quantity.unwrap_or(before.available_quantity),
            status: self.status.unwrap_or(before.status),
            sku: self.sku.unwrap_or_else(|| before.sku.clone()),
            attributes: self.attributes.unwrap_or_else(|| before.attributes.clone()),
        };
        // A status that MercadoLibre gave may stay; only one that the client names is checked.
        check_with_status(&after, self.status.filter(|status| *status != before.status))?;
        Ok(after)
    }
}

/// [`Details::check`], and the status that a client asks for must be one that clients may choose.
fn check_with_status(details: &Details, asked: Option<ListingStatus>) -> Result<(), Problems> {
    let mut problems = details.check().err().map(|problems| problems.0).unwrap_or_default();
    if asked.is_some_and(|status| !status.is_clients_choice()) {
        problems.push(Problem { field: "status", expected: "active, paused or closed".to_owned() });
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details() -> Details {
        serde_json::from_value::<Draft>(json!({"title": "Lámpara", "price": 19.99, "sku": "L-1"}))
            .unwrap()
            .into_details()
            .unwrap()
    }

    #[test]
    fn a_draft_needs_only_title_and_price() {
        let details = details();
        assert_eq!(details.status, ListingStatus::Active);
        assert_eq!(details.available_quantity, 0);
        assert_eq!(details.price, Some(Price::parse("19.99").unwrap()));
    }

    #[test]
    fn every_refused_field_is_named_at_once() {
        let draft: Draft = serde_json::from_value(json!({
            "title": "  ", "price": 1, "currency_id": "ars", "category_id": "", "available_quantity": 100_000_000,
            "sku": "a\u{7}", "attributes": {"": "x"}, "status": "under_review",
        }))
        .unwrap();
        let problems = draft.into_details().unwrap_err();
        let fields: Vec<_> = problems.0.iter().map(|problem| problem.field).collect();
        assert_eq!(
            fields,
            ["title", "category_id", "currency_id", "available_quantity", "sku", "attributes", "status"]
        );
        assert!(
            problems.to_string().starts_with("title must be a text of 1 to 256 characters; category_id must")
        );
    }

    #[test]
    fn a_title_is_measured_in_characters() {
        let with_title = |title: String| Details { title, ..details() };
        assert!(with_title("ñ".repeat(256)).check().is_ok());
        assert!(with_title("ñ".repeat(257)).check().is_err());
    }

    #[test]
    fn a_change_keeps_what_is_left_out_and_null_empties() {
        let change = |body| serde_json::from_value::<Change>(body).unwrap();
        let before = details();
        assert_eq!(change(json!({"version": 1})).apply(&before).unwrap(), before);
        let after = change(json!({"version": 1, "sku": null, "price": 5})).apply(&before).unwrap();
        assert_eq!(after.sku, None);
        assert_eq!(after.price, Some(Price::parse("5").unwrap()));
        assert_eq!(after.title, before.title);
    }

    #[test]
    fn a_client_keeps_but_never_chooses_a_status_of_mercadolibre() {
        let before = Details { status: ListingStatus::UnderReview, ..details() };
        let change = |body| serde_json::from_value::<Change>(body).unwrap().apply(&before);
        assert!(change(json!({"version": 1, "title": "New"})).is_ok());
        assert!(change(json!({"version": 1, "status": "under_review"})).is_ok());
        assert!(change(json!({"version": 1, "status": "inactive"})).is_err());
        assert!(change(json!({"version": 1, "status": "no-such-word"})).is_err());
    }

    #[test]
    fn a_change_names_the_version_it_has_seen() {
        assert!(serde_json::from_value::<Change>(json!({"title": "x"})).is_err());
        assert!(serde_json::from_value::<Change>(json!({"version": 1, "ml_item_id": "MLA1"})).is_err());
    }
}
