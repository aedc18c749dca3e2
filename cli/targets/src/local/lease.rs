//! The lease and the line before it, kept by the agent.

use async_trait::async_trait;
use mlctl_core::local_protocol::{Request, Response, StateChange};
use mlctl_core::ports::{
    ErrorKind, Fence, Lease, LockLine, LockRequest, LockState, OrchestratorError, Result, Turn,
};
use mlctl_core::release::Operator;

use super::{Client, Local};

/// What all this is about, for messages.
const LOCK: &str = "lock";
const TARGET: &str = "the target";

struct LocalLease {
    client: Client,
    fence: Fence,
}

/// Takes the lease. When the agent ends before it has answered, the next one knows whether it was given.
pub(super) async fn take(client: &Client, request: &LockRequest) -> Result<Box<dyn Lease>> {
    let ask = async || client.ask(LOCK, TARGET, Request::Lock { lock: request.clone() }).await;
    let answer = match ask().await {
        Err(error) if error.kind == ErrorKind::Unavailable => {
            let given = state(client).await?.holder.filter(|holder| holder.request == *request);
            if let Some(holder) = given {
                return Ok(held(client, holder.fence));
            }
            ask().await?
        }
        answered => answered?,
    };
    match answer {
        Response::Locked { holder } => Ok(held(client, holder.fence)),
        other => Err(unexpected(LOCK, &other)),
    }
}

async fn state(client: &Client) -> Result<LockState> {
    match client.ask(LOCK, TARGET, Request::LockState).await? {
        Response::Line { state } => Ok(state),
        other => Err(unexpected(LOCK, &other)),
    }
}

fn held(client: &Client, fence: Fence) -> Box<dyn Lease> {
    Box::new(LocalLease { client: client.clone(), fence })
}

/// Changes files of the state folder behind the fence.
pub(super) async fn keep(
    client: &Client,
    operation: &'static str,
    subject: &str,
    fence: Fence,
    changes: Vec<StateChange>,
) -> Result<()> {
    client.ask(operation, subject, Request::Keep { fence, changes }).await.map(drop)
}

/// Refuses a write whose fence is not that of the lease. Only what comes after it in the agent itself is safe from
/// a lease that is lost in between; this spares the work of a write that is going to be refused.
pub(super) async fn check(
    client: &Client,
    operation: &'static str,
    subject: &str,
    fence: Fence,
) -> Result<()> {
    keep(client, operation, subject, fence, Vec::new()).await
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
        if self.client.is_ending() {
            return Ok(());
        }
        let renew = Request::Renew { fence: self.fence, run: None };
        self.client.ask("renew", "the lock", renew).await.map(drop)
    }

    async fn belongs_to(&self, run: &str) -> Result<()> {
        let renew = Request::Renew { fence: self.fence, run: Some(run.to_owned()) };
        self.client.ask("renew", "the lock", renew).await.map(drop)
    }

    async fn release(&self) -> Result<()> {
        if self.client.is_ending() {
            return Ok(());
        }
        self.client.ask("release", "the lock", Request::Unlock { fence: self.fence }).await.map(drop)
    }
}

#[async_trait]
impl LockLine for Local {
    async fn stand_in_line(&self, request: &LockRequest) -> Result<Turn> {
        match self.client.ask(LOCK, TARGET, Request::StandInLine { lock: request.clone() }).await? {
            Response::Locked { holder } => Ok(Turn::Ours(held(&self.client, holder.fence))),
            Response::Line { state } => Ok(Turn::Waits(state)),
            other => Err(unexpected(LOCK, &other)),
        }
    }

    async fn leave_line(&self, request: &LockRequest) -> Result<()> {
        if !self.client.has_state().await {
            return Ok(());
        }
        self.client.ask("leave", "the line", Request::LeaveLine { lock: request.clone() }).await.map(drop)
    }

    /// An agent is not started only to say that nobody holds it.
    async fn lock_state(&self) -> Result<LockState> {
        if !self.client.has_state().await {
            return Ok(LockState::default());
        }
        state(&self.client).await
    }

    async fn break_lock(&self, fence: Fence, by: &Operator, force: bool) -> Result<()> {
        let request = Request::BreakLock { fence, by: by.clone(), force };
        self.client.ask("release", "the lock", request).await.map(drop)
    }
}
