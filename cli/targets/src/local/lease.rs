//! The lease, kept by the agent.

use async_trait::async_trait;
use mlctl_core::local_protocol::{Request, Response};
use mlctl_core::ports::{ErrorKind, Fence, Lease, LockHolder, LockRequest, OrchestratorError, Result};

use super::Client;

struct LocalLease {
    client: Client,
    fence: Fence,
}

/// Takes the lease.
pub(super) async fn take(client: &Client, request: &LockRequest) -> Result<Box<dyn Lease>> {
    match client.ask("lock", "the target", Request::Lock { lock: request.clone() }).await? {
        Response::Locked { holder } => {
            Ok(Box::new(LocalLease { client: client.clone(), fence: holder.fence }))
        }
        other => Err(unexpected("lock", &other)),
    }
}

/// Tells who holds the lease; an agent is not started only to say that nobody does.
pub(super) async fn holder(client: &Client) -> Result<Option<LockHolder>> {
    if !client.has_state().await {
        return Ok(None);
    }
    match client.ask("lock", "the target", Request::LockHolder).await? {
        Response::Holder { holder } => Ok(holder),
        other => Err(unexpected("lock", &other)),
    }
}

/// Refuses a write whose fence is not that of the lease.
pub(super) async fn check(
    client: &Client,
    operation: &'static str,
    subject: &str,
    fence: Fence,
) -> Result<()> {
    match holder(client).await? {
        Some(holder) if holder.fence == fence => Ok(()),
        present => {
            let reason = present.map_or_else(
                || format!("nobody holds the lease, so fence {} is no longer valid", fence.0),
                |holder| {
                    format!("{} by {} holds the lease now", holder.request.operation, holder.request.operator)
                },
            );
            Err(OrchestratorError::new(ErrorKind::LeaseLost, operation, subject, reason))
        }
    }
}

/// An answer that is not one to the question: agent and client disagree about the protocol.
pub(super) fn unexpected(operation: &'static str, response: &Response) -> OrchestratorError {
    let reason = format!("it answers something else: {response:?}");
    OrchestratorError::new(ErrorKind::Invalid, operation, "the agent", reason)
}

#[async_trait]
impl Lease for LocalLease {
    fn fence(&self) -> Fence {
        self.fence
    }

    async fn renew(&self) -> Result<()> {
        self.client.ask("renew", "the lease", Request::Renew { fence: self.fence }).await.map(drop)
    }

    async fn release(&self) -> Result<()> {
        self.client.ask("release", "the lease", Request::Unlock { fence: self.fence }).await.map(drop)
    }
}
