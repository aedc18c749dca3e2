//! Synchronisation: every item of the user's, by a scan and bulk pages, into catalog and event log.

use serde_json::Value;
use service_kit::auth::Principal;
use uuid::Uuid;

use super::{Items, refuse_probe};
use crate::error::Error;
use crate::limiter::Lane;
use crate::ml::{Group, ItemId, MlError, Request};
use crate::publish::{Owner, Source};

/// Ids of one page of the scan; MercadoLibre's most.
const PAGE: &str = "100";
/// Items of one bulk call; MercadoLibre's most.
const BULK: usize = 20;

/// What a synchronisation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Synced {
    /// Items that were handed on.
    pub synced: u64,
    /// Items that MercadoLibre listed and then did not show.
    pub skipped: u64,
}

impl Items {
    /// Hands every item of the user's on. What was handed on before a failure stays: repeat it.
    ///
    /// # Errors
    /// Why it could not go on.
    pub async fn sync(&self, who: &Principal, request_id: &str) -> Result<Synced, Error> {
        let mut done = Synced { synced: 0, skipped: 0 };
        if who.is_probe() {
            return Ok(done);
        }
        refuse_probe(who)?;
        let account = self.account(who).await?;
        let run = format!("sync:{}", Uuid::new_v4());
        let ids = self.scan(who, account.ml_user_id).await?;
        let owner = Owner { tenant: &who.tenant, user_id: who.user_id };
        for ids in ids.chunks(BULK) {
            let items = self.bulk(who, ids).await?;
            done.skipped += (ids.len() - items.len()) as u64;
            self.publisher.items(owner, Source::Sync, &run, &items, request_id).await?;
            done.synced += items.len() as u64;
        }
        tracing::info!(user_id = %who.user_id, synced = done.synced, skipped = done.skipped, "items synchronised");
        Ok(done)
    }

    /// All ids. A scroll lives five minutes and may die early; then the scan begins again, once.
    async fn scan(&self, who: &Principal, ml_user_id: u64) -> Result<Vec<ItemId>, Error> {
        match self.scan_once(who, ml_user_id).await {
            Err(Error::Ml(MlError::Refused { status: 400, .. })) => self.scan_once(who, ml_user_id).await,
            result => result,
        }
    }

    async fn scan_once(&self, who: &Principal, ml_user_id: u64) -> Result<Vec<ItemId>, Error> {
        let unreadable = || MlError::Unreadable { expected: "a page of item ids with scroll_id" };
        let path = format!("/users/{ml_user_id}/items/search");
        let mut ids = Vec::new();
        let mut scroll: Option<String> = None;
        loop {
            let mut request = Request::get(Group::Items, path.clone(), who.user_id, Lane::Bulk)
                .with("search_type", "scan")
                .with("limit", PAGE);
            if let Some(scroll) = &scroll {
                request = request.with("scroll_id", scroll.as_str());
            }
            let page = self.session.send(&request).await?.body;
            let results = page["results"].as_array().ok_or_else(unreadable)?;
            if results.is_empty() {
                break;
            }
            for id in results {
                let id = id.as_str().and_then(|id| id.parse().ok()).ok_or_else(unreadable)?;
                ids.push(id);
            }
            scroll = page["scroll_id"].as_str().map(str::to_owned);
            if scroll.is_none() {
                break;
            }
        }
        // A listing made during the scan may show up twice, and one repeated id fails a whole bulk call.
        let mut seen = std::collections::HashSet::new();
        ids.retain(|id: &ItemId| seen.insert(id.clone()));
        Ok(ids)
    }

    /// The items that are shown. An envelope without `status_code` would make every item look absent: an error.
    async fn bulk(&self, who: &Principal, ids: &[ItemId]) -> Result<Vec<Value>, Error> {
        let joined = ids.iter().map(ItemId::as_str).collect::<Vec<_>>().join(",");
        let request = Request::get(Group::Items, "/items/bulk", who.user_id, Lane::Bulk).with("ids", joined);
        let unreadable = || MlError::Unreadable { expected: "a list of status_code and body" };
        let Value::Array(entries) = self.session.send(&request).await?.body else {
            return Err(unreadable().into());
        };
        let mut items = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let status = entry["status_code"].as_u64().ok_or_else(unreadable)?;
            if status == 200 {
                items.push(entry["body"].take());
            }
        }
        Ok(items)
    }
}
