//! One workload: what was asked, and how far its rollout has come.

use std::path::PathBuf;

use jiff::Timestamp;
use mlctl_core::local_protocol::Layout;
use mlctl_core::status::{Cause, WorkloadStatus};
use tokio::time::Instant;

use crate::record::{Revision, WorkloadRecord};
use crate::{AgentError, disk};

/// A workload as the agent drives it.
pub(super) struct Workload {
    /// What was asked; on disk too.
    pub(super) record: WorkloadRecord,
    /// The revision its replicas should be of.
    pub(super) revision: Revision,
    /// The generation that was last acted upon.
    pub(super) observed: u64,
    progress: Progress,
    cause: Option<(String, Timestamp)>,
}

/// How far a rollout has come, and when it last came further.
struct Progress {
    available: usize,
    old: usize,
    at: Instant,
}

impl Workload {
    /// Takes on what an earlier agent left, or what was just written.
    pub(super) fn new(record: WorkloadRecord) -> Self {
        let revision = record.revision();
        let progress = Progress { available: 0, old: 0, at: Instant::now() };
        Self { record, revision, observed: 0, progress, cause: None }
    }

    /// Makes a workload; it is on disk when this returns.
    pub(super) fn create(layout: &Layout, record: WorkloadRecord) -> Result<Self, AgentError> {
        write(layout, &record)?;
        Ok(Self::new(record))
    }

    /// Takes over a changed record; the clock of the rollout begins anew.
    pub(super) fn change(&mut self, layout: &Layout, record: WorkloadRecord) -> Result<(), AgentError> {
        self.keep(layout, record)?;
        self.progress.at = Instant::now();
        Ok(())
    }

    /// Takes over a changed record that asks for no rollout.
    pub(super) fn keep(&mut self, layout: &Layout, record: WorkloadRecord) -> Result<(), AgentError> {
        write(layout, &record)?;
        self.revision = record.revision();
        self.record = record;
        Ok(())
    }

    /// Takes note of how far the rollout is: one more available, or one old less, is progress. While nothing is left
    /// to do the clock stands still, or a crash after a quiet day would count as a day without progress.
    pub(super) fn note_progress(&mut self, desired: usize, available: usize, old: usize, now: Instant) {
        let is_done = available >= desired && old == 0;
        if is_done || available > self.progress.available || old < self.progress.old {
            self.progress.at = now;
        }
        (self.progress.available, self.progress.old) = (available, old);
    }

    /// Milliseconds since the rollout last came further.
    pub(super) fn stalled_ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.progress.at))
    }

    /// Adds to a status since when its cause has been the same.
    pub(super) fn dated(&mut self, mut status: WorkloadStatus) -> WorkloadStatus {
        match &mut status.cause {
            None => self.cause = None,
            Some(Cause { code, since, .. }) => {
                let (_, first) = match self.cause.take().filter(|(known, _)| known == code) {
                    Some(known) => self.cause.insert(known),
                    None => self.cause.insert((code.clone(), Timestamp::now())),
                };
                *since = Some(*first);
            }
        }
        status
    }
}

fn write(layout: &Layout, record: &WorkloadRecord) -> Result<(), AgentError> {
    disk::write_json(&path(layout, &record.spec.name), record, disk::Durability::Power)
}

/// Returns the file of a workload's record.
pub(super) fn path(layout: &Layout, name: &str) -> PathBuf {
    layout.workloads().join(format!("{name}.json"))
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use mlctl_core::item::Digest;
    use mlctl_core::local_protocol::{
        FileSpec, HealthSpec, LaterContent, Limits, ProbeProtocol, SocketMode, UpdateSpec, WorkloadSpec,
    };

    use super::*;

    /// A plain spec for tables.
    pub(in crate::agent) fn spec(name: &str) -> WorkloadSpec {
        WorkloadSpec {
            name: name.to_owned(),
            argv: vec!["true".to_owned()],
            artifact: None,
            directory: None,
            env: BTreeMap::new(),
            files: Vec::new(),
            port: None,
            socket: SocketMode::Relay,
            metrics_path: None,
            health: HealthSpec {
                protocol: ProbeProtocol::Http,
                startup: None,
                live: None,
                ready: None,
                period_ms: 100,
                timeout_ms: 100,
                failures: 2,
                grace_ms: 1_000,
            },
            update: UpdateSpec {
                surge: 1,
                unavailable: 0,
                min_ready_ms: 0,
                drain_ms: 100,
                stop_grace_ms: 100,
                stop_signal: "TERM".to_owned(),
                progress_deadline_ms: 10_000,
            },
            limits: Limits::default(),
            needs: Vec::new(),
            while_needed: false,
        }
    }

    fn record() -> WorkloadRecord {
        let (spec, digest) = (spec("api"), Digest::of(b""));
        WorkloadRecord { spec, digest, replicas: 1, generation: 1, restart: None, removed: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_rollout_is_stalled_only_while_something_is_missing() {
        let minute = std::time::Duration::from_secs(60);
        let mut workload = Workload::new(record());
        tokio::time::advance(minute).await;
        workload.note_progress(1, 0, 0, Instant::now());
        assert_eq!(workload.stalled_ms(Instant::now()), 60_000, "nothing became available");
        workload.note_progress(1, 1, 0, Instant::now());
        tokio::time::advance(minute).await;
        workload.note_progress(1, 1, 0, Instant::now());
        assert_eq!(workload.stalled_ms(Instant::now()), 0, "it is done");
        workload.note_progress(1, 0, 0, Instant::now());
        assert_eq!(workload.stalled_ms(Instant::now()), 0, "a crash begins the wait, it does not end it");
        tokio::time::advance(minute).await;
        workload.note_progress(1, 0, 0, Instant::now());
        assert_eq!(workload.stalled_ms(Instant::now()), 60_000);
    }

    #[test]
    fn a_live_file_makes_no_revision_and_all_else_does() {
        let file = |content: &str, live| FileSpec {
            name: "f".to_owned(),
            content: content.to_owned(),
            live,
            later: Vec::new(),
        };
        let revision = |change: &dyn Fn(&mut WorkloadRecord)| {
            let mut record = record();
            record.spec.files = vec![file("1", true), file("1", false)];
            change(&mut record);
            record.revision()
        };
        let plain = revision(&|_| {});
        assert_eq!(plain, revision(&|r| r.spec.files[0].content = "2".to_owned()));
        let later = LaterContent { from: Timestamp::UNIX_EPOCH, content: "3".to_owned() };
        assert_eq!(plain, revision(&|r| r.spec.files[0].later = vec![later.clone()]));
        assert_eq!(plain, revision(&|r| (r.replicas, r.generation) = (9, 9)));
        assert_ne!(plain, revision(&|r| r.spec.files[1].content = "2".to_owned()));
        assert_ne!(plain, revision(&|r| r.spec.argv.push("x".to_owned())));
        assert_ne!(plain, revision(&|r| r.restart = Some("token".to_owned())));
    }
}
