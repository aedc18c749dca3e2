//! The one lease of the folder: who may write, until when, proven by a number that only grows.

use jiff::Timestamp;
use mlctl_core::ports::{ErrorKind, Fence, LockHolder, LockRequest};
use serde::{Deserialize, Serialize};

/// The lease as it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LeaseBook {
    /// Who holds it, or held it last.
    holder: Option<LockHolder>,
    /// The highest fence ever given.
    highest: u64,
}

/// A refusal, in the words of the protocol.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    /// What sort.
    pub(super) kind: ErrorKind,
    /// One sentence.
    pub(super) reason: String,
    /// The present holder, when that is why.
    pub(super) holder: Option<Box<LockHolder>>,
}

impl LeaseBook {
    /// Returns who holds it now. `is_dead` says that the process a request names has ended; its lease then is free
    /// before its time.
    pub(super) fn holder(
        &self,
        now: Timestamp,
        is_dead: impl Fn(&LockRequest) -> bool,
    ) -> Option<&LockHolder> {
        self.holder.as_ref().filter(|h| now < h.expires && !is_dead(&h.request))
    }

    /// Gives the lease to the one who asks, unless another holds it.
    pub(super) fn take(
        &mut self,
        request: &LockRequest,
        now: Timestamp,
        is_dead: impl Fn(&LockRequest) -> bool,
    ) -> Result<LockHolder, Refusal> {
        if let Some(holder) = self.holder(now, is_dead) {
            let who = &holder.request;
            return Err(Refusal {
                kind: ErrorKind::Conflict,
                reason: format!("{} by {} holds it since {}", who.operation, who.operator, holder.since),
                holder: Some(Box::new(holder.clone())),
            });
        }
        self.highest += 1;
        let holder = LockHolder {
            request: request.clone(),
            since: now,
            expires: end(now, request),
            fence: Fence(self.highest),
        };
        self.holder = Some(holder.clone());
        Ok(holder)
    }

    /// Prolongs the lease. Late is fine as long as nobody took it: nothing was written in between.
    pub(super) fn renew(&mut self, fence: Fence, now: Timestamp) -> Result<(), Refusal> {
        match &mut self.holder {
            Some(holder) if holder.fence == fence => {
                holder.expires = end(now, &holder.request);
                Ok(())
            }
            other => Err(lost(fence, other.as_ref())),
        }
    }

    /// Ends the lease; says whether it was held with that fence.
    pub(super) fn release(&mut self, fence: Fence) -> bool {
        let held = self.holder.as_ref().is_some_and(|h| h.fence == fence);
        if held {
            self.holder = None;
        }
        held
    }

    /// Refuses a write whose lease is not the present one.
    pub(super) fn check(&self, fence: Fence, now: Timestamp) -> Result<(), Refusal> {
        match &self.holder {
            Some(holder) if holder.fence == fence && now < holder.expires => Ok(()),
            other => Err(lost(fence, other.as_ref())),
        }
    }
}

fn end(now: Timestamp, request: &LockRequest) -> Timestamp {
    now.checked_add(request.ttl).unwrap_or(Timestamp::MAX)
}

fn lost(fence: Fence, holder: Option<&LockHolder>) -> Refusal {
    let reason = match holder {
        Some(holder) if holder.fence == fence => format!("the lease ended at {}", holder.expires),
        Some(holder) => format!(
            "fence {} is not that of the lease, which {} took at {}",
            fence.0, holder.request.operator, holder.since
        ),
        None => format!("nobody holds the lease, so fence {} is no longer valid", fence.0),
    };
    Refusal {
        kind: ErrorKind::LeaseLost,
        reason,
        holder: holder.filter(|h| h.fence != fence).cloned().map(Box::new),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::ToSpan as _;
    use mlctl_core::release::Operator;

    use super::*;

    fn request(name: &str) -> LockRequest {
        LockRequest {
            operation: "deploy".to_owned(),
            operator: Operator { name: name.to_owned(), host: "h".to_owned() },
            run: "run".to_owned(),
            pid: 1,
            pid_start: 1,
            ttl: Duration::from_secs(15),
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + seconds.seconds()
    }

    fn living(_: &LockRequest) -> bool {
        false
    }

    #[test]
    fn a_held_lease_is_a_conflict_that_names_the_holder() {
        let mut book = LeaseBook::default();
        let ann = book.take(&request("ann"), at(0), living).unwrap();
        let refusal = book.take(&request("bob"), at(14), living).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Conflict);
        assert_eq!(refusal.holder.as_deref(), Some(&ann));
        assert_eq!(refusal.reason, "deploy by ann@h holds it since 1970-01-01T00:00:00Z");
    }

    #[test]
    fn fences_only_grow_and_old_ones_write_nothing() {
        let mut book = LeaseBook::default();
        let ann = book.take(&request("ann"), at(0), living).unwrap().fence;
        assert_eq!(book.check(ann, at(14)), Ok(()));
        assert_eq!(book.check(ann, at(15)).unwrap_err().kind, ErrorKind::LeaseLost);
        let bob = book.take(&request("bob"), at(15), living).unwrap().fence;
        assert!(bob > ann);
        assert_eq!(book.check(ann, at(16)).unwrap_err().kind, ErrorKind::LeaseLost);
        assert_eq!(book.renew(ann, at(16)).unwrap_err().kind, ErrorKind::LeaseLost);
        assert!(!book.release(ann));
        assert_eq!(book.check(bob, at(16)), Ok(()));
        assert!(book.release(bob));
        assert!(!book.release(bob));
        assert_eq!(book.check(bob, at(17)).unwrap_err().kind, ErrorKind::LeaseLost);
        let again: LeaseBook = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        assert_eq!(again.clone().take(&request("eve"), at(18), living).unwrap().fence, Fence(3));
        assert_eq!(again, book);
    }

    #[test]
    fn renewing_prolongs_and_may_be_late_when_nobody_took_it() {
        let mut book = LeaseBook::default();
        let fence = book.take(&request("ann"), at(0), living).unwrap().fence;
        book.renew(fence, at(10)).unwrap();
        assert_eq!(book.check(fence, at(24)), Ok(()));
        book.renew(fence, at(60)).unwrap();
        assert_eq!(book.check(fence, at(61)), Ok(()));
    }

    #[test]
    fn the_lease_of_a_dead_process_is_free_at_once() {
        let mut book = LeaseBook::default();
        book.take(&request("ann"), at(0), living).unwrap();
        assert!(book.holder(at(1), |_| true).is_none());
        assert_eq!(book.take(&request("ann"), at(1), |_| true).unwrap().fence, Fence(2));
    }
}
