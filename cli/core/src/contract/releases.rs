//! The releases a target keeps.

use super::{Entry, Trial, Version, Violation, ensure, refused, request};
use crate::ports::{ErrorKind, Fence};
use crate::release::{Release, ReleaseState};

pub(super) const BEHAVIOURS: &[Entry] = &[
    ("release numbers count from 1 and are never reused", |t| Box::pin(numbers(t))),
    ("releases, states and the head survive a reconnect", |t| Box::pin(survive(t))),
    ("pruning keeps the newest, the head and the last verified one", |t| Box::pin(prune(t))),
    ("unknown releases are not found", |t| Box::pin(unknown(t))),
];

async fn create(trial: &Trial, fence: Fence) -> Result<u32, Violation> {
    let store = trial.bench.releases();
    let number = store.next_number().await?;
    let desired = trial.bench.desired(Version::First).await;
    let operator = request("contract", trial.bench.patience()).operator;
    let release = Release {
        number,
        tag: Some(format!("v{number}")),
        system: "contract".to_owned(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        author: operator,
        run: "contract".to_owned(),
        state: ReleaseState::Pending,
        rollback_of: None,
        note: None,
        desired,
    };
    store.create(&release, fence).await?;
    Ok(number)
}

async fn numbers(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let store = trial.bench.releases();
    let mut given = Vec::new();
    for _ in 0..3 {
        given.push(create(trial, lease.fence()).await?);
    }
    ensure(given == [1, 2, 3], || format!("the numbers were {given:?}"))?;
    let listed: Vec<u32> = store.list().await?.iter().map(|release| release.number).collect();
    ensure(listed == given, || format!("kept, oldest first: {listed:?}"))?;
    let kept = store.list().await?;
    if let Some(release) = kept.first() {
        refused(store.create(release, lease.fence()).await, ErrorKind::Conflict, "writing release 1 again")?;
    }
    // Nothing is head and nothing verified: pruning to nothing may forget them all, but not their numbers.
    store.prune(0, lease.fence()).await?;
    let next = store.next_number().await?;
    ensure(next == 4, || format!("after pruning the next number is {next}"))
}

async fn survive(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let fence = lease.fence();
    let (first, second) = (create(trial, fence).await?, create(trial, fence).await?);
    let store = trial.bench.releases();
    store.mark(first, ReleaseState::Verified, None, fence).await?;
    store.mark(second, ReleaseState::Failed, Some("it did not start".to_owned()), fence).await?;
    store.set_head(first, fence).await?;
    let before = store.list().await?;
    trial.bench.reconnect().await;
    let after = trial.bench.releases().list().await?;
    ensure(before == after, || "the list is another one after a reconnect".to_owned())?;
    let states: Vec<_> = after.iter().map(|release| (release.state, release.note.as_deref())).collect();
    let wanted = [(ReleaseState::Verified, None), (ReleaseState::Failed, Some("it did not start"))];
    ensure(states == wanted, || format!("the states are {states:?}"))?;
    let head = trial.bench.orchestrator().observe().await?.head;
    ensure(
        head.as_ref().is_some_and(|head| head.number == first && head.state == ReleaseState::Verified),
        || format!("the head is {head:?}"),
    )
}

async fn prune(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let fence = lease.fence();
    let store = trial.bench.releases();
    for _ in 0..6 {
        create(trial, fence).await?;
    }
    store.mark(1, ReleaseState::Verified, None, fence).await?;
    store.mark(3, ReleaseState::Verified, None, fence).await?;
    store.set_head(2, fence).await?;
    let gone = store.prune(2, fence).await?;
    ensure(gone == [1, 4], || format!("forgotten: {gone:?}, expected 1 and 4"))?;
    let kept: Vec<u32> = store.list().await?.iter().map(|release| release.number).collect();
    ensure(kept == [2, 3, 5, 6], || format!("kept: {kept:?}"))?;
    let again = store.prune(2, fence).await?;
    ensure(again.is_empty(), || format!("a second time forgets {again:?}"))
}

async fn unknown(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let store = trial.bench.releases();
    let mark = store.mark(7, ReleaseState::Verified, None, lease.fence()).await;
    refused(mark, ErrorKind::NotFound, "marking an unknown release")?;
    refused(store.set_head(7, lease.fence()).await, ErrorKind::NotFound, "an unknown head").map(drop)
}
