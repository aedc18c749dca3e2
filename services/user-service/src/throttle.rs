//! Slowing down guesses: failures are counted per account and per address, and each beyond a free allowance makes the
//! next attempt wait twice as long. Successes are never counted, so load from one address stays unthrottled.
//!
//! A burst of parallel attempts is checked before its failures are counted; the hashing queue bounds how many that
//! can be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use service_kit::Clock;
use service_kit::error::chain;
use sha2::{Digest as _, Sha256};

use crate::account::Email;
use crate::store::ThrottleStore;

/// The failures counted so far under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Failures in a row, each within [`Policy::forget`] of the one before.
    pub failures: u32,
    /// The newest failure.
    pub last_at: Timestamp,
}

/// How failures turn into waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The throttle over a shared store. A store that fails lets attempts through with a warning: guessing is still
/// bounded by the hashing queue, while refusing would turn its outage into everybody's.
#[derive(Clone)]
pub struct Throttle {
    store: Arc<dyn ThrottleStore>,
    clock: Clock,
}

impl Throttle {
    /// Makes a throttle over the store that all replicas share.
    #[must_use]
    pub fn new(store: Arc<dyn ThrottleStore>, clock: Clock) -> Self {
        Self { store, clock }
    }

    /// The longest wait under any of the keys; `None` if the attempt may run now.
    pub async fn wait(&self, keys: &[ThrottleKey]) -> Option<Duration> {
        let now = self.clock.now();
        let mut longest = None;
        for key in keys {
            match self.store.tally(key).await {
                Ok(tally) => longest = longest.max(tally.and_then(|tally| key.policy.wait(tally, now))),
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "cannot read login failures; the attempt is let through"
                    );
                }
            }
        }
        longest
    }

    /// Counts a failure under each key.
    pub async fn failed(&self, keys: &[ThrottleKey]) {
        let now = self.clock.now();
        for key in keys {
            if let Err(error) = self.store.count_failure(key, now).await {
                tracing::warn!(error = chain(&error), "cannot count a login failure; it goes uncounted");
            }
        }
    }

    /// Forgets the failures under a key, after a success.
    pub async fn succeeded(&self, key: &ThrottleKey) {
        if let Err(error) = self.store.forget(key).await {
            tracing::warn!(error = chain(&error), "cannot forget login failures; they expire by themselves");
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
