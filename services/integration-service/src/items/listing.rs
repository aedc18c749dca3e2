//! Listing a new item exactly once, although MercadoLibre has no idempotency key for it: an intent is written first,
//! and after a doubt the item is looked for by its SKU before anything is sent again.

use axum::http::Method;
use serde_json::{Value, json};
use service_kit::ApiError;
use service_kit::auth::Principal;
use sha2::{Digest, Sha256};

use super::{Items, refuse_probe};
use crate::error::Error;
use crate::limiter::Lane;
use crate::ml::{Body, Group, ItemId, MlError, Request};
use crate::store::{Begun, Intent};

/// Longer than any call with its retries.
const LEASE_MS: i64 = 60_000;

/// A listed item.
#[derive(Clone, Debug)]
pub struct Listed {
    /// 201, or 206 when MercadoLibre does not show all of it yet.
    pub status: u16,
    /// The item.
    pub item: Value,
    /// True when an earlier request listed it.
    pub replayed: bool,
}

impl Items {
    /// Lists an item. The same `key` with the same draft lists it once, however often it is asked for.
    ///
    /// # Errors
    /// What MercadoLibre refused; [`Error::ListingInDoubt`] when it did not say.
    pub async fn list_new(
        &self,
        who: &Principal,
        key: &str,
        draft: Value,
        request_id: &str,
    ) -> Result<Listed, Error> {
        refuse_probe(who)?;
        let account = self.account(who).await?;
        let intent = Intent {
            user_id: who.user_id,
            key: key.to_owned(),
            request_hash: format!("{:x}", Sha256::digest(draft.to_string())),
            seller_sku: seller_sku(&draft).map(str::to_owned),
        };
        let sku = intent.seller_sku.clone();
        let now = self.clock.now().as_millisecond();
        match self.store.begin_listing(intent, now, now + LEASE_MS).await? {
            Begun::Fresh => {}
            Begun::Done { status, answer } => {
                let item = serde_json::from_str(&answer).unwrap_or_default();
                return Ok(Listed { status, item, replayed: true });
            }
            Begun::InFlight => {
                return Err(ApiError::conflict(
                    "in_flight",
                    "A request with this Idempotency-Key is under way.",
                )
                .into());
            }
            Begun::OtherRequest => {
                let text = "This Idempotency-Key was used for another request; choose a new one.";
                return Err(ApiError::unprocessable("idempotency_key_reused", text).into());
            }
            Begun::Doubtful => match self.find_listed(who, account.ml_user_id, sku.as_deref()).await {
                Ok(Some(item)) => {
                    self.store.finish_listing(who.user_id, key, 201, &item.to_string()).await?;
                    self.tell(who, &item, request_id).await;
                    return Ok(Listed { status: 201, item, replayed: true });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = service_kit::error::chain(&error),
                        "a listing in doubt was not looked for"
                    );
                    self.store.doubt_listing(who.user_id, key).await?;
                    return Err(Error::ListingInDoubt(Box::new(error)));
                }
            },
        }
        let request = Request {
            group: Group::Items,
            method: Method::POST,
            path: "/items".into(),
            query: Vec::new(),
            body: Body::Json(draft),
            lane: Lane::Interactive,
            user: who.user_id,
        };
        match self.session.send(&request).await {
            Ok(answer) => {
                // 206: it exists although it is not shown; one read usually shows it.
                let item =
                    if answer.status == 206 { self.reread(who, answer.body).await } else { answer.body };
                self.store.finish_listing(who.user_id, key, answer.status, &item.to_string()).await?;
                if item["last_updated"].is_string() {
                    self.tell(who, &item, request_id).await;
                }
                Ok(Listed { status: answer.status, item, replayed: false })
            }
            Err(Error::Ml(error)) if error.may_have_happened() => {
                tracing::warn!(
                    error = service_kit::error::chain(&error),
                    "whether an item was listed is unknown"
                );
                self.store.doubt_listing(who.user_id, key).await?;
                Err(Error::ListingInDoubt(Box::new(error.into())))
            }
            Err(error) => {
                self.store.forget_listing(who.user_id, key).await?;
                Err(error)
            }
        }
    }

    async fn reread(&self, who: &Principal, partial: Value) -> Value {
        let Some(Ok(id)) = partial["id"].as_str().map(str::parse::<ItemId>) else { return partial };
        self.load(who, &id).await.unwrap_or(partial)
    }

    /// The user's item of this SKU. Without a SKU nothing can be found, and sending again would risk a second item.
    async fn find_listed(
        &self,
        who: &Principal,
        ml_user_id: u64,
        sku: Option<&str>,
    ) -> Result<Option<Value>, Error> {
        let Some(sku) = sku else {
            let text = "An earlier try is in doubt and the draft names no SELLER_SKU to look for: check the listings, then use a new Idempotency-Key.";
            return Err(ApiError::conflict("listing_in_doubt", text).into());
        };
        let path = format!("/users/{ml_user_id}/items/search");
        let request =
            Request::get(Group::Items, path, who.user_id, Lane::Interactive).with("seller_sku", sku);
        let page = self.session.send(&request).await?.body;
        let ids = page["results"].as_array().ok_or(MlError::Unreadable { expected: "a page of item ids" })?;
        match ids.first().and_then(Value::as_str).map(str::parse::<ItemId>) {
            None => Ok(None),
            Some(Ok(id)) => Ok(Some(self.load(who, &id).await?)),
            Some(Err(_)) => Err(MlError::Unreadable { expected: "an item id" }.into()),
        }
    }
}

/// The draft's `SELLER_SKU` attribute.
fn seller_sku(draft: &Value) -> Option<&str> {
    let attributes = draft["attributes"].as_array()?;
    let sku = attributes.iter().find(|attribute| attribute["id"] == json!("SELLER_SKU"))?;
    sku["value_name"].as_str().filter(|sku| !sku.is_empty())
}
