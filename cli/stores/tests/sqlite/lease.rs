//! The lease: nothing is committed once it is another's, or while nobody says whose it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mlctl_core::ports::{ErrorKind, Fence, Lease, OrchestratorError, StoreAdmin};
use mlctl_stores::SqliteStore;

use super::{Noon, Place, applied, store, three};

/// A lease that is ours for as long as the test runs.
pub(super) struct Ours;

#[async_trait::async_trait]
impl Lease for Ours {
    fn fence(&self) -> Fence {
        Fence(1)
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        Ok(())
    }

    async fn belongs_to(&self, _: &str) -> Result<(), OrchestratorError> {
        Ok(())
    }

    async fn release(&self) -> Result<(), OrchestratorError> {
        Ok(())
    }
}

/// A lease that can be renewed so often, and is another's then.
struct LostAfter(AtomicU32);

#[async_trait::async_trait]
impl Lease for LostAfter {
    fn fence(&self) -> Fence {
        Fence(1)
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        let left = self.0.load(Ordering::Relaxed);
        if left == 0 {
            let reason = "somebody holds it since noon";
            return Err(OrchestratorError::new(ErrorKind::LeaseLost, "renew", "the lock", reason));
        }
        self.0.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    async fn belongs_to(&self, _: &str) -> Result<(), OrchestratorError> {
        self.renew().await
    }

    async fn release(&self) -> Result<(), OrchestratorError> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_committed_without_the_lease() {
    let place = Place::new();
    let item = place.item(three());
    let error = store().migrate(&item, &LostAfter(2.into())).await.unwrap_err();
    assert_eq!(
        error.reason,
        "nothing was committed: renew the lock: somebody holds it since noon (numbers 0001 to 0002 are done and \
         stay so)"
    );
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2]);
    store().roll_back(&item, 1, &LostAfter(0.into())).await.unwrap_err();
    assert_eq!(applied(&store().migrations(&item).await.unwrap()), [1, 2]);
    assert_eq!(store().migrate(&item, &Ours).await.unwrap(), [3], "and the database is free for the next");
}

#[tokio::test]
async fn a_migration_whose_run_stops_waiting_for_it_is_taken_back() {
    /// Never gets an answer.
    struct Silent(tokio::sync::Notify);

    #[async_trait::async_trait]
    impl Lease for Silent {
        fn fence(&self) -> Fence {
            Fence(1)
        }

        async fn renew(&self) -> Result<(), OrchestratorError> {
            self.0.notify_one();
            std::future::pending().await
        }

        async fn belongs_to(&self, _: &str) -> Result<(), OrchestratorError> {
            self.renew().await
        }

        async fn release(&self) -> Result<(), OrchestratorError> {
            Ok(())
        }
    }

    let place = Place::new();
    let item = place.item(three());
    let silent = Silent(tokio::sync::Notify::new());
    tokio::select! {
        done = async { SqliteStore::new(Arc::new(Noon)).migrate(&item, &silent).await } => panic!("{done:?}"),
        () = silent.0.notified() => {}
    }
    let patient = SqliteStore::new(Arc::new(Noon));
    assert_eq!(patient.migrate(&item, &Ours).await.unwrap(), [1, 2, 3]);
}
