//! Releases, one file each, and which one is the head.

use std::path::PathBuf;

use async_trait::async_trait;
use mlctl_core::local_protocol::StateChange;
use mlctl_core::ports::{ErrorKind, Fence, OrchestratorError, ReleaseStore, Result};
use mlctl_core::release::{Release, ReleaseHead, ReleaseState};
use serde::{Deserialize, Serialize};

use super::{Local, files, lease};

/// What is known of releases besides themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    /// The one that runs.
    head: Option<u32>,
    /// The highest number ever given; it is never given again, even when its release is forgotten.
    highest: u32,
}

impl Local {
    fn releases(&self) -> PathBuf {
        self.layout.root().join("releases")
    }

    fn release_file(&self, number: u32) -> PathBuf {
        self.layout.root().join(relative(number))
    }

    fn ledger(&self) -> Result<Ledger> {
        let mut ledger: Ledger = files::read_json(&self.layout.root().join(LEDGER))?.unwrap_or_default();
        // Killed between a record and the ledger, a process leaves the record alone; its number is given all the same.
        ledger.highest = ledger.highest.max(self.numbers()?.last().copied().unwrap_or_default());
        Ok(ledger)
    }

    fn release(&self, number: u32, operation: &'static str) -> Result<Release> {
        files::read_json(&self.release_file(number))?.ok_or_else(|| {
            let reason = "there is no such release; `mlctl history` lists those that are kept";
            OrchestratorError::new(ErrorKind::NotFound, operation, format!("release {number}"), reason)
        })
    }

    fn numbers(&self) -> Result<Vec<u32>> {
        let names = files::names(&self.releases())?;
        let mut numbers: Vec<u32> =
            names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Returns the head in short.
    pub(super) fn head(&self) -> Result<Option<ReleaseHead>> {
        match self.ledger()?.head {
            Some(number) => Ok(files::read_json::<Release>(&self.release_file(number))?.map(|r| r.head())),
            None => Ok(None),
        }
    }

    /// Changes what is kept, behind the fence. What the changes were made from was read before: as long as the fence
    /// holds, nobody else has changed it.
    async fn keep_releases(
        &self,
        operation: &'static str,
        subject: &str,
        fence: Fence,
        changes: Vec<StateChange>,
    ) -> Result<()> {
        lease::keep(&self.client, operation, subject, fence, changes).await
    }
}

/// The ledger's file, in the state folder.
const LEDGER: &str = "head.json";

fn relative(number: u32) -> String {
    format!("releases/{number}.json")
}

fn subject(number: u32) -> String {
    format!("release {number}")
}

#[async_trait]
impl ReleaseStore for Local {
    async fn list(&self) -> Result<Vec<Release>> {
        self.numbers()?.into_iter().map(|number| self.release(number, "read")).collect()
    }

    async fn create(&self, release: &Release, fence: Fence) -> Result<()> {
        let operation = "create";
        // Whoever lost the lease learns that, and not that its number was given to another.
        self.keep_releases(operation, &subject(release.number), fence, Vec::new()).await?;
        let mut ledger = self.ledger()?;
        if release.number <= ledger.highest {
            let reason = format!("that number was given before; the next one is {}", ledger.highest + 1);
            let subject = subject(release.number);
            return Err(OrchestratorError::new(ErrorKind::Conflict, operation, subject, reason));
        }
        ledger.highest = release.number;
        // The record first: killed between the two, the same run finds it, and no other is given its number.
        let record = files::change(&relative(release.number), release)?;
        let changes = vec![record, files::change(LEDGER, &ledger)?];
        self.keep_releases(operation, &subject(release.number), fence, changes).await
    }

    async fn mark(&self, number: u32, state: ReleaseState, note: Option<String>, fence: Fence) -> Result<()> {
        let mut release = self.release(number, "mark")?;
        (release.state, release.note) = (state, note);
        let change = files::change(&relative(number), &release)?;
        self.keep_releases("mark", &subject(number), fence, vec![change]).await
    }

    async fn set_head(&self, number: u32, fence: Fence) -> Result<()> {
        self.release(number, "make head of")?;
        let ledger = Ledger { head: Some(number), ..self.ledger()? };
        let change = files::change(LEDGER, &ledger)?;
        self.keep_releases("make head of", &subject(number), fence, vec![change]).await
    }

    async fn next_number(&self) -> Result<u32> {
        Ok(self.ledger()?.highest + 1)
    }

    async fn prune(&self, keep: usize, fence: Fence) -> Result<Vec<u32>> {
        let all = ReleaseStore::list(self).await?;
        let head = self.ledger()?.head;
        let verified = all.iter().rev().find(|r| r.state == ReleaseState::Verified).map(|r| r.number);
        let newest = all.len().saturating_sub(keep);
        let stays = |index: usize, release: &Release| {
            index >= newest || head == Some(release.number) || verified == Some(release.number)
        };
        let (kept, gone): (Vec<_>, Vec<_>) =
            all.iter().enumerate().partition(|(index, release)| stays(*index, release));
        let forgotten = gone.iter().map(|(_, release)| relative(release.number));
        let kept: Vec<_> = kept.into_iter().map(|(_, release)| &release.desired).collect();
        let unused = self.unused_artifacts(&kept)?;
        let changes = forgotten.chain(unused).map(|path| StateChange::Remove { path }).collect();
        self.keep_releases("forget", "releases", fence, changes).await?;
        Ok(gone.into_iter().map(|(_, release)| release.number).collect())
    }
}
