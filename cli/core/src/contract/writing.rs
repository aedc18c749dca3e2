//! Puts, scales, restarts, removals and previews.

use super::{Entry, Trial, Version, Violation, by_id, ensure, put, refused};
use crate::item::{ItemId, ItemKind};
use crate::ports::{ErrorKind, LogQuery, Write};
use crate::status::{Condition, Status};

pub(super) const BEHAVIOURS: &[Entry] = &[
    ("an empty target shows nothing", |t| Box::pin(empty(t))),
    ("a put becomes current with the replicas asked for", |t| Box::pin(becomes_current(t))),
    ("a repeated put changes nothing", |t| Box::pin(repeated_put(t))),
    ("each accepted write raises the generation, and the status follows it", |t| Box::pin(generations(t))),
    ("a status of before a write never counts as current for it", |t| Box::pin(stale(t))),
    ("an update keeps the old replicas serving until the new ones do", |t| Box::pin(keeps_serving(t))),
    ("a workload that exits at once fails with a terminal cause", |t| Box::pin(broken(t))),
    ("a broken update is cured by putting the old revision back", |t| Box::pin(cured(t))),
    ("removing makes it not found, and removing what is not there succeeds", |t| Box::pin(removing(t))),
    ("scaling keeps the revision", |t| Box::pin(scaling(t))),
    ("a restart with the same token happens once", |t| Box::pin(restarting(t))),
    ("a preview names what differs and is empty when nothing does", |t| Box::pin(preview(t))),
    ("workloads do not disturb each other", |t| Box::pin(independent(t))),
    ("what is unknown is not found", |t| Box::pin(unknown(t))),
];

async fn empty(trial: &mut Trial) -> Result<(), Violation> {
    let snapshot = trial.bench.orchestrator().observe().await?;
    let workloads: Vec<_> = snapshot.items.keys().filter(|id| id.kind == ItemKind::Workload).collect();
    ensure(workloads.is_empty(), || format!("there are workloads: {workloads:?}"))?;
    ensure(snapshot.head.is_none() && snapshot.overrides.is_empty(), || {
        "there is a head or an override".to_owned()
    })
}

async fn becomes_current(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, live) = trial.running(Version::First, 2, lease.fence()).await?;
    ensure(live.status.ready == 2 && live.replicas == Some(2), || {
        format!("2 replicas asked for, seen {live:?}")
    })?;
    ensure(live.digest.as_ref() == Some(&item.digest), || format!("another digest: {:?}", live.digest))?;
    let observed = trial.live(&item.id).await?;
    ensure(observed.is_current(), || format!("watch says current, observe says {:?}", observed.status))
}

async fn repeated_put(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, live) = trial.running(Version::First, 1, lease.fence()).await?;
    let replicas = trial.bench.inspector().replicas(Some(&item.id.name)).await?;
    let applied = trial.write(&put(&item, 1), lease.fence()).await?;
    ensure(applied.generation == live.generation, || {
        format!("the generation went from {} to {}", live.generation, applied.generation)
    })?;
    let after = trial.live(&item.id).await?;
    ensure(after.is_current(), || format!("it was current before, and is {:?}", after.status))?;
    let names =
        |replicas: &[crate::ports::Replica]| replicas.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let same = trial.bench.inspector().replicas(Some(&item.id.name)).await?;
    ensure(names(&same) == names(&replicas), || format!("other replicas run: {:?}", names(&same)))
}

async fn generations(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, first) = trial.running(Version::First, 1, lease.fence()).await?;
    ensure(first.generation > 0, || "the first generation is 0".to_owned())?;
    let (_, second) = trial.running(Version::Second, 1, lease.fence()).await?;
    let scale = Write::Scale { id: item.id.clone(), replicas: 2 };
    let scaled = trial.write(&scale, lease.fence()).await?.generation;
    let steps = [first.generation, second.generation, scaled];
    ensure(steps.is_sorted_by(|a, b| a < b), || format!("the generations were {steps:?}"))?;
    let live = trial.until(&item.id, "current", |l| Condition::AllCurrent.holds(l, scaled)).await?;
    ensure(live.observed_generation == scaled, || format!("the status is of {}", live.observed_generation))
}

async fn stale(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, _) = trial.running(Version::First, 1, lease.fence()).await?;
    let second = trial.item(Version::Second).await?;
    let applied = trial.write(&put(&second, 1), lease.fence()).await?;
    // The very next look may still tell the old status, but then of the old generation.
    let live = trial.live(&item.id).await?;
    let early = Condition::AllCurrent.holds(&live, applied.generation) && live.status.updated == 0;
    ensure(!early, || format!("current at once: {live:?}"))?;
    let live =
        trial.until(&item.id, "current", |l| Condition::AllCurrent.holds(l, applied.generation)).await?;
    ensure(live.digest.as_ref() == Some(&second.digest), || format!("current with {:?}", live.digest))?;
    ensure(live.status.updated >= 1, || format!("current with {} updated replicas", live.status.updated))
}

async fn keeps_serving(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, _) = trial.running(Version::First, 2, lease.fence()).await?;
    let second = trial.item(Version::Second).await?;
    let applied = trial.write(&put(&second, 2), lease.fence()).await?;
    let least = std::sync::atomic::AtomicU32::new(u32::MAX);
    let seen = |live: &crate::snapshot::Live| {
        least.fetch_min(live.status.ready, std::sync::atomic::Ordering::Relaxed);
        Condition::AllCurrent.holds(live, applied.generation)
    };
    trial.until(&item.id, "current", seen).await?;
    let least = least.into_inner();
    ensure(least >= 2, || format!("only {least} of 2 replicas were ready at some time"))
}

async fn broken(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let item = trial.item(Version::Broken).await?;
    let applied = trial.write(&put(&item, 1), lease.fence()).await?;
    let terminal = |live: &crate::snapshot::Live| {
        live.observed_generation >= applied.generation
            && live.status.cause.as_ref().is_some_and(|c| c.terminal)
    };
    let live = trial.until(&item.id, "failed for good", terminal).await?;
    ensure(live.status.status == Status::Failed, || format!("a terminal cause, and yet {:?}", live.status))?;
    let text = live.status.cause.map(|cause| cause.text).unwrap_or_default();
    ensure(!text.is_empty(), || "the cause says nothing".to_owned())
}

async fn cured(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (first, _) = trial.running(Version::First, 1, lease.fence()).await?;
    let item = trial.item(Version::Broken).await?;
    let applied = trial.write(&put(&item, 1), lease.fence()).await?;
    let terminal =
        |live: &crate::snapshot::Live| live.status.cause.as_ref().is_some_and(|cause| cause.terminal);
    let failed = trial.until(&item.id, "failed for good", terminal).await?;
    ensure(failed.status.ready >= 1, || "the old revision does not serve any more".to_owned())?;
    let (_, live) = trial.running(Version::First, 1, lease.fence()).await?;
    ensure(live.generation > applied.generation, || "going back is no write of its own".to_owned())?;
    ensure(live.digest.as_ref() == Some(&first.digest), || format!("it runs {:?}", live.digest))
}

async fn removing(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    trial.running(Version::First, 1, lease.fence()).await?;
    let (item, before) = trial.running(Version::First, 2, lease.fence()).await?;
    let remove = Write::Remove { id: item.id.clone() };
    trial.write(&remove, lease.fence()).await?;
    trial.until(&item.id, "gone", |live| Condition::AllGone.holds(live, 0)).await?;
    let snapshot = trial.bench.orchestrator().observe().await?;
    ensure(!snapshot.get(&item.id).is_current(), || "observe still shows it".to_owned())?;
    trial.write(&remove, lease.fence()).await?;
    trial.write(&Write::Remove { id: ItemId::workload("never-there") }, lease.fence()).await?;
    let (_, again) = trial.running(Version::First, 1, lease.fence()).await?;
    ensure(again.generation > before.generation, || {
        format!("made again, the generation went from {} to {}", before.generation, again.generation)
    })
}

async fn scaling(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, _) = trial.running(Version::First, 1, lease.fence()).await?;
    for replicas in [3, 2] {
        let scale = Write::Scale { id: item.id.clone(), replicas };
        let applied = trial.write(&scale, lease.fence()).await?;
        let live =
            trial.until(&item.id, "current", |l| Condition::AllCurrent.holds(l, applied.generation)).await?;
        ensure(live.digest.as_ref() == Some(&item.digest), || format!("it runs {:?}", live.digest))?;
        ensure(live.status.ready == replicas && live.replicas == Some(replicas), || {
            format!("{replicas} replicas asked for, seen {live:?}")
        })?;
        let repeated = trial.write(&scale, lease.fence()).await?;
        ensure(repeated == applied, || "the same count again is another generation".to_owned())?;
    }
    Ok(())
}

async fn restarting(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, before) = trial.running(Version::First, 1, lease.fence()).await?;
    let restart = |token: &str| Write::Restart { id: item.id.clone(), token: token.to_owned() };
    let once = trial.write(&restart("one"), lease.fence()).await?;
    ensure(once.generation > before.generation, || "a restart is no accepted write".to_owned())?;
    let live = trial.until(&item.id, "current", |l| Condition::AllCurrent.holds(l, once.generation)).await?;
    ensure(live.digest.as_ref() == Some(&item.digest), || format!("it runs {:?}", live.digest))?;
    let again = trial.write(&restart("one"), lease.fence()).await?;
    ensure(again == once, || "the same restart happened twice".to_owned())?;
    let other = trial.write(&restart("two"), lease.fence()).await?;
    ensure(other.generation > once.generation, || "another token restarts nothing".to_owned())
}

async fn preview(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, before) = trial.running(Version::First, 1, lease.fence()).await?;
    let orchestrator = trial.bench.orchestrator();
    let same = orchestrator.preview(&item).await?;
    ensure(same.is_empty(), || format!("nothing changed, and yet {same:?}"))?;
    let second = trial.item(Version::Second).await?;
    let differences = orchestrator.preview(&second).await?;
    ensure(!differences.is_empty(), || "the second version differs in nothing".to_owned())?;
    let equal = differences.iter().find(|difference| difference.before == difference.after);
    ensure(equal.is_none(), || format!("no difference at all: {equal:?}"))?;
    let after = trial.live(&item.id).await?;
    ensure(after.generation == before.generation, || "a preview changed the item".to_owned())
}

async fn independent(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let items = by_id(&trial.bench.desired(Version::First).await);
    ensure(items.len() == 2, || format!("the harness has {} items, not 2", items.len()))?;
    let mut lives = Vec::new();
    for item in items.values() {
        let applied = trial.write(&put(item, 1), lease.fence()).await?;
        lives.push((item.id.clone(), applied.generation));
    }
    for (id, generation) in &lives {
        trial.until(id, "current", |l| Condition::AllCurrent.holds(l, *generation)).await?;
    }
    let [(first, _), (second, generation)] = &lives[..] else { return Ok(()) };
    trial.write(&Write::Remove { id: first.clone() }, lease.fence()).await?;
    trial.until(first, "gone", |live| Condition::AllGone.holds(live, 0)).await?;
    let other = trial.live(second).await?;
    ensure(other.is_current() && other.generation == *generation, || {
        format!("the other one is now {other:?}")
    })
}

async fn unknown(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let id = ItemId::workload("never-there");
    let live = trial.until(&id, "not found", |live| live.status.status == Status::NotFound).await?;
    ensure(live.generation == 0, || format!("it has generation {}", live.generation))?;
    let scale = trial.write(&Write::Scale { id: id.clone(), replicas: 1 }, lease.fence()).await;
    refused(scale, ErrorKind::NotFound, "scaling what is not there")?;
    let restart = trial.write(&Write::Restart { id, token: "one".to_owned() }, lease.fence()).await;
    refused(restart, ErrorKind::NotFound, "restarting what is not there")?;
    let inspector = trial.bench.inspector();
    refused(inspector.replicas(Some("never-there")).await, ErrorKind::NotFound, "asking for its replicas")?;
    let query = LogQuery { service: "never-there".to_owned(), ..LogQuery::default() };
    refused(inspector.logs(&query).await.map(drop), ErrorKind::NotFound, "asking for its logs")?;
    let address = inspector.address(Some("never-there")).await?;
    ensure(address.is_none(), || format!("it has the address {address:?}"))
}
