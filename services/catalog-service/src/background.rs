//! What runs beside the requests: publishing events, erasing deleted users, sweeping what expired.
//!
//! Every replica runs this loop, the holder of a lease does the work. A replica that stops gives the lease back; one
//! that dies keeps it from the others for three seconds at most.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use service_kit::error::chain;
use service_kit::lease::Lease;
use service_kit::{Clock, Shutdown};
use tokio::sync::Notify;

use crate::erasure::{Erasure, ErasureError};
use crate::relay::{Relay, RelayError};
use crate::store::{ProductStore, StoreError};

/// Name of the lease.
const NAME: &str = "background";
/// Longest time until the events of another replica are seen; those of our own wake the loop.
const PERIOD: Duration = Duration::from_millis(250);
/// Pause after a failure, so that a broken store is not hammered.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two sweeps.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// One round failed; the next one does its work too.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Relay(#[from] RelayError),
    #[error(transparent)]
    Erasure(#[from] ErasureError),
}

/// The loop and what it works with.
pub struct Background {
    store: Arc<dyn ProductStore>,
    relay: Relay,
    erasure: Option<Erasure>,
    clock: Clock,
    lease: Lease,
    wake: Arc<Notify>,
    next_sweep: Timestamp,
}

impl Background {
    /// A loop over `store`; `wake` is what the catalog notifies after a write. Without `erasure`
    /// somebody else follows the events of deleted users.
    #[must_use]
    pub fn new(
        store: Arc<dyn ProductStore>,
        relay: Relay,
        erasure: Option<Erasure>,
        clock: Clock,
        lease: Lease,
        wake: Arc<Notify>,
    ) -> Self {
        let next_sweep = clock.now();
        Self { store, relay, erasure, clock, lease, wake, next_sweep }
    }

    /// Works until `stop` asks for the end, then once more, so that the last request's events are published too.
    pub async fn run(mut self, stop: Shutdown) {
        loop {
            // Asked before the round: what was written before the wish to stop is in the round that follows it.
            let last = stop.is_draining();
            // Only the holder has events to publish; after a failure each write would bring the next attempt forward.
            let (pause, wakeful) = match self.round().await {
                Ok(held) => (PERIOD, held),
                Err(error) => {
                    tracing::warn!(cause = %chain(&error), "the background work of the catalog failed; it is repeated");
                    (PAUSE, false)
                }
            };
            if last {
                break;
            }
            tokio::select! {
                () = stop.draining() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified(), if wakeful => {}
            }
        }
        if let Err(error) = self.store.release(NAME, self.lease.holder()).await {
            tracing::warn!(cause = %chain(&error), "the lease could not be given back; it ends by itself");
        }
    }

    /// Does the work once, if this replica holds the lease; answers whether it does.
    async fn round(&mut self) -> Result<bool, RoundError> {
        if !self.holds_lease().await? {
            return Ok(false);
        }
        let now = self.clock.now();
        // Each is tried whatever became of the others: a document that cannot be published must not keep a deleted
        // user's products.
        let published = self.relay.publish().await;
        let erased = match &self.erasure {
            Some(erasure) => erasure.catch_up(now).await,
            None => Ok(()),
        };
        self.sweep(now).await?;
        published?;
        erased?;
        Ok(true)
    }

    async fn sweep(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if now < self.next_sweep {
            return Ok(());
        }
        let removed = self.store.sweep(now).await?;
        if removed > 0 {
            tracing::info!(removed, "expired products are swept");
        }
        self.next_sweep = now.saturating_add(SWEEP_EVERY).unwrap_or(Timestamp::MAX);
        Ok(())
    }

    /// Takes the lease or renews it in time.
    async fn holds_lease(&mut self) -> Result<bool, StoreError> {
        let Some(term) = self.lease.due(self.clock.now()) else { return Ok(true) };
        let given = self.store.lease(NAME, self.lease.holder(), term.from, term.until).await?;
        Ok(self.lease.note(term, given))
    }
}
