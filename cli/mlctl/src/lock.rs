//! The target's lock in words, and the wait in line for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use mlctl_core::ports::{
    ErrorKind, Fence, Lease, LockHolder, LockRequest, LockState, Orchestrator, OrchestratorError, Turn,
    Waiter,
};

use crate::error::{CommandError, ExitStatus};
use crate::output::Printer;
use crate::output::report::to_the_second;

/// How long the lock lives without renewal.
pub const TTL: Duration = Duration::from_secs(15);
/// Between two questions whether it is our turn.
const POLL: Duration = Duration::from_millis(500);

/// Waits in line until the lock is ours, and says for whom, since when and until when, and at which place.
///
/// # Errors
/// A lock that is still another's when the time is over; a target that cannot be asked.
pub async fn turn(
    orchestrator: &dyn Orchestrator,
    request: &LockRequest,
    wait: Duration,
    printer: &Printer,
) -> Result<Arc<dyn Lease>, CommandError> {
    let until = tokio::time::Instant::now() + wait;
    let until_wall = Timestamp::now().saturating_add(wait).unwrap_or(Timestamp::MAX);
    let mut told = None;
    loop {
        let over = tokio::time::Instant::now() >= until;
        match orchestrator.stand_in_line(request).await {
            Ok(Turn::Ours(lease)) => return Ok(lease.into()),
            Ok(Turn::Waits(state)) if over => return Err(taken(&state, "the target is locked")),
            Ok(Turn::Waits(state)) => {
                let news =
                    Some((state.held().map(|holder| holder.fence), state.place(request), state.line.len()));
                if told != news {
                    printer.status(&waiting(&state, request, until_wall));
                    told = news;
                }
            }
            Err(error) if error.is_transient() && !over => {}
            Err(error) if error.kind == ErrorKind::Conflict => {
                return Err(taken(&LockState::default(), &error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The lock and the run it is for.
pub(crate) struct Held {
    /// The run.
    pub(crate) run: String,
    /// The lock.
    pub(crate) lease: Arc<dyn Lease>,
}

/// A lease that is not given back when the run ends: there is more to do.
pub(crate) struct Kept<'a>(pub(crate) &'a dyn Lease);

#[async_trait]
impl Lease for Kept<'_> {
    fn fence(&self) -> Fence {
        self.0.fence()
    }

    async fn renew(&self) -> Result<(), OrchestratorError> {
        self.0.renew().await
    }

    async fn belongs_to(&self, run: &str) -> Result<(), OrchestratorError> {
        self.0.belongs_to(run).await
    }

    async fn release(&self) -> Result<(), OrchestratorError> {
        Ok(())
    }
}

/// Renews a lease for ever; returns only when it is lost.
pub(crate) async fn keep(lease: &dyn Lease) -> CommandError {
    let mut held_until = tokio::time::Instant::now() + TTL;
    loop {
        tokio::time::sleep(TTL / 3).await;
        match lease.renew().await {
            Ok(()) => held_until = tokio::time::Instant::now() + TTL,
            Err(error) if error.kind == ErrorKind::LeaseLost || tokio::time::Instant::now() >= held_until => {
                return lost(&error);
            }
            Err(_) => {}
        }
    }
}

/// Says that the lock was lost where that is why something else failed.
pub(crate) async fn judged(lease: &dyn Lease, error: CommandError) -> CommandError {
    if error.status == ExitStatus::Locked {
        return error;
    }
    match lease.renew().await {
        Err(gone) if gone.kind == ErrorKind::LeaseLost => {
            let mut edge = lost(&gone);
            edge.causes.push(error.text);
            edge
        }
        _ => error,
    }
}

/// Says what one who waits in line waits for.
fn waiting(state: &LockState, request: &LockRequest, until: Timestamp) -> String {
    let until = to_the_second(until);
    let own = state.line.iter().find(|waiter| waiter.request == *request);
    let place = own.zip(state.place(request)).map(|(own, place)| {
        format!(", place {place} of {} in line since {}", state.line.len(), to_the_second(own.since))
    });
    let place = place.unwrap_or_default();
    format!("waiting for the lock until {until}{place}: {}", who(state))
}

/// Says who is why a lock cannot be had.
fn who(state: &LockState) -> String {
    match (state.held(), state.line.first()) {
        (Some(holder), _) => holder_sentence(holder),
        (None, Some(first)) => format!("the turn of {}", waiter_sentence(first)),
        (None, None) => "its holder just left".to_owned(),
    }
}

/// Says that a lock is taken, by whom, and who else is before us.
#[must_use]
pub fn taken(state: &LockState, otherwise: &str) -> CommandError {
    let line = match state.line.len() {
        0 => String::new(),
        count => format!("; {count} in line for it"),
    };
    let text = if state.held().is_some() || !state.line.is_empty() {
        format!("the target is locked: {}{line}", who(state))
    } else {
        otherwise.to_owned()
    };
    CommandError::new(ExitStatus::Locked, text)
        .hint("--wait-lock 5m waits in line; a lock whose owner died is free within seconds")
}

/// Says that the lock was lost, and to whom.
#[must_use]
pub fn lost(error: &OrchestratorError) -> CommandError {
    let text = format!("the lock is no longer ours: {}", error.reason);
    CommandError::new(ExitStatus::Locked, text)
        .hint("`mlctl lock show` says who holds it; what was begun is as `mlctl status` shows it")
}

/// Says who holds the lock.
#[must_use]
pub fn holder_sentence(holder: &LockHolder) -> String {
    let LockRequest { operation, operator, run, pid, .. } = &holder.request;
    let (since, expires) = (to_the_second(holder.since), to_the_second(holder.expires));
    format!(
        "{operation} by {operator} (run {run}, pid {pid}) since {since}, expires {expires} unless renewed"
    )
}

/// Says who waits for it.
fn waiter_sentence(waiter: &Waiter) -> String {
    let LockRequest { operation, operator, run, pid, .. } = &waiter.request;
    format!("{operation} by {operator} (run {run}, pid {pid}), in line since {}", to_the_second(waiter.since))
}
