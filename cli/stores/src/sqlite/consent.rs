//! The lease's consent to a commit. The work on a database blocks a thread of its own; the lease is renewed where
//! its connection lives.

use mlctl_core::ports::{Lease, StoreError};
use tokio::sync::{mpsc, oneshot};

/// Asks for consent, from a thread that may block.
pub(super) struct Consent(mpsc::Sender<oneshot::Sender<Result<(), String>>>);

impl Consent {
    /// Waits until the lease was renewed just now.
    ///
    /// # Errors
    /// The sentence that says why nothing may be committed.
    pub(super) fn ask(&self) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        let gone = || "nothing was committed: the run was stopped".to_owned();
        self.0.blocking_send(reply).map_err(|_| gone())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// Does work and answers its questions for consent by renewing the lease. When this is dropped, every question is
/// answered with no.
pub(super) async fn consent<T, F>(lease: &dyn Lease, work: impl FnOnce(Consent) -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let (ask, mut questions) = mpsc::channel::<oneshot::Sender<Result<(), String>>>(1);
    let answers = async {
        while let Some(reply) = questions.recv().await {
            let renewed = lease.renew().await;
            // One who no longer waits for the answer commits nothing.
            let _ = reply.send(renewed.map_err(|error| format!("nothing was committed: {error}")));
        }
    };
    let (result, ()) = tokio::join!(work(Consent(ask)), answers);
    result
}
