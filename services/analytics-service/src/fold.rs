//! What a batch of events adds up to, computed before anything is written.
//!
//! Folding first keeps the transaction short, and the ordered maps make every replica write rows in the same order, so
//! that two of them never wait for each other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::event::{Event, Owner, USER_DELETED};

/// The sum of one event type of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// How many events.
    pub events: u64,
    /// When the latest of them happened.
    pub last_at: Timestamp,
}

/// What a batch changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Users whose rows go, before anything is added.
    pub erased: BTreeSet<Owner>,
    /// Events by user, hour and type.
    pub hours: BTreeMap<(Owner, i64, String), u64>,
    /// Events by user and type.
    pub totals: BTreeMap<(Owner, String), Total>,
    /// Events that were counted.
    pub counted: u64,
    /// Events that count for nobody: probes, erased users, and the erasures themselves.
    pub skipped: u64,
}

/// Adds up `events`, in the order of the log. `is_erased` knows the users erased by earlier batches.
#[must_use]
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>, is_erased: impl Fn(&Owner) -> bool) -> Effect {
    let mut effect = Effect::default();
    for event in events {
        // An erasure is carried out for a probe's user too: it is the one event that leaves less behind.
        if event.event_type == USER_DELETED {
            if let Some(owner) = &event.owner {
                effect.erase(owner);
            }
            effect.skipped += 1;
            continue;
        }
        match event.counts_for().filter(|owner| !effect.erased.contains(*owner) && !is_erased(owner)) {
            Some(owner) => effect.add(owner, event),
            None => effect.skipped += 1,
        }
    }
    effect
}

impl Effect {
    fn add(&mut self, owner: &Owner, event: &Event) {
        *self.hours.entry((owner.clone(), event.hour(), event.event_type.clone())).or_default() += 1;
        let total = self
            .totals
            .entry((owner.clone(), event.event_type.clone()))
            .or_insert(Total { events: 0, last_at: event.at });
        total.events += 1;
        total.last_at = total.last_at.max(event.at);
        self.counted += 1;
    }

    /// Forgets what the batch added for the user so far, and marks it.
    fn erase(&mut self, owner: &Owner) {
        let forgotten: u64 =
            self.hours.extract_if(.., |(of, _, _), _| of == owner).map(|(_, events)| events).sum();
        self.totals.retain(|(of, _), _| of != owner);
        self.counted -= forgotten;
        self.skipped += forgotten;
        self.erased.insert(owner.clone());
    }
}

#[cfg(test)]
mod tests {
    use service_kit::PROBE_TENANT;
    use uuid::Uuid;

    use super::*;

    fn owner(user: u128) -> Owner {
        Owner { tenant: "default".to_owned(), user_id: Uuid::from_u128(user) }
    }

    fn event(event_type: &str, owner: Owner, second: i64) -> Event {
        Event {
            id: Uuid::from_u128(1),
            event_type: event_type.to_owned(),
            owner: Some(owner),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn events_add_up_by_user_hour_and_type() {
        let events = [
            event("item.updated", owner(1), 3_599),
            event("item.updated", owner(1), 3_600),
            event("item.updated", owner(1), 7_199),
            event("product.created", owner(1), 10),
            event("item.updated", owner(2), 10),
        ];
        let effect = fold(&events, |_| false);
        let hours: Vec<_> = effect
            .hours
            .iter()
            .map(|((owner, hour, event_type), events)| {
                (owner.user_id.as_u128(), *hour, event_type.as_str(), *events)
            })
            .collect();
        assert_eq!(
            hours,
            [
                (1, 0, "item.updated", 1),
                (1, 0, "product.created", 1),
                (1, 1, "item.updated", 2),
                (2, 0, "item.updated", 1)
            ]
        );
        let total = effect.totals[&(owner(1), "item.updated".to_owned())];
        assert_eq!(total, Total { events: 3, last_at: Timestamp::from_second(7_199).unwrap() });
        assert_eq!((effect.counted, effect.skipped), (5, 0));
    }

    #[test]
    fn a_deleted_user_takes_earlier_events_along_and_later_ones_are_skipped() {
        let events = [
            event("item.updated", owner(1), 1),
            event("item.updated", owner(2), 1),
            event(USER_DELETED, owner(1), 2),
            event("item.updated", owner(1), 3),
        ];
        let effect = fold(&events, |_| false);
        assert_eq!(effect.erased, BTreeSet::from([owner(1)]));
        assert_eq!(effect.totals.keys().map(|(owner, _)| owner.clone()).collect::<Vec<_>>(), [owner(2)]);
        assert_eq!((effect.counted, effect.skipped), (1, 3));
    }

    #[test]
    fn users_erased_before_and_probes_count_nowhere() {
        let probe = Owner { tenant: PROBE_TENANT.to_owned(), user_id: Uuid::from_u128(3) };
        let events = [
            event("item.updated", owner(1), 1),
            event("item.updated", probe.clone(), 1),
            event(USER_DELETED, probe.clone(), 1),
        ];
        let effect = fold(&events, |erased| *erased == owner(1));
        assert!(effect.hours.is_empty() && effect.totals.is_empty());
        assert_eq!(effect.erased, BTreeSet::from([probe]));
        assert_eq!((effect.counted, effect.skipped), (0, 3));
    }
}
