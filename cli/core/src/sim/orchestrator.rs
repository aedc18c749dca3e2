//! The orchestrator of the simulation: writes, watch streams and the one lease.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::Value;

use super::Sim;
use crate::item::{Desired, Item, ItemId};
use crate::plan::Difference;
use crate::ports::{
    Applied, ErrorKind, Fence, Lease, LockRequest, Observation, Orchestrator, OrchestratorError,
    ReleaseInput, Result, Write,
};
use crate::release::Release;
use crate::snapshot::{Live, Snapshot};
use crate::status::Status;
use crate::system::System;
use crate::system::units::TimeSpan;

#[async_trait]
impl Orchestrator for Sim {
    async fn resolve(&self, system: &System, input: &ReleaseInput) -> Result<Desired> {
        self.enter("resolve", &system.name).await?;
        Ok(super::resolve::resolve(system, input))
    }

    async fn observe(&self) -> Result<Snapshot> {
        self.enter("observe", "the target").await?;
        let (now, now_ms) = (self.now(), self.now_ms());
        let state = self.state();
        let world = &state.world;
        let lives = world.items.iter().map(|(id, item)| (id.clone(), item.live(now_ms)));
        Ok(Snapshot {
            taken_at: now,
            items: lives.filter(|(_, live)| live.status.status != Status::NotFound).collect(),
            head: world.releases.iter().find(|release| Some(release.number) == world.head).map(Release::head),
            overrides: world.overrides.iter().filter(|entry| entry.in_force(now)).cloned().collect(),
        })
    }

    async fn preview(&self, item: &Item) -> Result<Vec<Difference>> {
        self.enter("preview", &item.id.to_string()).await?;
        let state = self.state();
        let live = state.world.items.get(&item.id).and_then(|live| live.item.as_ref());
        let Some(live) = live.filter(|live| live.digest != item.digest) else { return Ok(Vec::new()) };
        Ok(differences(&live.payload, &item.payload))
    }

    async fn apply(&self, write: &Write, fence: Fence) -> Result<Applied> {
        let subject = write.id().to_string();
        self.enter("apply", &subject).await?;
        let script = &self.0.script;
        self.change("apply", &subject, Some(fence), |world, now_ms| world.write(script, now_ms, write)).await
    }

    async fn watch(&self, ids: &[ItemId]) -> Result<BoxStream<'static, Result<Observation>>> {
        let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
        self.enter("watch", &names.join(", ")).await?;
        let watcher = Watcher {
            sim: self.clone(),
            changes: self.0.changes.subscribe(),
            opened_ms: self.now_ms(),
            ids: ids.to_vec(),
            told: BTreeMap::new(),
            queue: VecDeque::new(),
            broken: false,
        };
        Ok(futures::stream::unfold(watcher, Watcher::next).boxed())
    }

    async fn lock(&self, request: &LockRequest) -> Result<Box<dyn Lease>> {
        self.enter("lock", "the target").await?;
        self.take_lock(request).await
    }
}

/// One watch stream.
struct Watcher {
    sim: Sim,
    changes: tokio::sync::watch::Receiver<u64>,
    opened_ms: u64,
    ids: Vec<ItemId>,
    told: BTreeMap<ItemId, Live>,
    queue: VecDeque<Observation>,
    broken: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Observation>, Self)> {
        if self.broken {
            return None;
        }
        loop {
            self.sim.pend_if_dead().await;
            self.changes.mark_unchanged();
            let now_ms = self.sim.now_ms();
            if let Some(error) = self.breaks(now_ms) {
                self.broken = true;
                return Some((Err(error), self));
            }
            let lag = self.sim.0.script.watch.lag.as_millis();
            self.look(now_ms.saturating_sub(lag));
            if let Some(observation) = self.queue.pop_front() {
                return Some((Ok(observation), self));
            }
            let wake = self.wake(now_ms, lag);
            let wait = async {
                match wake {
                    Some(at) => tokio::time::sleep(Duration::from_millis(at.saturating_sub(now_ms))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = wait => {}
                // The simulation keeps the sender; a closed channel cannot be.
                _ = self.changes.changed() => {}
            }
        }
    }

    /// Queues every item that is not as it was told.
    fn look(&mut self, seen_ms: u64) {
        let state = self.sim.state();
        for id in &self.ids {
            let live = state.world.live(id, seen_ms);
            if self.told.get(id) != Some(&live) {
                self.told.insert(id.clone(), live.clone());
                self.queue.push_back(Observation { id: id.clone(), live });
            }
        }
    }

    fn breaks(&self, now_ms: u64) -> Option<OrchestratorError> {
        let script = &self.sim.0.script;
        let broke =
            script.watch.breaks.iter().any(|at| (self.opened_ms + 1..=now_ms).contains(&at.as_millis()));
        let away = script.unavailable.iter().any(|window| window.holds(now_ms));
        (broke || away).then(|| {
            OrchestratorError::new(ErrorKind::Unavailable, "watch", "the target", "the stream broke")
        })
    }

    /// Returns when something happens by itself.
    fn wake(&self, now_ms: u64, lag: u64) -> Option<u64> {
        let script = &self.sim.0.script;
        let beat = self.sim.state().world.next_beat(&self.ids, now_ms.saturating_sub(lag)).map(|at| at + lag);
        let breaks = script.watch.breaks.iter().copied().map(TimeSpan::as_millis);
        let windows = script.unavailable.iter().map(|window| window.from.as_millis());
        breaks.chain(windows).filter(|at| *at > now_ms).chain(beat).min()
    }
}

/// Returns the fields in which two payloads differ, by dotted path.
fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", before, &mut old);
    flatten("", after, &mut new);
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let differs = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    differs
        .map(|path| Difference {
            path: path.clone(),
            before: old.get(path).cloned(),
            after: new.get(path).cloned(),
        })
        .collect()
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&below(key), value, leaves)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, leaves));
        }
        Value::Null => {}
        Value::String(text) => drop(leaves.insert(path.to_owned(), text.clone())),
        other => drop(leaves.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_leaf() {
        let before = serde_json::json!({"env": {"A": "1", "B": "2"}, "port": 1});
        let after = serde_json::json!({"env": {"A": "1", "B": "3", "C": "4"}});
        let told: Vec<String> = differences(&before, &after)
            .iter()
            .map(|d| format!("{} {:?} {:?}", d.path, d.before.as_deref(), d.after.as_deref()))
            .collect();
        assert_eq!(
            told,
            [r#"env.B Some("2") Some("3")"#, r#"env.C None Some("4")"#, r#"port Some("1") None"#,]
        );
    }
}
