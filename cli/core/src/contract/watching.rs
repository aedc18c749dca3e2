//! Watch streams.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::{Entry, Trial, Version, Violation, by_id, ensure, put, sane};
use crate::item::ItemId;
use crate::ports::Write;
use crate::snapshot::Live;
use crate::status::{Condition, Status};

pub(super) const BEHAVIOURS: &[Entry] = &[
    ("a watch tells every item's present state first", |t| Box::pin(present_first(t))),
    ("a watch tells every change until the end state", |t| Box::pin(every_change(t))),
    ("a watch opened before anything is there tells what comes", |t| Box::pin(from_nothing(t))),
    ("a watch tells only of the items it was asked for", |t| Box::pin(only_asked(t))),
];

async fn present_first(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, live) = trial.running(Version::First, 1, lease.fence()).await?;
    let absent = ItemId::workload("never-there");
    let ids = [item.id.clone(), absent.clone()];
    let first = async {
        let mut told: BTreeMap<ItemId, Live> = BTreeMap::new();
        let mut stream = trial.bench.orchestrator().watch(&ids).await?;
        while told.len() < ids.len() {
            let Some(observation) = stream.next().await else { break };
            let observation = observation?;
            told.entry(observation.id).or_insert(observation.live);
        }
        Ok::<_, Violation>(told)
    };
    let told = tokio::time::timeout(trial.bench.patience(), first).await;
    let told = told.map_err(|_| Violation::Shown("the first states do not come in time".to_owned()))??;
    let shown = told.get(&item.id);
    ensure(shown.is_some_and(|shown| shown.is_current() && shown.generation == live.generation), || {
        format!("the running one is told as {shown:?}")
    })?;
    let shown = told.get(&absent).map(|live| live.status.status);
    ensure(shown == Some(Status::NotFound), || format!("the absent one is told as {shown:?}"))
}

async fn every_change(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let (item, before) = trial.running(Version::First, 1, lease.fence()).await?;
    let mut stream = trial.bench.orchestrator().watch(std::slice::from_ref(&item.id)).await?;
    let second = trial.item(Version::Second).await?;
    let applied = trial.write(&put(&second, 1), lease.fence()).await?;
    let follow = async {
        let mut seen = Vec::new();
        while let Some(observation) = stream.next().await {
            let live = observation?.live;
            sane(&item.id, &live)?;
            seen.push(live.clone());
            if Condition::AllCurrent.holds(&live, applied.generation) {
                return Ok::<_, Violation>(seen);
            }
        }
        Err(Violation::Shown("the stream ended without an error".to_owned()))
    };
    let seen = tokio::time::timeout(trial.bench.patience(), follow).await;
    let seen = seen.map_err(|_| Violation::Shown("the update is not told to its end".to_owned()))??;
    let start = seen.first().map(|live| live.generation);
    ensure(start.is_some_and(|start| start <= applied.generation), || format!("it begins with {start:?}"))?;
    let on_the_way = seen.iter().any(|live| live.status.status == Status::InProgress);
    ensure(on_the_way, || "the way between the two is not told".to_owned())?;
    let observed: Vec<u64> = seen.iter().map(|live| live.observed_generation).collect();
    ensure(observed.is_sorted() && observed.first() >= Some(&before.observed_generation), || {
        format!("observed generations go back: {observed:?}")
    })
}

async fn from_nothing(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let item = trial.item(Version::First).await?;
    let mut stream = trial.bench.orchestrator().watch(std::slice::from_ref(&item.id)).await?;
    let follow = async {
        let mut applied = None;
        let mut words = Vec::new();
        while let Some(observation) = stream.next().await {
            let live = observation?.live;
            words.push(live.status.status);
            if applied.is_none() {
                applied = Some(trial.write(&put(&item, 1), lease.fence()).await?.generation);
            } else if applied.is_some_and(|generation| Condition::AllCurrent.holds(&live, generation)) {
                return Ok::<_, Violation>(words);
            }
        }
        Err(Violation::Shown("the stream ended without an error".to_owned()))
    };
    let words = tokio::time::timeout(trial.bench.patience(), follow).await;
    let words = words.map_err(|_| Violation::Shown("what was put is not told".to_owned()))??;
    ensure(words.first() == Some(&Status::NotFound), || format!("it was told as {words:?}"))
}

async fn only_asked(trial: &mut Trial) -> Result<(), Violation> {
    let lease = trial.lock().await?;
    let items = by_id(&trial.bench.desired(Version::First).await);
    let ids: Vec<ItemId> = items.keys().cloned().collect();
    let [asked, other] = &ids[..] else {
        return Err(Violation::Shown("the harness has not two items".to_owned()));
    };
    let mut stream = trial.bench.orchestrator().watch(std::slice::from_ref(asked)).await?;
    for id in [other, asked] {
        trial.write(&put(&items[id], 1), lease.fence()).await?;
    }
    trial.until(other, "current", Live::is_current).await?;
    trial.write(&Write::Remove { id: other.clone() }, lease.fence()).await?;
    let follow = async {
        while let Some(observation) = stream.next().await {
            let observation = observation?;
            ensure(observation.id == *asked, || format!("it tells of {}", observation.id))?;
            if observation.live.is_current() {
                return Ok::<_, Violation>(());
            }
        }
        Err(Violation::Shown("the stream ended without an error".to_owned()))
    };
    let done = tokio::time::timeout(trial.bench.patience(), follow).await;
    done.map_err(|_| Violation::Shown("the one asked for is not told".to_owned()))?
}
