//! The indexes that the adapter's conditions and orders need.
//!
//! The adapter makes them itself when it first reaches the server, not a migration before the release: making one that
//! is there does nothing, a collection has no other shape to prepare, and the unique one must be there before the first
//! write of any replica. An index of the same name with other options is an error, and the service stays unready: it
//! never drops what somebody else made.

use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;

/// Indexes of `products`.
///
/// Sparse where only some documents have the field: products without an item must not clash, and what waits for nothing
/// takes no room. (A partial index would do the same, but fewer servers that speak this protocol have one.)
pub(super) fn of_products() -> Vec<IndexModel> {
    vec![
        index(doc! {"ml_item_id": 1}, true, true),
        index(doc! {"user_id": 1, "tenant": 1, "created_at": -1, "_id": -1}, false, false),
        index(doc! {"category_id": 1, "available_quantity": 1}, false, false),
        index(doc! {"pending_since": 1, "_id": 1}, false, true),
        index(doc! {"expires_at": 1}, false, true),
    ]
}

/// Indexes of `idempotency_keys`.
pub(super) fn of_keys() -> Vec<IndexModel> {
    vec![
        index(doc! {"user_id": 1, "tenant": 1, "key": 1}, true, false),
        index(doc! {"forget_at": 1}, false, false),
    ]
}

fn index(keys: Document, unique: bool, sparse: bool) -> IndexModel {
    // An option that is not set stays unsaid, so that the same index made by hand in the shell is the same index.
    let options =
        IndexOptions::builder().unique(unique.then_some(true)).sparse(sparse.then_some(true)).build();
    IndexModel::builder().keys(keys).options(options).build()
}
