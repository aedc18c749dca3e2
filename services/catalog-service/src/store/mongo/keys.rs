//! Idempotency keys: one document per key, which a unique index makes the only one.

use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use serde::{Deserialize, Serialize};

use super::document::identity;
use super::{ATTEMPTS, Collections, MongoError, is_duplicate};
use crate::product::{Owner, Product};
use crate::store::{Claim, Claimed};

/// One document of the collection `idempotency_keys`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeyDocument {
    user_id: String,
    tenant: String,
    key: String,
    request: String,
    product_id: String,
    until: i64,
    forget_at: i64,
    /// The product as it was answered, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<String>,
}

fn of(owner: &Owner, key: &str) -> Document {
    doc! {"user_id": owner.user_id.to_string(), "tenant": &owner.tenant, "key": key}
}

fn unanswered(owner: &Owner, key: &str) -> Document {
    let mut filter = of(owner, key);
    filter.insert("answer", doc! {"$exists": false});
    filter
}

/// See [`crate::store::ProductStore::claim`].
pub(super) async fn claim(
    collections: &Collections,
    owner: &Owner,
    claim: &Claim,
) -> Result<Claimed, MongoError> {
    let new = KeyDocument {
        user_id: owner.user_id.to_string(),
        tenant: owner.tenant.clone(),
        key: claim.key.clone(),
        request: claim.request.clone(),
        product_id: claim.product.to_string(),
        until: claim.until.as_microsecond(),
        forget_at: claim.forget_at.as_microsecond(),
        answer: None,
    };
    let now = claim.now.as_microsecond();
    for _ in 0..ATTEMPTS {
        match collections.keys.insert_one(&new).await {
            Ok(_) => return Ok(Claimed::Granted(claim.product)),
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
        // Forgotten or given back in between: the next round sees to it.
        let Some(known) = collections.keys.find_one(of(owner, &claim.key)).await? else { continue };
        if known.forget_at <= now {
            let mut forgotten = of(owner, &claim.key);
            forgotten.insert("forget_at", known.forget_at);
            collections.keys.delete_one(forgotten).await?;
            continue;
        }
        if known.request != claim.request {
            return Ok(Claimed::OtherRequest);
        }
        if let Some(answer) = known.answer {
            return Ok(Claimed::Answered(serde_json::from_str(&answer).map_err(MongoError::unreadable)?));
        }
        if known.until > now {
            return Ok(Claimed::InFlight);
        }
        let mut given_up = unanswered(owner, &claim.key);
        given_up.insert("until", known.until);
        let update = doc! {"$set": {"until": claim.until.as_microsecond()}};
        if collections.keys.update_one(given_up, update).await?.matched_count > 0 {
            return Ok(Claimed::Granted(identity(&known.product_id)?));
        }
    }
    Err(MongoError::Contended)
}

/// See [`crate::store::ProductStore::answer`].
pub(super) async fn answer(
    collections: &Collections,
    owner: &Owner,
    key: &str,
    product: &Product,
) -> Result<(), MongoError> {
    let answer = serde_json::to_string(product).map_err(MongoError::unreadable)?;
    collections.keys.update_one(unanswered(owner, key), doc! {"$set": {"answer": answer}}).await?;
    Ok(())
}

/// See [`crate::store::ProductStore::give_back`].
pub(super) async fn give_back(
    collections: &Collections,
    owner: &Owner,
    key: &str,
    now: Timestamp,
) -> Result<(), MongoError> {
    let update = doc! {"$set": {"until": now.as_microsecond()}};
    collections.keys.update_one(unanswered(owner, key), update).await?;
    Ok(())
}

/// Forgets the keys whose time ends by `now`.
pub(super) async fn sweep(collections: &Collections, now: Timestamp) -> Result<(), MongoError> {
    collections.keys.delete_many(doc! {"forget_at": {"$lte": now.as_microsecond()}}).await?;
    Ok(())
}
