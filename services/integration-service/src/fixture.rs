//! The item that verification traffic (tenant `mlctl-probe`) sees: it never reaches MercadoLibre.

use serde_json::{Value, json};

/// Id of the only item.
pub const ITEM_ID: &str = "MLA1";

/// The item, as MercadoLibre would show it to its owner.
pub fn item() -> Value {
    json!({
        "id": ITEM_ID,
        "site_id": "MLA",
        "title": "Verification item",
        "seller_id": 1,
        "category_id": "MLA1055",
        "price": 1999.0,
        "currency_id": "ARS",
        "available_quantity": 10,
        "initial_quantity": 10,
        "sold_quantity": 0,
        "buying_mode": "buy_it_now",
        "listing_type_id": "gold_special",
        "condition": "new",
        "status": "active",
        "sub_status": [],
        "attributes": [{ "id": "SELLER_SKU", "value_name": "VERIFY-1" }],
        "date_created": "2026-01-01T00:00:00.000Z",
        "last_updated": "2026-01-01T00:00:00.000Z",
    })
}
