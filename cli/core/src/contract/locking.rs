//! The one lease of a target and its fence.

use std::time::Duration;

use super::{Entry, Trial, Version, Violation, ensure, put, refused, request};
use crate::ports::{ErrorKind, Fence, Lease, LockState, OrchestratorError, Standing, Turn};
use crate::release::Operator;

pub(super) const BEHAVIOURS: &[Entry] = &[
    ("a second taker of the lock is told who holds it", |t| Box::pin(conflict(t))),
    ("a released lock is free, and releasing twice is fine", |t| Box::pin(release(t))),
    ("an expired lock is free, and a renewed one is not", |t| Box::pin(expiry(t))),
    ("a write behind an old fence is refused", |t| Box::pin(fenced(t))),
    ("an expired lock that nobody took goes on with its holder", |t| Box::pin(late(t))),
    ("the lock survives a reconnect", |t| Box::pin(survives(t))),
    ("those who wait in line get the lock in the order in which they came", |t| Box::pin(in_order(t))),
    ("a free lock goes to nobody before those who wait for it", |t| Box::pin(waited_for(t))),
    ("who leaves the line, or stops asking, holds up nobody", |t| Box::pin(gone(t))),
    ("one who asks again keeps its place, and the lock that it was given", |t| Box::pin(again(t))),
    ("the line survives a reconnect", |t| Box::pin(line_survives(t))),
    ("a held lock is taken away only by force, and its holder learns it", |t| Box::pin(taken_away(t))),
    ("a lock may name its run later", |t| Box::pin(named(t))),
];

/// How long a place in line is kept here without a question, where nothing waits for that to be over.
const LONG: Duration = Duration::from_secs(60);

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

async fn late(trial: &mut Trial) -> Result<(), Violation> {
    let ttl = trial.bench.short_lease();
    let orchestrator = trial.bench.orchestrator();
    let lease = orchestrator.lock(&request("late", ttl)).await?;
    tokio::time::sleep(ttl + ttl / 2).await;
    let state = orchestrator.lock_state().await?;
    ensure(state.standing == Standing::Expired, || format!("it stands as {:?}", state.standing))?;
    ensure(orchestrator.lock_holder().await?.is_none(), || "an expired lock keeps others out".to_owned())?;
    let item = trial.item(Version::First).await?;
    trial.write(&put(&item, 1), lease.fence()).await?;
    lease.renew().await?;
    let state = orchestrator.lock_state().await?;
    ensure(state.standing == Standing::Held, || format!("renewed, it stands as {:?}", state.standing))
}

impl Trial {
    /// Stands in line as a run of that name.
    async fn stand(&self, run: &str, ttl: Duration) -> Result<Turn, OrchestratorError> {
        self.bench.orchestrator().stand_in_line(&request(run, ttl)).await
    }

    /// Stands in line and expects others to come first; returns the names of those in line.
    async fn waits(&self, run: &str, ttl: Duration) -> Result<Vec<String>, Violation> {
        match self.stand(run, ttl).await? {
            Turn::Ours(lease) => {
                Err(Violation::Shown(format!("{run} is given the lock out of turn ({:?})", lease.fence())))
            }
            Turn::Waits(state) => Ok(names(&state)),
        }
    }

    /// Stands in line and expects to be given the lock.
    async fn served(&self, run: &str, ttl: Duration) -> Result<Box<dyn Lease>, Violation> {
        match self.stand(run, ttl).await? {
            Turn::Ours(lease) => Ok(lease),
            Turn::Waits(state) => {
                Err(Violation::Shown(format!("{run} has to wait although it is its turn: {state:?}")))
            }
        }
    }
}

fn names(state: &LockState) -> Vec<String> {
    state.line.iter().map(|waiter| waiter.request.run.clone()).collect()
}

fn ensure_line(line: &[String], wanted: &[&str]) -> Result<(), Violation> {
    ensure(line == wanted, || format!("the line is {line:?} and should be {wanted:?}"))
}

async fn in_order(trial: &mut Trial) -> Result<(), Violation> {
    let mut held = trial.served("one", LONG).await?;
    ensure_line(&trial.waits("two", LONG).await?, &["two"])?;
    ensure_line(&trial.waits("three", LONG).await?, &["two", "three"])?;
    ensure_line(&trial.waits("four", LONG).await?, &["two", "three", "four"])?;
    let state = trial.bench.orchestrator().lock_state().await?;
    let tickets: Vec<u64> = state.line.iter().map(|waiter| waiter.ticket).collect();
    ensure(tickets.is_sorted_by(|a, b| a < b), || format!("the tickets are {tickets:?}"))?;
    let mut fences: Vec<Fence> = vec![held.fence()];
    for (next, later) in [("two", &["three", "four"][..]), ("three", &["four"]), ("four", &[])] {
        held.release().await?;
        for out_of_turn in later {
            trial.waits(out_of_turn, LONG).await?;
        }
        held = trial.served(next, LONG).await?;
        let state = trial.bench.orchestrator().lock_state().await?;
        ensure(state.held().is_some_and(|holder| holder.request.run == next), || format!("{state:?}"))?;
        ensure_line(&names(&state), later)?;
        fences.push(held.fence());
    }
    ensure(fences.is_sorted_by(|a, b| a < b), || format!("the fences are {fences:?}"))
}

async fn waited_for(trial: &mut Trial) -> Result<(), Violation> {
    let held = trial.lock().await?;
    trial.waits("waiting", LONG).await?;
    held.release().await?;
    let state = trial.bench.orchestrator().lock_state().await?;
    ensure(state.standing == Standing::Free, || format!("it stands as {:?}", state.standing))?;
    let second = trial.bench.orchestrator().lock(&request("pushing in", LONG)).await;
    let error = refused(second, ErrorKind::Conflict, "taking a lock that somebody waits for")?;
    let text = error.to_string();
    ensure(text.contains("1 in line"), || format!("the refusal does not tell of the line: {text}"))?;
    trial.served("waiting", LONG).await.map(drop)
}

async fn gone(trial: &mut Trial) -> Result<(), Violation> {
    let ttl = trial.bench.short_lease();
    let orchestrator = trial.bench.orchestrator();
    let held = trial.lock().await?;
    trial.waits("leaves", LONG).await?;
    trial.waits("silent", ttl).await?;
    trial.waits("patient", LONG).await?;
    orchestrator.leave_line(&request("leaves", LONG)).await?;
    orchestrator.leave_line(&request("was never there", LONG)).await?;
    held.release().await?;
    ensure_line(&trial.waits("patient", LONG).await?, &["silent", "patient"])?;
    tokio::time::sleep(ttl + ttl / 2).await;
    let served = trial.served("patient", LONG).await?;
    // One who asks again after that comes last.
    ensure_line(&trial.waits("silent", ttl).await?, &["silent"])?;
    served.release().await?;
    Ok(())
}

async fn again(trial: &mut Trial) -> Result<(), Violation> {
    let ttl = trial.bench.short_lease();
    let held = trial.lock().await?;
    trial.waits("first", ttl).await?;
    trial.waits("second", LONG).await?;
    for _ in 0..4 {
        tokio::time::sleep(ttl / 2).await;
        ensure_line(&trial.waits("first", ttl).await?, &["first", "second"])?;
    }
    held.release().await?;
    let first = trial.served("first", ttl).await?;
    let same = trial.served("first", ttl).await?;
    ensure(first.fence() == same.fence(), || "asked twice, it is given twice".to_owned())?;
    // One who gives up after the lock was given to it gives that back.
    trial.bench.orchestrator().leave_line(&request("first", ttl)).await?;
    trial.served("second", LONG).await.map(drop)
}

async fn line_survives(trial: &mut Trial) -> Result<(), Violation> {
    let held = trial.lock().await?;
    trial.waits("first", LONG).await?;
    trial.waits("second", LONG).await?;
    let before = trial.bench.orchestrator().lock_state().await?;
    trial.bench.reconnect().await;
    let after = trial.bench.orchestrator().lock_state().await?;
    ensure(before == after, || format!("before {before:?}, after {after:?}"))?;
    let again = trial.bench.orchestrator().lock_holder().await?;
    ensure(again.is_some_and(|holder| holder.fence == held.fence()), || "another holder".to_owned())
}

async fn taken_away(trial: &mut Trial) -> Result<(), Violation> {
    let ttl = trial.bench.short_lease();
    let orchestrator = trial.bench.orchestrator();
    let by = Operator { name: "somebody".to_owned(), host: "else".to_owned() };
    let held = trial.lock().await?;
    let polite = orchestrator.break_lock(held.fence(), &by, false).await;
    refused(polite, ErrorKind::Denied, "releasing a lock that is renewed")?;
    held.renew().await?;
    let stale = orchestrator.break_lock(Fence(held.fence().0 + 1), &by, true).await;
    refused(stale, ErrorKind::Conflict, "releasing a lock of another fence")?;
    orchestrator.break_lock(held.fence(), &by, true).await?;
    let state = orchestrator.lock_state().await?;
    ensure(state.holder.is_none(), || format!("it is still held: {state:?}"))?;
    let told = refused(held.renew().await, ErrorKind::LeaseLost, "renewing a lock that was taken away")?;
    ensure(told.reason.contains("somebody@else"), || format!("it does not say by whom: {told}"))?;
    let item = trial.item(Version::First).await?;
    let late = trial.write(&put(&item, 1), held.fence()).await;
    refused(late, ErrorKind::LeaseLost, "a write of one whose lock was taken away")?;
    let late = trial.bench.releases().prune(10, held.fence()).await;
    refused(late, ErrorKind::LeaseLost, "forgetting releases for it")?;
    // What is over needs no force.
    let over = orchestrator.lock(&request("over", ttl)).await?;
    tokio::time::sleep(ttl + ttl / 2).await;
    orchestrator.break_lock(over.fence(), &by, false).await?;
    refused(over.renew().await, ErrorKind::LeaseLost, "renewing a lock that was released").map(drop)
}

async fn named(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    lease.belongs_to("another").await?;
    lease.renew().await?;
    let holder = trial.bench.orchestrator().lock_holder().await?;
    let named = holder.as_ref().is_some_and(|h| h.request.run == "another" && h.fence == lease.fence());
    ensure(named, || format!("the holder is told as {holder:?}"))
}
