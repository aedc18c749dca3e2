//! The one lease of a target and its fence.

use std::time::Duration;

use super::{Entry, Trial, Version, Violation, ensure, put, refused, request};
use crate::ports::{ErrorKind, OrchestratorError};

pub(super) const BEHAVIOURS: &[Entry] = &[
    ("a second taker of the lock is told who holds it", |t| Box::pin(conflict(t))),
    ("a released lock is free, and releasing twice is fine", |t| Box::pin(release(t))),
    ("an expired lock is free, and a renewed one is not", |t| Box::pin(expiry(t))),
    ("a write behind an old fence is refused", |t| Box::pin(fenced(t))),
    ("the lock survives a reconnect", |t| Box::pin(survives(t))),
];

async fn conflict(trial: &mut Trial) -> Result<(), Violation> {
    let orchestrator = trial.bench.orchestrator();
    let none = orchestrator.lock_holder().await?;
    ensure(none.is_none(), || format!("a fresh target is held by {none:?}"))?;
    let lease = trial.lock().await?;
    let second = orchestrator.lock(&request("second", Duration::from_secs(60))).await;
    let error = refused(second, ErrorKind::Conflict, "taking a held lock")?;
    let text = error.to_string();
    ensure(text.contains("operator@contract"), || format!("the refusal does not name the holder: {text}"))?;
    let holder = orchestrator.lock_holder().await?;
    ensure(holder.as_ref().is_some_and(|h| h.request.run == "contract" && h.fence == lease.fence()), || {
        format!("the holder is told as {holder:?}")
    })
}

async fn release(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    lease.release().await?;
    let holder = trial.bench.orchestrator().lock_holder().await?;
    ensure(holder.is_none(), || format!("it is still held by {holder:?}"))?;
    lease.release().await?;
    let second = trial.lock().await?;
    ensure(second.fence() > lease.fence(), || "the next fence is not higher".to_owned())?;
    // Whoever held it before must not be able to give it away.
    let late = lease.release().await;
    ensure(
        late.is_ok() || matches!(late, Err(OrchestratorError { kind: ErrorKind::LeaseLost, .. })),
        || format!("releasing a lost lease says {late:?}"),
    )?;
    let holder = trial.bench.orchestrator().lock_holder().await?;
    ensure(holder.is_some_and(|holder| holder.fence == second.fence()), || {
        "an old lease gave it away".to_owned()
    })
}

async fn expiry(trial: &mut Trial) -> Result<(), Violation> {
    let ttl = trial.bench.short_lease();
    let orchestrator = trial.bench.orchestrator();
    let first = orchestrator.lock(&request("first", ttl)).await?;
    for _ in 0..3 {
        tokio::time::sleep(ttl / 2).await;
        first.renew().await?;
    }
    let early = orchestrator.lock(&request("second", ttl)).await;
    refused(early, ErrorKind::Conflict, "taking a renewed lock")?;
    tokio::time::sleep(ttl + ttl / 2).await;
    let second = orchestrator.lock(&request("second", Duration::from_secs(60))).await?;
    ensure(second.fence() > first.fence(), || "the next fence is not higher".to_owned())?;
    refused(first.renew().await, ErrorKind::LeaseLost, "renewing a lost lease").map(drop)
}

async fn fenced(trial: &mut Trial) -> Result<(), Violation> {
    let first = trial.lock().await?;
    first.release().await?;
    let second = trial.lock().await?;
    let item = trial.item(Version::First).await?;
    let late = trial.write(&put(&item, 1), first.fence()).await;
    refused(late, ErrorKind::LeaseLost, "a write of the run before")?;
    let late = trial.bench.releases().prune(10, first.fence()).await;
    refused(late, ErrorKind::LeaseLost, "forgetting releases for the run before")?;
    trial.write(&put(&item, 1), second.fence()).await?;
    Ok(())
}

async fn survives(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    trial.bench.reconnect().await;
    let second = trial.lock().await;
    refused(second, ErrorKind::Conflict, "taking a held lock after a reconnect")?;
    let holder = trial.bench.orchestrator().lock_holder().await?;
    ensure(holder.is_some_and(|holder| holder.fence == lease.fence()), || "another fence after it".to_owned())
}
