//! Owners whose account was erased.

use jiff::Timestamp;
use mongodb::bson::{Document, doc};

use super::{ATTEMPTS, Collections, MongoError, is_duplicate};
use crate::product::Owner;

/// Everything of one owner.
fn of(owner: &Owner) -> Document {
    doc! {"user_id": owner.user_id.to_string(), "tenant": &owner.tenant}
}

/// Identity of an owner's mark. A user's identity has one length, so no two owners share it.
fn mark(owner: &Owner) -> String {
    format!("{} {}", owner.user_id, owner.tenant)
}

/// Whether the owner is marked as erased.
pub(super) async fn is_erased(collections: &Collections, owner: &Owner) -> Result<bool, MongoError> {
    Ok(collections.erased.find_one(doc! {"_id": mark(owner)}).await?.is_some())
}

/// See [`crate::store::ProductStore::erase`]. The mark comes first: see the insert.
pub(super) async fn erase(
    collections: &Collections,
    owner: &Owner,
    until: Timestamp,
) -> Result<usize, MongoError> {
    let mut set = doc! {"$setOnInsert": of(owner)};
    set.insert("$max", doc! {"until": until.as_microsecond()});
    for _ in 0..ATTEMPTS {
        let marked = collections.erased.update_one(doc! {"_id": mark(owner)}, set.clone()).upsert(true).await;
        match marked {
            Ok(_) => return remove(collections, of(owner)).await,
            // Another made the mark at the same moment.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(MongoError::Contended)
}

/// Forgets the erasures that end by `now`. What a process stored for such an owner and died before it looked for the
/// mark goes first; nothing else of the owner can be there.
pub(super) async fn sweep(collections: &Collections, now: Timestamp) -> Result<(), MongoError> {
    let mut ended = collections.erased.find(doc! {"until": {"$lte": now.as_microsecond()}}).await?;
    while ended.advance().await? {
        let mark = ended.deserialize_current()?;
        let (Ok(user_id), Ok(tenant), Ok(id), Ok(until)) =
            (mark.get_str("user_id"), mark.get_str("tenant"), mark.get_str("_id"), mark.get_i64("until"))
        else {
            return Err(MongoError::unreadable("an erased owner lacks a field"));
        };
        remove(collections, doc! {"user_id": user_id, "tenant": tenant}).await?;
        collections.erased.delete_one(doc! {"_id": id, "until": until}).await?;
    }
    Ok(())
}

async fn remove(collections: &Collections, owner: Document) -> Result<usize, MongoError> {
    collections.keys.delete_many(owner.clone()).await?;
    let gone = collections.products.delete_many(owner).await?;
    Ok(usize::try_from(gone.deleted_count).unwrap_or(usize::MAX))
}
