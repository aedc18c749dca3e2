//! Building: what a release is made of before a target sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{MigrationFile, StoreMode};
use crate::item::Digest;
use crate::system::System;

/// What `resolve` needs besides the system: the artifacts just built and the files beside `mlctl.yaml`.
#[derive(Debug, Clone, Default)]
pub struct ReleaseInput {
    /// Per service, the artifact that the build made.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Per service, its migrations in order.
    pub migrations: BTreeMap<String, Vec<MigrationFile>>,
    /// Images named by `--set-image`.
    pub images: BTreeMap<String, String>,
    /// How stores are had: `embedded` or `real`.
    pub stores: StoreMode,
}

/// A built program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where the build left it.
    pub path: std::path::PathBuf,
    /// Digest of its bytes.
    pub digest: Digest,
}

/// What a build says while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildLine {
    /// A command has begun, for these services.
    Started {
        /// The command, as people read it.
        command: String,
        /// The services that wait for it.
        services: Vec<String>,
    },
    /// A line of its output.
    Output(String),
    /// It ended well.
    Finished {
        /// How long it took.
        took: Duration,
    },
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
#[error("build {service}: {reason}")]
pub struct BuildError {
    /// The service.
    pub service: String,
    /// Why: the exit code and the last lines, or the missing artifact.
    pub reason: String,
    /// The last lines of its output.
    pub tail: Vec<String>,
}

/// Makes stale artifacts.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Builds every service that has a `build`, equal commands once, and returns the artifacts by service.
    async fn build(
        &self,
        system: &System,
        services: &[String],
        tell: &(dyn Fn(BuildLine) + Send + Sync),
    ) -> Result<BTreeMap<String, Artifact>, BuildError>;
}
