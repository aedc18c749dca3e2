//! What is told about workloads and replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlctl_core::item::Digest;
use mlctl_core::local_protocol::{ReplicaView, SocketMode, WorkloadView};
use mlctl_core::ports::Replica as ToldReplica;
use mlctl_core::status::{Status, WorkloadStatus};
use tokio::time::Instant;

use super::diagnose::{ExitFacts, ReplicaFacts, WorkloadFacts, diagnose};
use super::replica::{Replica, State};
use super::supervisor::{Supervisor, Told};
use super::workload::{Workload, millis};

impl Supervisor {
    /// Tells all watchers what has changed.
    pub(super) fn publish(&mut self, now: Instant) {
        let views = Arc::new(Told { workloads: self.workload_views(now), retired: self.retired.clone() });
        self.views.send_if_modified(|told| {
            let news = *told != views;
            if news {
                *told = views;
            }
            news
        });
    }

    /// Returns all workloads as they stand now.
    pub(super) fn workload_views(&mut self, now: Instant) -> BTreeMap<String, WorkloadView> {
        let facts: Vec<(String, WorkloadFacts)> = self
            .workloads
            .iter()
            .map(|(name, workload)| (name.clone(), self.facts(name, workload, now)))
            .collect();
        let mut views = BTreeMap::new();
        for (name, facts) in facts {
            if let Some(workload) = self.workloads.get_mut(&name) {
                let status = workload.dated(diagnose(&facts));
                let record = &workload.record;
                let view = WorkloadView {
                    name: name.clone(),
                    digest: record.digest.clone(),
                    generation: record.generation,
                    observed_generation: workload.observed,
                    replicas: record.replicas,
                    gone: false,
                    status,
                };
                views.insert(name, view);
            }
        }
        views
    }

    fn facts(&self, name: &str, workload: &Workload, now: Instant) -> WorkloadFacts {
        let record = &workload.record;
        let replicas = self.replicas.values().filter(|r| r.record.service == name && r.state != State::Ended);
        WorkloadFacts {
            desired: self.wanted(name),
            removed: record.removed,
            port_taken: self
                .relay
                .failure(name)
                .map(|(text, since)| (text.clone(), millis(now.saturating_duration_since(*since)))),
            unserved: record.spec.port.is_some()
                && record.spec.socket != SocketMode::Own
                && !self.relay.is_in_force(),
            stalled_ms: workload.stalled_ms(now),
            progress_deadline_ms: record.spec.update.progress_deadline_ms,
            min_ready_ms: record.spec.update.min_ready_ms,
            probe_budget_ms: record.spec.health.budget_ms(),
            replicas: replicas.map(|r| self.replica_facts(r, workload, now)).collect(),
        }
    }

    fn replica_facts(&self, replica: &Replica, workload: &Workload, now: Instant) -> ReplicaFacts {
        let record = &replica.record;
        let exit = record.last_exit.as_ref().filter(|_| record.failing).map(|exit| ExitFacts {
            words: match &exit.sick {
                Some(sick) => format!("{sick}, then {}", exit.words()),
                None => exit.words(),
            },
            ran_ms: exit.ran_ms,
            oom: exit.oom,
            not_started: exit.exec_error.is_some(),
            // Asked to end by us, it has every right to.
            with_zero: exit.code == Some(0) && exit.sick.is_none(),
            left: exit.left,
            artifact_missing: exit.exec_error.is_some()
                && record.spec.artifact.as_ref().is_some_and(|a| !self.layout.artifact(a).exists()),
        });
        ReplicaFacts {
            name: replica.name.clone(),
            newest: record.revision == workload.revision,
            leaving: replica.is_leaving(),
            ready: replica.is_ready(),
            available: replica.is_available(now),
            ready_ms: replica.ready_at.map_or(0, |at| millis(now.saturating_duration_since(at))),
            restarts: record.restarts_in_row,
            exit,
            answer: replica.answer.clone(),
        }
    }

    /// Returns the replicas of one workload, or of all.
    pub(super) fn replica_views(&mut self, service: Option<&str>) -> Vec<ReplicaView> {
        self.replicas
            .values()
            .filter(|r| service.is_none_or(|s| r.record.service == s))
            .map(|replica| ReplicaView {
                replica: ToldReplica {
                    name: replica.name.clone(),
                    service: replica.record.service.clone(),
                    revision: replica.record.revision.digest.short().to_owned(),
                    outdated: self.workloads.get(&replica.record.service).is_none_or(|workload| {
                        workload.record.removed || workload.revision != replica.record.revision
                    }),
                    state: state_word(replica).to_owned(),
                    ready: replica.is_ready(),
                    restarts: replica.record.restarts,
                    since: replica.since,
                    last_exit: replica.record.last_exit.as_ref().map(crate::record::ExitRecord::words),
                    cpu_millis: replica.cpu_millis,
                    memory_bytes: replica.memory_bytes,
                },
                port: replica.record.port,
                metrics_port: replica.record.metrics_port,
                folder: replica.folder.path().to_owned(),
            })
            .collect()
    }
}

/// Returns the last view of a workload that is gone; `retired` is its last generation, if it ever was there.
pub(super) fn gone(name: &str, last: Option<&WorkloadView>, retired: Option<u64>) -> WorkloadView {
    let generation = retired.or(last.map(|view| view.generation)).unwrap_or_default();
    WorkloadView {
        name: name.to_owned(),
        digest: last.map_or_else(|| Digest::of(b""), |view| view.digest.clone()),
        generation,
        observed_generation: generation,
        replicas: 0,
        gone: true,
        status: WorkloadStatus::simple(Status::NotFound),
    }
}

fn state_word(replica: &Replica) -> &'static str {
    match replica.state {
        State::Starting { .. } => "starting",
        State::Running if replica.is_ready() => "ready",
        State::Running => "running",
        State::BackOff { .. } => "back_off",
        State::Draining { .. } => "draining",
        State::Stopping { .. } => "stopping",
        State::Ended => "exited",
    }
}
