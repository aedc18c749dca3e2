//! The append-only ledger of every request, so that a test can judge its client from the provider's side.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

/// Entries kept; a week of the default hourly limit is 7.5 million calls, a test is far below this.
const CAPACITY: usize = 500_000;

/// One request that reached the simulator, or one notification it sent.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Position in the ledger, from 0, without gaps.
    pub seq: u64,
    /// The simulator's time in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// What was called, e.g. `items.get`; `notification` for one that was sent.
    pub endpoint: String,
    /// HTTP method.
    pub method: String,
    /// Path without the query (queries may hold codes).
    pub path: String,
    /// The application that called, as far as known.
    pub client_id: Option<String>,
    /// The seller on whose behalf it called.
    pub seller: Option<u64>,
    /// Status that was answered; 0 when the connection was reset or left hanging on purpose.
    pub status: u16,
    /// The fault that shaped the answer.
    pub fault: Option<String>,
    /// What only the endpoint knows: a refresh token's fingerprint, a created item, an acknowledgement's time.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// All entries since the start or the last reset.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    entries: VecDeque<Entry>,
}

impl Ledger {
    /// Appends one entry and gives it its number.
    pub fn push(&self, mut entry: Entry) {
        let mut inner = self.inner.lock();
        entry.seq = inner.next;
        inner.next += 1;
        if inner.entries.len() == CAPACITY {
            inner.entries.pop_front();
        }
        inner.entries.push_back(entry);
    }

    /// Up to `limit` entries numbered `since` or later, oldest first.
    pub fn read(&self, since: u64, limit: usize) -> Vec<Entry> {
        let inner = self.inner.lock();
        let first = inner.entries.front().map_or(inner.next, |entry| entry.seq);
        let skip = usize::try_from(since.saturating_sub(first)).unwrap_or(usize::MAX);
        inner.entries.iter().skip(skip).take(limit).cloned().collect()
    }

    /// The number the next entry will get.
    pub fn next(&self) -> u64 {
        self.inner.lock().next
    }

    /// Requests (not notifications) in the fullest rolling window of `window_ms`, for `seller` or for all.
    pub fn busiest_window(&self, window_ms: i64, seller: Option<u64>) -> usize {
        let inner = self.inner.lock();
        let mut window = VecDeque::new();
        let mut most = 0;
        let calls = inner.entries.iter().filter(|entry| entry.endpoint != "notification");
        for entry in calls.filter(|entry| seller.is_none() || entry.seller == seller) {
            window.push_back(entry.at_ms);
            while window.front().is_some_and(|first| entry.at_ms - first >= window_ms) {
                window.pop_front();
            }
            most = most.max(window.len());
        }
        most
    }

    /// Refresh tokens (by fingerprint) that were presented more than once.
    pub fn refresh_tokens_presented_twice(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let mut seen = std::collections::BTreeMap::<&str, u32>::new();
        for entry in &inner.entries {
            if let Some(token) = entry.detail.get("refresh_token").and_then(Value::as_str) {
                *seen.entry(token).or_default() += 1;
            }
        }
        seen.into_iter().filter(|(_, times)| *times > 1).map(|(token, _)| token.to_owned()).collect()
    }

    /// Forgets all entries; numbering goes on.
    pub fn clear(&self) {
        self.inner.lock().entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: i64, seller: u64) -> Entry {
        Entry {
            seq: 0,
            at_ms,
            endpoint: "items.get".into(),
            method: "GET".into(),
            path: "/items/MLA1".into(),
            client_id: None,
            seller: Some(seller),
            status: 200,
            fault: None,
            detail: Value::Null,
        }
    }

    #[test]
    fn the_busiest_window_is_half_open_and_per_seller() {
        let ledger = Ledger::default();
        for (at, seller) in [(0, 1), (400, 2), (999, 1), (1000, 1), (1500, 1)] {
            ledger.push(entry(at, seller));
        }
        assert_eq!(ledger.busiest_window(1000, None), 3);
        assert_eq!(ledger.busiest_window(1000, Some(2)), 1);
        assert_eq!(ledger.busiest_window(2000, Some(1)), 4);
    }

    #[test]
    fn reading_starts_at_a_number_and_survives_a_reset() {
        let ledger = Ledger::default();
        for at in 0..5 {
            ledger.push(entry(at, 1));
        }
        assert_eq!(ledger.read(3, 10).iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4]);
        ledger.clear();
        ledger.push(entry(9, 1));
        assert_eq!(ledger.read(0, 10)[0].seq, 5);
    }
}
