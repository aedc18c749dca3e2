//! A lease over work that one replica does at a time: it lasts a moment, is renewed before it ends, and falls to another
//! replica when its holder dies. The store of the service keeps it; here is only when to ask for it.

use jiff::{SignedDuration, Timestamp};

/// How long a lease lasts without being renewed: what a replica that dies costs the others.
const LENGTH: SignedDuration = SignedDuration::from_secs(3);
/// A lease that ends sooner than this is renewed.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_secs(2);

/// This replica's side of one lease.
#[derive(Debug)]
pub struct Lease {
    holder: String,
    held_until: Option<Timestamp>,
}

/// The time for which a lease is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Now: the lease of another holder that ended by then is free.
    pub from: Timestamp,
    /// When it ends unless it is renewed.
    pub until: Timestamp,
}

impl Lease {
    /// A lease that is not held yet. `holder` is our name in the store, unlike any other process's.
    #[must_use]
    pub fn new(holder: String) -> Self {
        Self { holder, held_until: None }
    }

    /// Our name in the store.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// The term to ask the store for now; `None` while the lease is held for long enough. Tell [`Lease::note`] what
    /// the store says.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Term> {
        if self.held_until.is_some_and(|until| later(now, RENEW_BEFORE) < until) {
            return None;
        }
        Some(Term { from: now, until: later(now, LENGTH) })
    }

    /// Notes whether the store gave the lease for `term`; answers the same.
    pub fn note(&mut self, term: Term, given: bool) -> bool {
        self.held_until = given.then_some(term.until);
        given
    }

    /// Forgets the lease: it turned out that somebody else has it.
    pub fn lost(&mut self) {
        self.held_until = None;
    }
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_lease_is_asked_for_until_it_is_given_and_renewed_before_it_ends() {
        let mut lease = Lease::new("one".to_owned());
        assert!(lease.due(at(0)).is_some());
        let term = lease.due(at(0)).unwrap();
        assert_eq!(term, Term { from: at(0), until: at(3_000) });
        assert!(!lease.note(term, false));
        assert!(lease.due(at(1)).is_some(), "another replica has it: ask again");
        assert!(lease.note(term, true));
        for (milliseconds, asked) in [(1, false), (999, false), (1_000, true), (5_000, true)] {
            assert_eq!(lease.due(at(milliseconds)).is_some(), asked, "after {milliseconds} ms");
        }
        lease.lost();
        assert!(lease.due(at(1)).is_some());
    }
}
