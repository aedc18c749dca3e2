//! How a new table comes in: the file is looked at four times a second and at `SIGHUP`.
//!
//! A valid table replaces the present one in one step: requests that began keep the table they began with. An
//! invalid one changes nothing but the log and the `routes` check in `/health`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use service_kit::health::Check;
use service_kit::{Kit, Shutdown};
use tokio::signal::unix::{SignalKind, signal};

use crate::metrics::GatewayMetrics;
use crate::table::{Table, TableError};

/// The routes file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The file cannot be read.
    #[error("cannot read the routes file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Its content is no valid table.
    #[error("the routes file {} is invalid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TableError,
    },
}

/// What tells one version of the file from another: renamed into place, or written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The present table and the file it comes from; cheap to clone.
#[derive(Clone, Debug)]
pub struct Routes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    /// The version read last, valid or not.
    read: RwLock<Stamp>,
}

impl Routes {
    /// Reads the first table.
    ///
    /// # Errors
    /// [`RoutesError`] when the file is missing or invalid.
    pub async fn load(path: &Path) -> Result<Self, RoutesError> {
        let (stamp, text) = read(path).await?;
        let table = parse(path, &text)?;
        tracing::info!(table = %table.summary(), "routes loaded");
        let (table, read) = (RwLock::new(Arc::new(table)), RwLock::new(stamp));
        Ok(Self(Arc::new(Inner { path: path.to_owned(), table, read })))
    }

    /// The present table; a request asks once and keeps what it got.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.0.table.read().clone()
    }

    /// Takes over the file when it changed, or in any case when `forced`. Answers what happened, `None` for nothing.
    async fn refresh(&self, forced: bool) -> Option<Result<Arc<Table>, RoutesError>> {
        let path = &self.0.path;
        // A file that is away for a moment is being replaced; there is nothing to say about it.
        let present = Stamp::of(&tokio::fs::metadata(path).await.ok()?);
        if !forced && present == *self.0.read.read() {
            return None;
        }
        let (stamp, text) = match read(path).await {
            Ok(read) => read,
            Err(error) => return Some(Err(error)),
        };
        *self.0.read.write() = stamp;
        Some(parse(path, &text).map(|table| {
            let table = Arc::new(table);
            *self.0.table.write() = table.clone();
            table
        }))
    }
}

/// The stamp is taken before the content, so a change in between is seen as one more change.
async fn read(path: &Path) -> Result<(Stamp, Vec<u8>), RoutesError> {
    let failed = |source| RoutesError::Read { path: path.to_owned(), source };
    let stamp = Stamp::of(&tokio::fs::metadata(path).await.map_err(failed)?);
    Ok((stamp, tokio::fs::read(path).await.map_err(failed)?))
}

fn parse(path: &Path, text: &[u8]) -> Result<Table, RoutesError> {
    Table::parse(text).map_err(|source| RoutesError::Invalid { path: path.to_owned(), source })
}

/// The task that keeps the table fresh.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) routes: Routes,
    pub(crate) check: Check,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) kit: Kit,
}

impl Watcher {
    /// Looks every `period` and at every hang-up signal until the drain.
    pub(crate) async fn watch(self, period: Duration, shutdown: Shutdown) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let forced = tokio::select! {
                () = shutdown.draining() => return,
                () = tokio::time::sleep(period) => false,
                () = received(hangup.as_mut()) => true,
            };
            match self.routes.refresh(forced).await {
                None => {}
                Some(Ok(table)) => self.taken(&table),
                Some(Err(error)) => self.refused(&error),
            }
        }
    }

    fn taken(&self, table: &Table) {
        tracing::info!(table = %table.summary(), "routes replaced");
        table.announce(&self.kit);
        self.metrics.reloaded("taken");
        self.metrics.show_maintenance(table.maintenance.is_some());
        self.check.good();
        self.check.detail(table.summary());
    }

    fn refused(&self, error: &RoutesError) {
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, cause, "the new routes file is refused, the present table stays");
        self.metrics.reloaded("refused");
        self.check.failing("the last routes file was refused; the table before it stays");
    }
}

async fn received(hangup: Option<&mut tokio::signal::unix::Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
