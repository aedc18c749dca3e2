//! What others learn from here: items go to catalog-service and, as events, into the log.

use std::ops::Range;
use std::sync::Arc;

use axum::http::Method;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use service_kit::auth::SharedToken;
use service_kit::client::{CallError, Client};
use service_kit::eventlog::{ML_EVENTS, NewRecord};
use service_kit::events::Publish;
use service_kit::{Clock, PROBE_TENANT, trace};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::Error;

/// Items of one call; catalog-service accepts at most 1,000.
const BATCH_ITEMS: usize = 200;
/// Bytes of the items of one call: half of what catalog-service reads of a body. Only an item that is longer by itself
/// makes a longer call.
const BATCH_BYTES: usize = 500 * 1024;

/// catalog-service did not take the items.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It cannot be reached.
    #[error("hand items to catalog-service")]
    Call(#[from] CallError),
    /// An item cannot be written as JSON.
    #[error("write an item for catalog-service")]
    Item(#[source] serde_json::Error),
    /// The owner's account was deleted, so there is nobody to keep items for.
    #[error("hand items to catalog-service: the owner's account was deleted")]
    AccountDeleted,
    /// It answered something else than 200.
    #[error("hand items to catalog-service: it answered {0}")]
    Status(u16),
}

impl CatalogError {
    /// True when the same hand-over may be taken later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Item(_) | Self::AccountDeleted => false,
            // What it cannot read or will not take stays so; a token that it refuses may be being rotated.
            Self::Status(status) => !matches!(status, 400 | 413 | 415 | 422),
        }
    }
}

/// Body of `POST /internal/products/upsert`.
#[derive(Serialize)]
struct HandOver<'a> {
    tenant: &'a str,
    user_id: Uuid,
    source: &'static str,
    items: &'a [Box<RawValue>],
}

/// Where items come from, as catalog-service counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A synchronisation, or a write of the user's own.
    Sync,
    /// A notification.
    Webhook,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Webhook => "webhook",
        }
    }
}

/// For whom something is published.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The user.
    pub user_id: Uuid,
}

/// See the module.
pub struct Publisher {
    events: Arc<dyn Publish>,
    catalog: Client,
    internal: SharedToken,
    clock: Clock,
}

impl Publisher {
    /// Over this log and that service.
    pub fn new(events: Arc<dyn Publish>, catalog: Client, internal: SharedToken, clock: Clock) -> Self {
        Self { events, catalog, internal, clock }
    }

    /// Hands items to the catalog and tells of each by `item.updated`. `run` names this act: the same run tells of an
    /// item under the same event id however often it is repeated. The catalog comes first: a repetition then only
    /// repeats what its guards ignore.
    ///
    /// # Errors
    /// When the catalog or the log does not take them; repeat the whole then.
    pub async fn items(
        &self,
        owner: Owner<'_>,
        source: Source,
        run: &str,
        items: &[Value],
        request_id: &str,
    ) -> Result<(), Error> {
        let written = items.iter().map(serde_json::value::to_raw_value).collect::<Result<Vec<_>, _>>();
        let written = written.map_err(CatalogError::Item)?;
        for batch in batches(&written) {
            self.hand_over(owner, source, &written[batch.clone()], request_id).await?;
            let events = items[batch].iter().map(|item| {
                let id = item["id"].as_str().unwrap_or_default();
                let data = json!({
                    "ml_item_id": item["id"],
                    "status": item["status"],
                    "price": item["price"],
                    "available_quantity": item["available_quantity"],
                    "last_updated": item["last_updated"],
                    "deleted": item["deleted"] == json!(true),
                    "source": source.name(),
                });
                (event_id(&["item.updated", run, id]), "item.updated", data)
            });
            self.append(owner, events.collect()).await?;
        }
        Ok(())
    }

    async fn hand_over(
        &self,
        owner: Owner<'_>,
        source: Source,
        items: &[Box<RawValue>],
        request_id: &str,
    ) -> Result<(), CatalogError> {
        let body = HandOver { tenant: owner.tenant, user_id: owner.user_id, source: source.name(), items };
        let headers = [self.internal.internal_header(), ("x-request-id", request_id)];
        let headers = if request_id.is_empty() { &headers[..1] } else { &headers[..] };
        let answer =
            self.catalog.send_json(Method::POST, "/internal/products/upsert", headers, &body).await?;
        match answer.status.as_u16() {
            200 => Ok(()),
            403 if answer.json::<Value>().is_ok_and(|body| body["error"] == "account_deleted") => {
                Err(CatalogError::AccountDeleted)
            }
            status => Err(CatalogError::Status(status)),
        }
    }

    /// Tells that an account was connected or disconnected.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn account(&self, owner: Owner<'_>, kind: &'static str, ml_user_id: u64) -> Result<(), Error> {
        self.append(owner, vec![(Uuid::new_v4(), kind, json!({ "ml_user_id": ml_user_id }))]).await
    }

    async fn append(&self, owner: Owner<'_>, events: Vec<(Uuid, &'static str, Value)>) -> Result<(), Error> {
        if owner.tenant == PROBE_TENANT {
            return Ok(());
        }
        let at = self.clock.now().to_string();
        let records = events.into_iter().map(|(id, kind, data)| NewRecord {
            id: id.to_string(),
            payload: json!({
                "id": id, "type": kind, "tenant": owner.tenant, "user_id": owner.user_id, "at": at, "data": data,
            }),
            headers: trace::event_headers(),
        });
        let key = owner.user_id.to_string();
        self.events.publish(ML_EVENTS, &key, records.collect()).await.map_err(Error::Events)
    }
}

/// The items in their order, cut into calls of at most [`BATCH_ITEMS`] and about [`BATCH_BYTES`].
fn batches(items: &[Box<RawValue>]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, item) in items.iter().enumerate() {
        // With its comma.
        let length = item.get().len() + 1;
        if index > start && (index - start == BATCH_ITEMS || bytes + length > BATCH_BYTES) {
            batches.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += length;
    }
    if start < items.len() {
        batches.push(start..items.len());
    }
    batches
}

/// The same parts give the same id.
fn event_id(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // Version 8: an id made by a scheme of our own (RFC 9562, 5.8).
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_order_and_stay_below_both_limits() {
        let items = |lengths: &[usize]| -> Vec<Box<RawValue>> {
            lengths.iter().map(|length| RawValue::from_string("1".repeat(*length)).unwrap()).collect()
        };
        let third = BATCH_BYTES / 3;
        for (what, lengths, want) in [
            ("nothing", vec![], vec![]),
            ("one", vec![10], vec![1]),
            ("as many as fit", vec![10; 200], vec![200]),
            ("one more", vec![10; 201], vec![200, 1]),
            ("large ones", vec![third; 7], vec![2, 2, 2, 1]),
            ("one that is too large stands alone", vec![10, BATCH_BYTES * 2, 10, 10], vec![1, 1, 2]),
            ("all too large", vec![BATCH_BYTES; 3], vec![1, 1, 1]),
        ] {
            let items = items(&lengths);
            let batches = batches(&items);
            assert_eq!(batches.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(), want, "{what}");
            let joined: Vec<usize> = batches.into_iter().flatten().collect();
            assert_eq!(joined, (0..items.len()).collect::<Vec<_>>(), "{what}");
        }
    }

    #[test]
    fn event_ids_repeat_with_their_parts_only() {
        let id = event_id(&["item.updated", "run", "MLA1"]);
        assert_eq!(id, event_id(&["item.updated", "run", "MLA1"]));
        for other in [
            ["item.updated", "run", "MLA2"],
            ["item.updated", "run2", "MLA1"],
            ["item.updatedr", "un", "MLA1"],
        ] {
            assert_ne!(id, event_id(&other));
        }
        assert_eq!(id.get_version_num(), 8);
    }
}
