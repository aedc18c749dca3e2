//! Slowing down guesses: failures are counted per account and per address, and each beyond a free allowance makes the
//! next attempt wait twice as long. Successes are never counted, so load from one address stays unthrottled.
//!
//! A burst of parallel attempts is checked before its failures are counted; the hashing queue bounds how many that
//! can be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use service_kit::Clock;
use service_kit::error::chain;
use sha2::{Digest as _, Sha256};

use crate::account::Email;
use crate::metrics::Metrics;
use crate::store::{StoreError, ThrottleStore};

/// The failures counted so far under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Failures in a row, each within [`Policy::forget`] of the one before.
    pub failures: u32,
    /// The newest failure.
    pub last_at: Timestamp,
}

/// How failures turn into waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Failures that cost nothing: people mistype.
    pub free: u32,
    /// Wait after the first failure beyond `free`; doubles with each more.
    pub base: Duration,
    /// Longest wait. Bounded, because whoever knows an address could otherwise lock its owner out.
    pub cap: Duration,
    /// A quiet time after which all is forgotten.
    pub forget: Duration,
}

impl Policy {
    /// One account: five free failures, then 1 s to 5 min (at most about 290 guesses a day).
    pub const ACCOUNT: Self = Self {
        free: 5,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        forget: Duration::from_secs(3600),
    };

    /// One address, which may be an office of many people.
    pub const ADDRESS: Self = Self {
        free: 50,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(300),
        forget: Duration::from_secs(3600),
    };

    /// Whether a tally still counts.
    fn remembers(&self, tally: Tally, now: Timestamp) -> bool {
        Duration::try_from(now.duration_since(tally.last_at)).unwrap_or(Duration::ZERO) < self.forget
    }

    /// How long the next attempt must still wait; `None` if it may run now.
    #[must_use]
    pub fn wait(&self, tally: Tally, now: Timestamp) -> Option<Duration> {
        let beyond = tally.failures.checked_sub(self.free + 1)?;
        let delay = self.base.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX)).min(self.cap);
        // A clock that stepped back counts as no time passed: the wait never exceeds the delay.
        let passed = Duration::try_from(now.duration_since(tally.last_at)).unwrap_or(Duration::ZERO);
        delay.checked_sub(passed).filter(|left| !left.is_zero())
    }
}

/// What failures are counted under. Hashed: the store learns neither e-mail nor address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThrottleKey {
    /// How the failures under this key are judged.
    pub policy: Policy,
    digest: [u8; 32],
}

impl ThrottleKey {
    /// Attempts on one account, whether it exists or not.
    #[must_use]
    pub fn account(email: &Email) -> Self {
        Self { policy: Policy::ACCOUNT, digest: Sha256::digest(format!("account:{}", email.as_str())).into() }
    }

    /// Attempts from one address: an IPv4 address, or an IPv6 /64 (the least that a provider hands to one customer).
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        let network = match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        };
        Self { policy: Policy::ADDRESS, digest: Sha256::digest(format!("address:{network}")).into() }
    }

    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digest
    }
}

/// Tallies that a process keeps for the time when the store is away.
const OWN_TALLIES: usize = 10_000;

/// The throttle over a shared store. A store that is away neither locks people out nor is skipped: each process goes
/// on with the tally it has seen itself, which bounds guesses per replica instead of per fleet.
#[derive(Clone)]
pub struct Throttle {
    store: Arc<dyn ThrottleStore>,
    clock: Clock,
    metrics: Metrics,
    own: Arc<Mutex<Own>>,
}

#[derive(Default)]
struct Own {
    tallies: HashMap<ThrottleKey, OwnTally>,
    /// The store did not answer last time; it was said.
    alone: bool,
}

#[derive(Clone, Copy)]
struct OwnTally {
    tally: Tally,
    /// Counted here and not in the store.
    unshared: bool,
}

impl Own {
    fn tally(&self, key: &ThrottleKey, now: Timestamp) -> Option<OwnTally> {
        self.tallies.get(key).copied().filter(|own| key.policy.remembers(own.tally, now))
    }

    fn remember(&mut self, key: ThrottleKey, own: OwnTally, now: Timestamp) {
        if self.tallies.len() >= OWN_TALLIES {
            self.tallies.retain(|key, own| key.policy.remembers(own.tally, now));
        }
        if self.tallies.len() >= OWN_TALLIES {
            // A flood of new names: those that wait for nothing yet go first.
            self.tallies.retain(|key, own| own.tally.failures > key.policy.free);
        }
        if self.tallies.len() < OWN_TALLIES || self.tallies.contains_key(&key) {
            self.tallies.insert(key, own);
        }
    }
}

impl Throttle {
    /// Makes a throttle over the store that all replicas share.
    #[must_use]
    pub fn new(store: Arc<dyn ThrottleStore>, clock: Clock, metrics: Metrics) -> Self {
        Self { store, clock, metrics, own: Arc::default() }
    }

    /// The longest wait under any of the keys; `None` if the attempt may run now.
    pub async fn wait(&self, keys: &[ThrottleKey]) -> Option<Duration> {
        let now = self.clock.now();
        let shared = self.answered("read", self.store.tallies(keys).await);
        let own = self.own.lock();
        let waits = keys.iter().enumerate().map(|(index, key)| {
            let shared_tally = shared.as_ref().map(|tallies| tallies.get(index).copied().flatten());
            let own = own.tally(key, now);
            let own = own.filter(|own| own.unshared || shared_tally.is_none()).map(|own| own.tally);
            let wait = |tally: Option<Tally>| tally.and_then(|tally| key.policy.wait(tally, now));
            wait(shared_tally.flatten()).max(wait(own))
        });
        waits.max().flatten()
    }

    /// Counts a failure under each key.
    pub async fn failed(&self, keys: &[ThrottleKey]) {
        let now = self.clock.now();
        let counted = self.answered("count", self.store.count_failures(keys, now).await);
        let mut own = self.own.lock();
        for (index, key) in keys.iter().enumerate() {
            let seen = own.tally(key, now);
            let shared = counted.as_ref().and_then(|tallies| tallies.get(index).copied());
            let failures = |plus| seen.map_or(0, |own| own.tally.failures).saturating_add(plus);
            let next = match shared {
                Some(tally) => match seen {
                    // Failures of an outage that the store never learned of go on counting until they are forgotten.
                    Some(own) if own.unshared && own.tally.failures >= tally.failures => {
                        OwnTally { tally: Tally { failures: failures(1), last_at: now }, unshared: true }
                    }
                    _ => OwnTally { tally, unshared: false },
                },
                None => OwnTally { tally: Tally { failures: failures(1), last_at: now }, unshared: true },
            };
            own.remember(*key, next, now);
        }
    }

    /// Forgets the failures under a key, after a success.
    pub async fn succeeded(&self, key: &ThrottleKey) {
        self.own.lock().tallies.remove(key);
        // What the store keeps without being told expires by itself.
        self.answered("forget", self.store.forget(key).await);
    }

    /// The store's answer; one that does not come is counted, and said once per outage.
    fn answered<T>(&self, operation: &'static str, answer: Result<T, StoreError>) -> Option<T> {
        let mut own = self.own.lock();
        match answer {
            Ok(answer) => {
                if std::mem::take(&mut own.alone) {
                    tracing::info!("login failures are counted together again");
                }
                Some(answer)
            }
            Err(error) => {
                self.metrics.throttle_fallback(operation);
                if !std::mem::replace(&mut own.alone, true) {
                    tracing::warn!(
                        error = chain(&error),
                        "login failures are counted by each process until their store answers"
                    );
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn waiting_doubles_beyond_the_free_failures_up_to_the_cap() {
        let policy = Policy::ACCOUNT;
        for (failures, passed, want) in [
            (0, 0, None),
            (5, 0, None),
            (6, 0, Some(1)),
            (6, 1, None),
            (7, 0, Some(2)),
            (9, 3, Some(5)),
            (14, 0, Some(256)),
            (15, 0, Some(300)),
            (1_000, 299, Some(1)),
            (u32::MAX, 300, None),
            (7, -60, Some(2)),
        ] {
            let wait = policy.wait(Tally { failures, last_at: at(0) }, at(passed));
            assert_eq!(wait, want.map(Duration::from_secs), "{failures} failures, {passed} s later");
        }
    }

    #[test]
    fn keys_group_what_belongs_together() {
        let key = |text: &str| ThrottleKey::address(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        let email = |text: &str| ThrottleKey::account(&Email::parse(text).unwrap());
        assert_eq!(email("Ana@example.com"), email("ana@EXAMPLE.com"));
    }
}
