//! What the simulated target keeps: releases, overrides, applied migrations, journals.

use std::time::Duration;

use async_trait::async_trait;

use super::world::AppliedMigration;
use super::{KillPoint, Sim};
use crate::item::{Digest, Item};
use crate::overrides::Override;
use crate::ports::{
    ErrorKind, Fence, Journal, JournalError, Lease, MigrationFile, MigrationState, OrchestratorError,
    OverrideStore, ReleaseStore, Result, RunMirror, StoreAdmin, StoreError,
};
use crate::release::{Release, ReleaseState};
use crate::run::journal;

/// How long one migration takes.
const MIGRATION: Duration = Duration::from_millis(100);

#[async_trait]
impl ReleaseStore for Sim {
    async fn list(&self) -> Result<Vec<Release>> {
        self.enter("list", "releases").await?;
        Ok(self.state().world.releases.clone())
    }

    async fn create(&self, release: &Release, fence: Fence) -> Result<()> {
        let subject = format!("release {}", release.number);
        self.enter("create", &subject).await?;
        self.change("create", &subject, Some(fence), |world, _| {
            if release.number != world.highest + 1 {
                let reason = format!("the next number is {}", world.highest + 1);
                return Err(OrchestratorError::new(ErrorKind::Conflict, "create", &subject, reason));
            }
            world.highest = release.number;
            world.releases.push(release.clone());
            Ok(((), Some(format!("create {subject}"))))
        })
        .await
    }

    async fn mark(&self, number: u32, state: ReleaseState, note: Option<String>, fence: Fence) -> Result<()> {
        let subject = format!("release {number}");
        self.enter("mark", &subject).await?;
        self.change("mark", &subject, Some(fence), |world, _| {
            let Some(kept) = world.releases.iter_mut().find(|release| release.number == number) else {
                return Err(unknown("mark", &subject));
            };
            let same = kept.state == state && kept.note == note;
            kept.state = state;
            kept.note = note;
            Ok(((), (!same).then(|| format!("mark {subject} {}", state.word()))))
        })
        .await
    }

    async fn set_head(&self, number: u32, fence: Fence) -> Result<()> {
        let subject = format!("release {number}");
        self.enter("set_head", &subject).await?;
        self.change("set_head", &subject, Some(fence), |world, _| {
            if !world.releases.iter().any(|release| release.number == number) {
                return Err(unknown("set_head", &subject));
            }
            let same = world.head == Some(number);
            world.head = Some(number);
            Ok(((), (!same).then(|| format!("head {subject}"))))
        })
        .await
    }

    async fn next_number(&self) -> Result<u32> {
        self.enter("next_number", "releases").await?;
        Ok(self.state().world.highest + 1)
    }

    async fn prune(&self, keep: usize, fence: Fence) -> Result<Vec<u32>> {
        self.enter("prune", "releases").await?;
        self.change("prune", "releases", Some(fence), |world, _| {
            let verified = world.releases.iter().filter(|release| release.state == ReleaseState::Verified);
            let verified = verified.map(|release| release.number).max();
            let newest = world.releases.len().saturating_sub(keep);
            let (head, mut gone, mut at) = (world.head, Vec::new(), 0);
            world.releases.retain(|release| {
                at += 1;
                let stays = at > newest || [head, verified].contains(&Some(release.number));
                if !stays {
                    gone.push(release.number);
                }
                stays
            });
            let effect = (!gone.is_empty()).then(|| format!("prune {gone:?}"));
            Ok((gone, effect))
        })
        .await
    }
}

fn unknown(operation: &'static str, subject: &str) -> OrchestratorError {
    OrchestratorError::new(ErrorKind::NotFound, operation, subject, "no such release is kept")
}

#[async_trait]
impl OverrideStore for Sim {
    async fn list(&self) -> Result<Vec<Override>> {
        self.enter("list", "overrides").await?;
        Ok(self.state().world.overrides.clone())
    }

    async fn put(&self, entry: &Override, fence: Fence) -> Result<()> {
        self.enter("put", &entry.id).await?;
        self.change("put", &entry.id, Some(fence), |world, _| {
            world.overrides.retain(|kept| kept.id != entry.id);
            world.overrides.push(entry.clone());
            Ok(((), Some(format!("override {}", entry.id))))
        })
        .await
    }

    async fn end(&self, id: &str, fence: Fence) -> Result<bool> {
        self.enter("end", id).await?;
        self.change("end", id, Some(fence), |world, _| {
            let before = world.overrides.len();
            world.overrides.retain(|kept| kept.id != id);
            let ended = world.overrides.len() < before;
            Ok((ended, ended.then(|| format!("end override {id}"))))
        })
        .await
    }
}

#[async_trait]
impl StoreAdmin for Sim {
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError> {
        let service = &migration.id.name;
        self.enter("migrations", service).await.map_err(|error| refused("read the migrations of", error))?;
        let state = self.state();
        let applied = state.world.migrations.get(service).map_or(&[][..], Vec::as_slice);
        let told = files(migration)?.into_iter().map(|file| {
            let kept = applied.iter().find(|kept| kept.version == file.version);
            MigrationState {
                service: service.clone(),
                version: file.version,
                changed: kept.is_some_and(|kept| kept.digest != Digest::of(file.up.as_bytes())),
                name: file.name,
                applied_at: kept.map(|kept| kept.at),
            }
        });
        Ok(told.collect())
    }

    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let service = &migration.id.name;
        let mut versions = Vec::new();
        let script = &self.0.script;
        let files = files(migration)?;
        for file in &files {
            let subject = format!("{service} {:04}_{}", file.version, file.name);
            let kept = self.state().world.migrations.get(service).cloned().unwrap_or_default();
            if kept.iter().any(|kept| kept.version == file.version) {
                continue;
            }
            self.enter("migrate", service).await.map_err(|error| refused("migrate", error))?;
            tokio::time::sleep(MIGRATION).await;
            lease.renew().await.map_err(|error| refused("migrate", error))?;
            let at = self.now();
            let applied = self.change("migrate", service, Some(lease.fence()), |world, now_ms| {
                let digest = Digest::of(file.up.as_bytes());
                let kept = world.migrations.entry(service.clone()).or_default();
                kept.push(AppliedMigration { version: file.version, name: file.name.clone(), digest, at });
                if files.iter().all(|file| kept.iter().any(|kept| kept.version == file.version)) {
                    world.settle(script, now_ms, migration);
                }
                Ok((file.version, Some(format!("migrate {subject}"))))
            });
            versions.push(applied.await.map_err(|error| refused("migrate", error))?);
        }
        Ok(versions)
    }

    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError> {
        let service = &migration.id.name;
        self.enter("roll_back", service).await.map_err(|error| refused("roll back", error))?;
        let files = files(migration)?;
        let mut versions = Vec::new();
        for _ in 0..steps {
            let kept = self.state().world.migrations.get(service).and_then(|kept| kept.last().cloned());
            let Some(kept) = kept else { break };
            if !files.iter().any(|file| file.version == kept.version && file.down.is_some()) {
                return Err(StoreError {
                    operation: "roll back",
                    subject: format!("{service} {:04}_{}", kept.version, kept.name),
                    reason: "the release has no way back for it".to_owned(),
                    unreachable: false,
                });
            }
            lease.renew().await.map_err(|error| refused("roll back", error))?;
            self.change("roll_back", service, Some(lease.fence()), |world, _| {
                world.migrations.entry(service.clone()).or_default().pop();
                Ok(((), Some(format!("roll back {service} {:04}_{}", kept.version, kept.name))))
            })
            .await
            .map_err(|error| refused("roll back", error))?;
            versions.push(kept.version);
        }
        Ok(versions)
    }
}

fn refused(operation: &'static str, error: OrchestratorError) -> StoreError {
    let unreachable = error.is_transient();
    StoreError { operation, subject: error.subject, reason: error.reason, unreachable }
}

fn files(migration: &Item) -> Result<Vec<MigrationFile>, StoreError> {
    let files = migration.payload.get("files").cloned().unwrap_or_default();
    serde_json::from_value(files).map_err(|error| StoreError {
        operation: "read the migrations of",
        subject: migration.id.to_string(),
        reason: error.to_string(),
        unreachable: false,
    })
}

/// The journal of one run, in the memory of the simulation.
#[derive(Debug, Clone)]
pub struct SimJournal {
    sim: Sim,
    run: String,
}

impl Sim {
    /// Returns the journal of a run, to append to.
    #[must_use]
    pub fn journal(&self, run: &str) -> SimJournal {
        SimJournal { sim: self.clone(), run: run.to_owned() }
    }

    /// Returns the journal of a run as it would stand in its file.
    #[must_use]
    pub fn journal_text(&self, run: &str) -> String {
        let state = self.state();
        let lines = state.world.journals.get(run).map_or(&[][..], Vec::as_slice);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

#[async_trait]
impl Journal for SimJournal {
    async fn append(&self, line: &str) -> Result<(), JournalError> {
        tokio::task::yield_now().await;
        self.sim.pend_if_dead().await;
        {
            let mut state = self.sim.state();
            let number = state.world.journals.values().map(Vec::len).sum::<usize>() as u64 + 1;
            if self.sim.0.script.journal.fails_at.is_some_and(|at| number >= at) {
                let reason = "no space left on the device".to_owned();
                return Err(JournalError {
                    operation: "append to",
                    run: self.run.clone(),
                    reason,
                    source: None,
                });
            }
            let dies_before = matches!(state.kill, Some(KillPoint::Append(at)) if number >= at);
            let dies_after = matches!(state.kill, Some(KillPoint::Record(at)) if number >= at);
            if !dies_before {
                state.world.journals.entry(self.run.clone()).or_default().push(line.to_owned());
            }
            if dies_before || dies_after {
                self.sim.0.dead.send_replace(true);
            }
        }
        self.sim.pend_if_dead().await;
        Ok(())
    }
}

#[async_trait]
impl RunMirror for Sim {
    async fn append(&self, run: &str, line: &str) -> Result<()> {
        self.enter("mirror", run).await?;
        let follows = {
            let state = self.state();
            let last = state.world.journals.get(run).and_then(|lines| lines.last());
            journal::follows(last.map(String::as_str), line)
        };
        if !follows {
            let reason = "another process has carried this run on";
            return Err(OrchestratorError::new(ErrorKind::Conflict, "mirror", run, reason));
        }
        self.journal(run).append(line).await.map_err(|error| {
            OrchestratorError::new(ErrorKind::Unavailable, "mirror", run, error.reason.as_str())
        })
    }

    async fn read(&self, run: &str) -> Result<Option<String>> {
        self.enter("read_journal", run).await?;
        let kept = self.state().world.journals.contains_key(run);
        Ok(kept.then(|| self.journal_text(run)))
    }

    async fn list(&self) -> Result<Vec<String>> {
        self.enter("list_journals", "runs").await?;
        // Run ids sort by the time they were made.
        Ok(self.state().world.journals.keys().cloned().collect())
    }

    async fn trim(&self, run: &str) -> Result<()> {
        // Lines are kept whole here.
        self.enter("trim_journal", run).await
    }

    async fn remove(&self, run: &str) -> Result<()> {
        self.enter("remove_journal", run).await?;
        self.state().world.journals.remove(run);
        Ok(())
    }
}
