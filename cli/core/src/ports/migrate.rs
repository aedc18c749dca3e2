//! Stores: migrations as text of a release, and who runs them.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Lease;
use crate::item::Item;

/// One numbered migration of a service, both ways, as text of the release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationFile {
    /// Its number, from 1.
    pub version: u32,
    /// Its name without number and ending.
    pub name: String,
    /// SQL that goes forward.
    pub up: String,
    /// SQL that goes back; none when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
}

/// How the stores of a system are had on the local target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreMode {
    /// Files of the embedded adapters; nothing installed.
    #[default]
    Embedded,
    /// Servers found on the machine, or named by the target.
    Real,
}

impl StoreMode {
    /// Returns the word of the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Real => "real",
        }
    }

    /// Says whether nothing but files is needed.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// One migration of a database and whether it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationState {
    /// The service it belongs to.
    pub service: String,
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// When it was applied; none = pending.
    pub applied_at: Option<jiff::Timestamp>,
    /// True when the applied text is not the release's.
    pub changed: bool,
}

/// A store that refused, or a migration that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}: {reason}")]
pub struct StoreError {
    /// The verb: `migrate`, `roll back`, `read the migrations of`.
    pub operation: &'static str,
    /// The service and migration.
    pub subject: String,
    /// Why.
    pub reason: String,
    /// True when the store did not answer, as opposed to refused.
    pub unreachable: bool,
}

/// Runs migrations of a release on the store they belong to.
#[async_trait]
pub trait StoreAdmin: Send + Sync {
    /// Tells each migration of the item and whether it is in.
    async fn migrations(&self, migration: &Item) -> Result<Vec<MigrationState>, StoreError>;
    /// Applies what is pending, in order, each in a transaction of its own; returns the versions applied.
    ///
    /// A store knows no fence, so each transaction renews the lease as its last act before it commits, and commits
    /// nothing when that fails.
    async fn migrate(&self, migration: &Item, lease: &dyn Lease) -> Result<Vec<u32>, StoreError>;
    /// Takes back the last `steps` applied ones, under the same rule; returns the versions taken back.
    async fn roll_back(
        &self,
        migration: &Item,
        steps: u32,
        lease: &dyn Lease,
    ) -> Result<Vec<u32>, StoreError>;
}
