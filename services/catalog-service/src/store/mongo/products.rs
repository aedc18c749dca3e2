//! Reading and writing the documents of products.

use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use super::document::{self, ProductDocument};
use super::owners::is_erased;
use super::{ATTEMPTS, Collections, MongoError, READ_TIME_MAX, is_duplicate};
use crate::product::{Owner, Product};
use crate::search::Search;
use crate::store::{Inserted, PENDING_EVENTS_MAX, Replaced, Stored, Write};

/// The owner's document of this identity.
fn of_owner(owner: &Owner, id: Uuid) -> Document {
    doc! {"_id": id.to_string(), "user_id": owner.user_id.to_string(), "tenant": &owner.tenant}
}

/// See [`crate::store::ProductStore::insert`].
///
/// The owner may be erased while its product is being stored. The erasure marks the owner before it removes anything,
/// so whoever still finds no mark after storing is removed by it; who finds one removes its own.
pub(super) async fn insert(collections: &Collections, write: &Write) -> Result<Inserted, MongoError> {
    let Stored { owner, product, .. } = &write.stored;
    if is_erased(collections, owner).await? {
        return Ok(Inserted::OwnerErased);
    }
    match collections.products.insert_one(ProductDocument::of(write)?).await {
        Ok(_) => {}
        Err(error) if is_duplicate(&error) => {
            let same = collections.products.count_documents(doc! {"_id": product.id.to_string()}).await?;
            return Ok(if same > 0 { Inserted::IdTaken } else { Inserted::ItemTaken });
        }
        Err(error) => return Err(error.into()),
    }
    if is_erased(collections, owner).await? {
        collections.products.delete_one(of_owner(owner, product.id)).await?;
        return Ok(Inserted::OwnerErased);
    }
    Ok(Inserted::Done)
}

/// See [`crate::store::ProductStore::replace`].
pub(super) async fn replace(
    collections: &Collections,
    write: &Write,
    expected: u64,
) -> Result<Replaced, MongoError> {
    let Stored { owner, product, .. } = &write.stored;
    let mut at_version = of_owner(owner, product.id);
    at_version.insert("version", expected as i64);
    let full = format!("pending_events.{}", PENDING_EVENTS_MAX - 1);
    let mut with_room = at_version.clone();
    if write.event.is_some() {
        with_room.insert(&full, doc! {"$exists": false});
    }
    let update = document::replacement(write)?;
    for _ in 0..ATTEMPTS {
        let done = collections.products.update_one(with_room.clone(), update.clone()).await?;
        if done.matched_count > 0 {
            return Ok(Replaced::Done);
        }
        let mut without_room = at_version.clone();
        without_room.insert(&full, doc! {"$exists": true});
        if write.event.is_some() && collections.products.count_documents(without_room).await? > 0 {
            return Err(MongoError::Backlog(product.id));
        }
        if collections.products.count_documents(at_version.clone()).await? == 0 {
            return Ok(Replaced::Stale);
        }
        // It was full, and events were published since.
    }
    Err(MongoError::Contended)
}

/// See [`crate::store::ProductStore::find`].
pub(super) async fn find(
    collections: &Collections,
    owner: &Owner,
    id: Uuid,
) -> Result<Option<Product>, MongoError> {
    let mut filter = of_owner(owner, id);
    filter.insert("deleted_at", Bson::Null);
    let found = collections.products.find_one(filter).max_time(READ_TIME_MAX).await?;
    found.map(|document| document.read().map(|stored| stored.product)).transpose()
}

/// See [`crate::store::ProductStore::find_item`].
pub(super) async fn find_item(
    collections: &Collections,
    ml_item_id: &str,
) -> Result<Option<Stored>, MongoError> {
    let found = collections.products.find_one(of_item(ml_item_id)).max_time(READ_TIME_MAX).await?;
    found.map(ProductDocument::read).transpose()
}

/// The document that mirrors an item.
pub(super) fn of_item(ml_item_id: &str) -> Document {
    doc! {"ml_item_id": ml_item_id}
}

/// See [`crate::store::ProductStore::search`].
pub(super) async fn search(
    collections: &Collections,
    owner: &Owner,
    search: &Search,
) -> Result<Vec<Product>, MongoError> {
    // A pattern ends at a NUL, and no product holds one.
    if search.words.iter().any(|word| word.contains('\0')) {
        return Ok(Vec::new());
    }
    let mut found = collections
        .products
        .find(matching(owner, search))
        .sort(newest_first())
        .limit(i64::from(search.limit))
        .max_time(READ_TIME_MAX)
        .await?;
    let mut products = Vec::new();
    while found.advance().await? {
        products.push(found.deserialize_current()?.read()?.product);
    }
    Ok(products)
}

/// The order of a search; identities are lower case text of one length, so their order is that of the numbers.
pub(super) fn newest_first() -> Document {
    doc! {"created_at": -1, "_id": -1}
}

/// The condition of a search.
pub(super) fn matching(owner: &Owner, search: &Search) -> Document {
    let mut filter = doc! {
        "user_id": owner.user_id.to_string(),
        "tenant": &owner.tenant,
        "deleted_at": Bson::Null,
    };
    if let Some(category) = &search.category {
        filter.insert("category_id", category);
    }
    if !search.words.is_empty() {
        let words: Vec<Document> =
            search.words.iter().map(|word| doc! {"searchable": {"$regex": literal(word)}}).collect();
        filter.insert("$and", words);
    }
    if let Some(mark) = search.after {
        let created_at = mark.created_at.as_microsecond();
        // Said apart from the rest of the condition, it tells the index where to begin.
        filter.insert("created_at", doc! {"$lte": created_at});
        filter.insert(
            "$or",
            vec![
                doc! {"created_at": {"$lt": created_at}},
                doc! {"created_at": created_at, "_id": {"$lt": mark.id.to_string()}},
            ],
        );
    }
    filter
}

/// A pattern that matches exactly this text, anywhere.
fn literal(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len());
    for letter in word.chars() {
        if letter.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

/// See [`crate::store::ProductStore::sweep`]: a document that waits for the event log outlives its time.
pub(super) async fn sweep(collections: &Collections, now: Timestamp) -> Result<usize, MongoError> {
    let expired = doc! {
        "expires_at": {"$lte": now.as_microsecond()},
        "pending_since": {"$exists": false},
    };
    let gone = collections.products.delete_many(expired).await?;
    Ok(usize::try_from(gone.deleted_count).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_searched_as_it_stands() {
        for (word, pattern) in [
            ("lamp", "lamp"),
            ("100%", "100\\%"),
            ("a.b*", "a\\.b\\*"),
            ("^[$", "\\^\\[\\$"),
            ("straße", "straße"),
        ] {
            assert_eq!(literal(word), pattern);
        }
    }
}
