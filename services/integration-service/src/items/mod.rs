//! A user's items: read through the cache, searched, changed, listed, synchronised.

mod listing;
mod sync;

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Map, Value, json};
use service_kit::auth::Principal;
use service_kit::{ApiError, Clock};

use crate::cache::{Found, Freshness, ItemCache};
use crate::error::Error;
use crate::fixture;
use crate::limiter::Lane;
use crate::ml::{Answer, Body, Group, ItemId, MlError, Request, Session};
use crate::owners::Owners;
use crate::publish::{Owner, Publisher, Source};
use crate::store::{Account, Store};

pub use listing::Listed;
pub use sync::Synced;

/// See the module.
pub struct Items {
    store: Arc<dyn Store>,
    owners: Arc<Owners>,
    session: Session,
    cache: Arc<ItemCache>,
    publisher: Arc<Publisher>,
    clock: Clock,
}

/// A page of item ids to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only items of this status.
    pub status: Option<&'a str>,
    /// Only the item of this SKU.
    pub seller_sku: Option<&'a str>,
    /// Where to begin, at most 1,000.
    pub offset: u32,
    /// How many, at most 100.
    pub limit: u32,
}

impl Items {
    /// Over these parts.
    pub fn new(
        store: Arc<dyn Store>,
        owners: Arc<Owners>,
        session: Session,
        cache: Arc<ItemCache>,
        publisher: Arc<Publisher>,
        clock: Clock,
    ) -> Self {
        Self { store, owners, session, cache, publisher, clock }
    }

    /// One item of the user's, through the cache.
    ///
    /// # Errors
    /// 404 when there is no such item, or why it cannot be read.
    pub async fn get(&self, who: &Principal, id: &ItemId) -> Result<(Arc<Value>, Freshness), Error> {
        let absent = || ApiError::not_found("not_found", "MercadoLibre has no such item.");
        if who.is_probe() {
            let found = id.as_str() == fixture::ITEM_ID;
            return if found {
                Ok((Arc::new(fixture::item()), Freshness::Hit))
            } else {
                Err(absent().into())
            };
        }
        let owner = self.owners.of(who.user_id).await?;
        let found = self.cache.get(owner, id, self.load(who, id)).await;
        let Found { item, freshness } = found.map_err(shared)?;
        Ok((item.ok_or_else(absent)?, freshness))
    }

    /// Ids of the user's items: MercadoLibre's page as it is.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn list(&self, who: &Principal, page: Page<'_>) -> Result<Value, Error> {
        if who.is_probe() {
            let paging = json!({ "total": 1, "offset": page.offset, "limit": page.limit });
            let results = if page.offset == 0 { json!([fixture::ITEM_ID]) } else { json!([]) };
            return Ok(json!({ "results": results, "paging": paging }));
        }
        let account = self.account(who).await?;
        let path = format!("/users/{}/items/search", account.ml_user_id);
        let mut request = Request::get(Group::Items, path, who.user_id, Lane::Interactive)
            .with("offset", page.offset.to_string())
            .with("limit", page.limit.to_string());
        if let Some(status) = page.status {
            request = request.with("status", status);
        }
        if let Some(sku) = page.seller_sku {
            request = request.with("seller_sku", sku);
        }
        let body = self.session.send(&request).await?.body;
        if !body["results"].is_array() {
            return Err(MlError::Unreadable { expected: "a page of item ids" }.into());
        }
        Ok(json!({ "results": body["results"], "paging": body["paging"] }))
    }

    /// Changes fields of an item; the item as MercadoLibre has it then, with `warnings` where it ignored a field.
    ///
    /// # Errors
    /// What MercadoLibre refused.
    pub async fn put(
        &self,
        who: &Principal,
        id: &ItemId,
        patch: Map<String, Value>,
        request_id: &str,
    ) -> Result<Value, Error> {
        refuse_probe(who)?;
        let account = self.account(who).await?;
        let request = Request {
            group: Group::Items,
            method: Method::PUT,
            path: format!("/items/{id}"),
            query: Vec::new(),
            body: Body::Json(Value::Object(patch)),
            lane: Lane::Interactive,
            user: who.user_id,
        };
        let answer = self.session.send(&request).await;
        // Also after a failure: it may have happened.
        self.cache.invalidate(account.ml_user_id, id).await;
        let Answer { body, .. } = answer?;
        self.tell(who, &body, request_id).await;
        Ok(body)
    }

    /// Forgets what the caches hold of an item.
    pub async fn forget(&self, owner: u64, id: &ItemId) {
        self.cache.invalidate(owner, id).await;
    }

    /// Tells catalog and log of a write of the user's own. The write has happened: a failure here is for the log, and
    /// the notification that follows from MercadoLibre or the next sync makes it good.
    async fn tell(&self, who: &Principal, item: &Value, request_id: &str) {
        let owner = Owner { tenant: &who.tenant, user_id: who.user_id };
        let run = version_of(item);
        let items = std::slice::from_ref(item);
        if let Err(error) = self.publisher.items(owner, Source::Sync, &run, items, request_id).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a written item was not published");
        }
    }

    async fn load(&self, who: &Principal, id: &ItemId) -> Result<Value, Error> {
        let request = Request::get(Group::Items, format!("/items/{id}"), who.user_id, Lane::Interactive);
        let answer = self.session.send(&request).await?;
        if answer.body["id"] != json!(id.as_str()) {
            return Err(MlError::Unreadable { expected: "the item that was asked for" }.into());
        }
        Ok(answer.body)
    }

    async fn account(&self, who: &Principal) -> Result<Account, Error> {
        self.store.account(who.user_id).await?.ok_or(Error::NotConnected)
    }
}

/// A version of an item has one event, whoever tells of it: a write here and the notification of it.
pub fn version_of(item: &Value) -> String {
    format!("version:{}", item["last_updated"].as_str().unwrap_or_default())
}

fn refuse_probe(who: &Principal) -> Result<(), Error> {
    if who.is_probe() {
        return Err(ApiError::forbidden(
            "probe_read_only",
            "Verification traffic does not write to MercadoLibre.",
        )
        .into());
    }
    Ok(())
}

/// The callers who waited for one load share its error; the last one to look has it alone.
fn shared(error: Arc<Error>) -> Error {
    match Arc::try_unwrap(error) {
        Ok(error) => error,
        Err(shared) => Error::Shared(shared),
    }
}
