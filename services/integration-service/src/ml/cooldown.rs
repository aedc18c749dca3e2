//! After a 429: silence per endpoint group and user, longer with each further one, drawn at random so that
//! replicas and users do not come back together. And a budget for retries, so that they never add up to a storm.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Group;

const LONGEST: Duration = Duration::from_secs(60);
/// A silence this old is forgotten, and with it how many there were in a row.
const FORGET: Duration = Duration::from_secs(300);
/// Pairs remembered at most.
const CAPACITY: usize = 10_000;

/// A number in `0.0..1.0`.
pub type Dice = fn() -> f64;

#[derive(Clone, Copy, Debug)]
struct Silence {
    until: Instant,
    in_a_row: u32,
}

/// Who must be silent until when.
#[derive(Debug)]
pub(super) struct Cooldowns {
    dice: Dice,
    silences: Mutex<HashMap<(Group, Uuid), Silence>>,
}

impl Cooldowns {
    pub(super) fn new(dice: Dice) -> Self {
        Self { dice, silences: Mutex::default() }
    }

    /// How long this pair must still be silent.
    pub(super) fn remaining(&self, group: Group, user: Uuid) -> Option<Duration> {
        let silence = self.silences.lock().get(&(group, user)).copied()?;
        silence.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Notes a 429; the silence that follows: what was asked for, else at random up to 1, 2, 4 ... 60 seconds.
    pub(super) fn limited(&self, group: Group, user: Uuid, asked: Option<Duration>) -> Duration {
        let now = Instant::now();
        let mut silences = self.silences.lock();
        if silences.len() >= CAPACITY {
            silences.retain(|_, silence| silence.until + FORGET > now);
        }
        let entry = silences.entry((group, user)).or_insert(Silence { until: now, in_a_row: 0 });
        if entry.until + FORGET <= now {
            entry.in_a_row = 0;
        }
        let ceiling = Duration::from_secs(1 << entry.in_a_row.min(6)).min(LONGEST);
        let wait = asked.unwrap_or_else(|| ceiling.mul_f64((self.dice)().max(0.1)));
        *entry = Silence { until: now + wait, in_a_row: entry.in_a_row.saturating_add(1) };
        wait
    }

    /// Notes that the pair was answered normally again.
    pub(super) fn answered(&self, group: Group, user: Uuid) {
        self.silences.lock().remove(&(group, user));
    }
}

/// Retries are at most a tenth of the calls.
#[derive(Debug)]
pub(super) struct RetryBudget(Mutex<f64>);

impl RetryBudget {
    const MOST: f64 = 10.0;

    pub(super) fn new() -> Self {
        Self(Mutex::new(Self::MOST))
    }

    pub(super) fn called(&self) {
        let mut left = self.0.lock();
        *left = (*left + 0.1).min(Self::MOST);
    }

    pub(super) fn may_retry(&self) -> bool {
        let mut left = self.0.lock();
        let may = *left >= 1.0;
        if may {
            *left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silences_grow_end_and_are_forgotten() {
        let cooldowns = Cooldowns::new(|| 1.0);
        let user = Uuid::nil();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(cooldowns.limited(Group::Items, user, None), Duration::from_secs(expected));
        }
        assert_eq!(cooldowns.remaining(Group::Items, user), Some(LONGEST));
        assert_eq!(cooldowns.remaining(Group::Users, user), None);
        tokio::time::advance(LONGEST).await;
        assert_eq!(cooldowns.remaining(Group::Items, user), None);
        tokio::time::advance(FORGET).await;
        assert_eq!(cooldowns.limited(Group::Items, user, None), Duration::from_secs(1));
        cooldowns.answered(Group::Items, user);
        assert_eq!(cooldowns.remaining(Group::Items, user), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_is_honoured() {
        let cooldowns = Cooldowns::new(|| 1.0);
        let asked = Duration::from_secs(17);
        assert_eq!(cooldowns.limited(Group::Items, Uuid::nil(), Some(asked)), asked);
        assert_eq!(cooldowns.remaining(Group::Items, Uuid::nil()), Some(asked));
    }

    #[test]
    fn retries_are_a_tenth_of_the_calls() {
        let budget = RetryBudget::new();
        assert_eq!((0..100).filter(|_| budget.may_retry()).count(), 10);
        (0..55).for_each(|_| budget.called());
        assert_eq!((0..100).filter(|_| budget.may_retry()).count(), 5);
    }
}
