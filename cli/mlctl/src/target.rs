//! Target: one orchestrator with everything a command may want of it, behind core's ports.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mlctl_core::clock::SystemClock;
use mlctl_core::item::{Item, ItemKind};
use mlctl_core::ports::{
    Inspector, Lease, LoadRunner, MigrationState, Orchestrator, OverrideStore, ReleaseStore, RunMirror,
    StoreAdmin, StoreError,
};
use mlctl_core::sim::{ScriptError, Sim};
use mlctl_targets::local::Local;

use crate::store::private_file;

/// A target as commands see it.
#[derive(Clone)]
pub struct Target {
    /// Its name, as `--target` says it.
    pub name: String,
    /// True for the embedded target, where nobody has to be asked before a deploy.
    pub embedded: bool,
    /// Changes it.
    pub orchestrator: Arc<dyn Orchestrator>,
    /// Reads it.
    pub inspector: Arc<dyn Inspector>,
    /// Keeps its releases.
    pub releases: Arc<dyn ReleaseStore>,
    /// Keeps its overrides.
    pub overrides: Arc<dyn OverrideStore>,
    /// Keeps copies of journals.
    pub mirror: Arc<dyn RunMirror>,
    /// Runs migrations.
    pub stores: Arc<dyn StoreAdmin>,
    /// Sends load through its public front.
    pub load: Arc<dyn LoadRunner>,
    /// The embedded target itself, for what no other target can be asked: to end its supervisor.
    pub local: Option<Arc<Local>>,
    /// The simulated target's memory, for the length of the command.
    #[expect(dead_code, reason = "held, not read: what it keeps is written when it is dropped")]
    pub(crate) memory: Option<Arc<SimMemory>>,
}

/// Keeps the world of a simulated target from one command to the next, beside the state of runs.
pub(crate) struct SimMemory {
    sim: Sim,
    path: PathBuf,
}

impl SimMemory {
    /// Takes the simulation up where the command before left it, or begins it.
    pub(crate) fn open(script: &str, path: PathBuf) -> Result<Self, ScriptError> {
        let sim = match std::fs::read_to_string(&path) {
            Ok(saved) => Sim::restore(script, &saved)?,
            Err(_) => Sim::from_toml(script)?,
        };
        Ok(Self { sim, path })
    }

    /// Returns the simulation.
    pub(crate) const fn sim(&self) -> &Sim {
        &self.sim
    }
}

impl Drop for SimMemory {
    fn drop(&mut self) {
        // A simulation that forgets is a nuisance, not a failure of the command; half of one would be no world at all.
        let Ok(saved) = self.sim.save() else { return };
        let beside = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let written = private_file(&beside, OpenOptions::new().write(true).truncate(true))
            .and_then(|mut file| file.write_all(saved.as_bytes()))
            .and_then(|()| std::fs::rename(&beside, &self.path));
        if written.is_err() {
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// Runs migrations by the kind of store they belong to.
pub struct Stores {
    sqlite: mlctl_stores::SqliteStore,
    postgres: mlctl_stores::PostgresStore,
    /// Knows the passwords that releases do not hold.
    target: Arc<dyn Inspector>,
}

impl Stores {
    /// Returns what runs the migrations of a target's databases.
    pub(crate) fn of_target(target: Arc<dyn Inspector>) -> Self {
        Self {
            sqlite: mlctl_stores::SqliteStore::new(Arc::new(SystemClock)),
            postgres: mlctl_stores::PostgresStore::new(Arc::new(SystemClock)),
            target,
        }
    }

    fn of(&self, migration: &Item) -> Result<&dyn StoreAdmin, StoreError> {
        debug_assert_eq!(migration.id.kind, ItemKind::Migration);
        let url = migration.payload.get("url").and_then(serde_json::Value::as_str).unwrap_or_default();
        if url.starts_with("sqlite:") {
            return Ok(&self.sqlite);
        }
        if url.starts_with("postgresql:") {
            return Ok(&self.postgres);
        }
        let scheme = url.split(':').next().unwrap_or_default().to_owned();
        Err(StoreError {
            operation: "migrate",
            subject: migration.id.name.clone(),
            reason: format!("this version of mlctl has no adapter for `{scheme}:` databases"),
            unreachable: false,
        })
    }

    /// Returns the item with the password in the address of its database: a release holds the name of the secret only.
    async fn opened<'a>(&self, migration: &'a Item) -> Result<Cow<'a, Item>, StoreError> {
        let text = |key: &str| migration.payload.get(key).and_then(serde_json::Value::as_str);
        let (Some(secret), Some(url)) = (text("password"), text("url")) else {
            return Ok(Cow::Borrowed(migration));
        };
        let failed = |reason: String| StoreError {
            operation: "open the database of",
            subject: migration.id.to_string(),
            reason,
            unreachable: true,
        };
        let value = self.target.secret(secret).await.map_err(|error| failed(error.to_string()))?;
        let value = value.ok_or_else(|| failed(format!("secret {secret} has no value: deploy again")))?;
        let (before, after) = url.split_once('@').unwrap_or((url, ""));
        let mut item = migration.clone();
        item.payload["url"] = format!("{before}:{}@{after}", value.expose()).into();
        Ok(Cow::Owned(item))
    }
}

#[async_trait]
impl StoreAdmin for Stores {
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError> {
        let store = self.of(migration)?;
        store.migrations(self.opened(migration).await?.as_ref()).await
    }

    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError> {
        let store = self.of(migration)?;
        store.migrate(self.opened(migration).await?.as_ref(), lease).await
    }

    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError> {
        let store = self.of(migration)?;
        store.roll_back(self.opened(migration).await?.as_ref(), steps, lease).await
    }
}
