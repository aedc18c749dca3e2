//! The world of a simulation: what the target holds, as data that can be looked at, saved and read back.
//!
//! Nothing moves in it by itself. Each write leaves the item's future as a list of [`Beat`]s, and the state at any
//! time is the last beat that has come: so time is only looked at, and one script always plays the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lock::Place;
use super::script::Script;
use super::timeline::{Beat, Roll, beats};
use crate::item::{Digest, Item, ItemId, ItemKind};
use crate::overrides::Override;
use crate::ports::{Applied, ErrorKind, Fence, LockHolder, OrchestratorError, Result, Write};
use crate::release::{Operator, Release};
use crate::snapshot::Live;
use crate::status::Status;

/// Everything the simulated target holds. Times are milliseconds since the simulation began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct World {
    /// Items by id; removed ones stay for their generation.
    pub items: BTreeMap<ItemId, SimItem>,
    /// Kept releases, oldest first.
    pub releases: Vec<Release>,
    /// The highest release number ever given.
    pub highest: u32,
    /// The release that runs.
    pub head: Option<u32>,
    /// Kept overrides, expired ones too.
    pub overrides: Vec<Override>,
    /// Applied migrations by service.
    pub migrations: BTreeMap<String, Vec<AppliedMigration>>,
    /// Who holds the lease.
    pub lease: Option<HeldLease>,
    /// The highest fence given out.
    pub fence: u64,
    /// Who waits in line for it.
    #[serde(default)]
    pub line: Vec<Place>,
    /// The highest ticket given out.
    #[serde(default)]
    pub tickets: u64,
    /// The lease that was taken away last, and by whom.
    #[serde(default)]
    pub broken: Option<(Fence, Operator)>,
    /// True once the script took the lease away.
    pub lease_taken: bool,
    /// What really changed the world, in the order of the first time.
    pub effects: Vec<Effect>,
    /// The journals by run, as lines.
    pub journals: BTreeMap<String, Vec<String>>,
    /// How many calls each error of the script has seen.
    pub calls: Vec<u32>,
    /// Beats that came before the last write of their item.
    pub past: Vec<(ItemId, Beat)>,
    /// Seeds of the load runs whose setup was done and whose teardown was not: what they made is still there.
    #[serde(default)]
    pub set_up: BTreeSet<u64>,
}

/// Something that changed the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What, as people read it: `put workload/api 0123456789ab, 2 replicas`.
    pub text: String,
    /// How often. Calls that found the world as they wanted it are not counted.
    pub count: u32,
}

/// The lease while somebody holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldLease {
    /// Who.
    pub holder: LockHolder,
    /// True when that process is known to be dead: the next taker need not wait.
    pub dead: bool,
}

/// A migration that is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedMigration {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Digest of the text that was applied.
    pub digest: Digest,
    /// When.
    pub at: jiff::Timestamp,
}

/// One item of the world.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SimItem {
    /// What it was made from; none once it was removed.
    pub item: Option<Item>,
    /// Counts the accepted writes; never goes back, not even when the item is removed and made again.
    pub generation: u64,
    /// Revisions ever seen, in order.
    pub revisions: Vec<Digest>,
    /// The restart last asked for.
    pub restart: Option<String>,
    /// Its past state and its future, in order of time.
    pub beats: Vec<Beat>,
}

impl SimItem {
    /// Returns the beat that holds at a time.
    #[must_use]
    pub fn beat(&self, now_ms: u64) -> Option<&Beat> {
        self.beats.iter().rev().find(|beat| beat.at_ms <= now_ms)
    }

    /// Returns how the item stands at a time.
    #[must_use]
    pub fn live(&self, now_ms: u64) -> Live {
        self.beat(now_ms).map_or_else(Live::missing, |beat| beat.live.clone())
    }

    /// Returns which of its revisions runs, from 1.
    #[must_use]
    pub fn nth(&self) -> usize {
        let digest = self.item.as_ref().map(|item| &item.digest);
        self.revisions.iter().position(|seen| Some(seen) == digest).map_or(0, |at| at + 1)
    }
}

impl World {
    /// Returns how an item stands.
    #[must_use]
    pub fn live(&self, id: &ItemId, now_ms: u64) -> Live {
        self.items.get(id).map_or_else(Live::missing, |item| item.live(now_ms))
    }

    /// Returns the effects as one line each, for comparing worlds.
    #[must_use]
    pub fn effect_lines(&self) -> Vec<String> {
        self.effects.iter().map(|effect| format!("{} ({})", effect.text, effect.count)).collect()
    }

    /// Returns how many effects there were.
    #[must_use]
    pub fn effect_count(&self) -> u64 {
        self.effects.iter().map(|effect| u64::from(effect.count)).sum()
    }

    pub(super) fn count(&mut self, text: String) {
        match self.effects.iter_mut().find(|effect| effect.text == text) {
            Some(effect) => effect.count += 1,
            None => self.effects.push(Effect { text, count: 1 }),
        }
    }

    /// Returns the moments after `after_ms` at which an item changes by itself.
    pub(super) fn next_beat(&self, ids: &[ItemId], after_ms: u64) -> Option<u64> {
        let beats = ids.iter().filter_map(|id| self.items.get(id)).flat_map(|item| &item.beats);
        beats.map(|beat| beat.at_ms).filter(|at| *at > after_ms).min()
    }

    /// Carries out one write; tells the effect when it changed anything.
    pub(super) fn write(
        &mut self,
        script: &Script,
        now_ms: u64,
        write: &Write,
    ) -> Result<(Applied, Option<String>)> {
        match write {
            Write::Put { item, replicas } => Ok(self.put(script, now_ms, item, *replicas)),
            Write::Remove { id } => Ok(self.remove(script, now_ms, id)),
            Write::Scale { id, replicas } => self.scale(script, now_ms, id, *replicas),
            Write::Restart { id, token } => self.restart(script, now_ms, id, token),
        }
    }

    fn put(
        &mut self,
        script: &Script,
        now_ms: u64,
        item: &Item,
        replicas: Option<u32>,
    ) -> (Applied, Option<String>) {
        let kept = self.items.entry(item.id.clone()).or_default();
        let before = kept.live(now_ms);
        let there = kept.item.is_some();
        let replicas =
            replicas.or(item.replicas.map(|range| range.settle(before.replicas.filter(|_| there))));
        let same = kept.item.as_ref().is_some_and(|live| live.digest == item.digest);
        if same && before.replicas == replicas {
            return (Applied { generation: kept.generation }, None);
        }
        if !kept.revisions.contains(&item.digest) {
            kept.revisions.push(item.digest.clone());
        }
        kept.item = Some(item.clone());
        let roll = match (there, same) {
            (false, _) => Roll::Create,
            (true, true) => Roll::Scale,
            (true, false) => Roll::Update,
        };
        let noun = |count| if count == 1 { "replica" } else { "replicas" };
        let count = replicas.map(|count| format!(", {count} {}", noun(count))).unwrap_or_default();
        let text = format!("put {} {}{count}", item.id, item.digest.short());
        (self.roll(script, now_ms, &item.id, roll, replicas), Some(text))
    }

    fn remove(&mut self, script: &Script, now_ms: u64, id: &ItemId) -> (Applied, Option<String>) {
        let Some(kept) = self.items.get_mut(id).filter(|kept| kept.item.is_some()) else {
            return (Applied { generation: self.items.get(id).map_or(0, |kept| kept.generation) }, None);
        };
        kept.item = None;
        let applied = self.roll(script, now_ms, id, Roll::Remove, None);
        (applied, Some(format!("remove {id}")))
    }

    fn scale(
        &mut self,
        script: &Script,
        now_ms: u64,
        id: &ItemId,
        replicas: u32,
    ) -> Result<(Applied, Option<String>)> {
        let generation = self.workload("scale", id)?.generation;
        if self.live(id, now_ms).replicas == Some(replicas) {
            return Ok((Applied { generation }, None));
        }
        let applied = self.roll(script, now_ms, id, Roll::Scale, Some(replicas));
        Ok((applied, Some(format!("scale {id} to {replicas}"))))
    }

    fn restart(
        &mut self,
        script: &Script,
        now_ms: u64,
        id: &ItemId,
        token: &str,
    ) -> Result<(Applied, Option<String>)> {
        let kept = self.workload("restart", id)?;
        if kept.restart.as_deref() == Some(token) {
            return Ok((Applied { generation: kept.generation }, None));
        }
        kept.restart = Some(token.to_owned());
        let replicas = self.live(id, now_ms).replicas;
        let applied = self.roll(script, now_ms, id, Roll::Update, replicas);
        Ok((applied, Some(format!("restart {id} {token}"))))
    }

    fn workload(&mut self, operation: &'static str, id: &ItemId) -> Result<&mut SimItem> {
        let there =
            self.items.get_mut(id).filter(|kept| kept.item.is_some() && id.kind == ItemKind::Workload);
        there.ok_or_else(|| {
            OrchestratorError::new(
                ErrorKind::NotFound,
                operation,
                id.to_string(),
                "no such workload runs here",
            )
        })
    }

    /// Gives an item its next generation and the beats that lead to it.
    fn roll(
        &mut self,
        script: &Script,
        now_ms: u64,
        id: &ItemId,
        roll: Roll,
        replicas: Option<u32>,
    ) -> Applied {
        let kept = self.items.entry(id.clone()).or_default();
        kept.generation += 1;
        let before = kept.live(now_ms);
        let digest = kept.item.as_ref().map(|item| item.digest.clone()).or_else(|| before.digest.clone());
        let wanted = Live {
            digest,
            generation: kept.generation,
            observed_generation: before.observed_generation,
            replicas,
            status: before.status,
        };
        let nth = kept.nth();
        let faults: Vec<_> = kept.item.iter().flat_map(|item| script.faults_of(item, nth)).collect();
        let future = beats(now_ms, roll, &wanted, script.tempo(id), id.kind, &faults);
        // The present beat stays, for streams that lag; what was to come no longer does.
        let present = kept.beats.iter().rposition(|beat| beat.at_ms <= now_ms);
        kept.beats.retain(|beat| beat.at_ms <= now_ms);
        let present = kept.beats.split_off(present.unwrap_or(0));
        let gone = std::mem::replace(&mut kept.beats, present);
        self.past.extend(gone.into_iter().map(|beat| (id.clone(), beat)));
        kept.beats.extend(future);
        Applied { generation: kept.generation }
    }

    /// Puts an item in place that changed at once: a migration that ran.
    pub(super) fn settle(&mut self, script: &Script, now_ms: u64, item: &Item) {
        self.put(script, now_ms, item, None);
        if let Some(kept) = self.items.get_mut(&item.id)
            && let Some(last) = kept.beats.pop()
        {
            kept.beats = vec![Beat { at_ms: now_ms, ..last }];
        }
    }

    /// Says which workloads have a replica that takes requests.
    pub(super) fn serves(&self, service: &str, now_ms: u64) -> bool {
        let live = self.live(&ItemId::workload(service), now_ms);
        live.status.ready > 0 && live.status.status != Status::NotFound
    }
}
