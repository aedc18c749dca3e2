//! The runs of replicas: their starts, their news, their ends.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use super::probe::{self, Report};
use super::replica::{Replica, State};
use super::supervisor::{Message, Supervisor};
use crate::process::{Process, kill_orphans};
use crate::record::{ExitRecord, Intent, ReplicaFolder, ShimStatus};
use crate::{AgentError, disk};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

impl Supervisor {
    pub(super) fn take_report(&mut self, name: &str, run: u64, report: Report) {
        let Some(replica) = self.replicas.get_mut(name).filter(|r| r.run == run && r.state == State::Running)
        else {
            return;
        };
        let service = replica.record.service.clone();
        match report {
            Report::Ready => {
                // An adopted replica counts as ready since before.
                replica.ready_at.get_or_insert_with(Instant::now);
                replica.answer = None;
                replica.since = Timestamp::now();
                self.events.note(&service, Some(name), "ready", "answers its readiness probe");
            }
            Report::NotReady(answer) => {
                let answer = with_reason(replica, answer);
                if replica.ready_at.take().is_some() {
                    replica.since = Timestamp::now();
                    self.events.note(&service, Some(name), "not_ready", answer.clone());
                }
                replica.answer = Some(answer);
            }
            Report::Sick(answer) => {
                let answer = with_reason(replica, answer);
                self.events.note(&service, Some(name), "unhealthy", format!("{answer}; it is started again"));
                replica.record.sick = Some(answer);
                replica.signal_end();
            }
        }
    }

    pub(super) fn take_end(&mut self, name: &str, run: u64) {
        let Some(replica) = self.replicas.get_mut(name).filter(|r| r.run == run) else { return };
        let ours = replica.shim;
        if let Some(status) = running(&replica.folder).filter(|status| Some(status.shim) != ours) {
            // A shim of an earlier agent held the folder; ours was refused and ended.
            take_over(replica, &status, &self.tell);
            return;
        }
        if let Some(shim) = disk::holder(&replica.folder.shim_lock()).filter(|shim| Some(*shim) != ours) {
            follow(replica, shim, &self.tell);
            return;
        }
        // A program that ends at once is gone before anybody looks whether it has begun.
        let begun =
            if matches!(replica.state, State::Starting { .. }) { replica.has_started() } else { None };
        if let Some(status) = begun {
            self.note_start(name, &status);
        }
        let Some(replica) = self.replicas.get_mut(name) else { return };
        let exit = end_of_run(&replica.folder, ours, replica.left);
        let words = exit.words();
        let reason = match replica.record.intent {
            Intent::Run if exit.oom => "oom",
            Intent::Run => "exited",
            _ => "stopped",
        };
        let service = replica.record.service.clone();
        replica.ended(exit);
        self.events.note(&service, Some(name), reason, words);
    }

    /// Tells that a program has begun; and, once in the agent's life, in which way limits are approximate here.
    fn note_start(&mut self, name: &str, status: &ShimStatus) {
        let Some(replica) = self.replicas.get(name) else { return };
        let port = replica.record.port.map(|port| format!(" on port {port}")).unwrap_or_default();
        let news = status.approximate.as_ref().filter(|note| !self.approximate.contains(*note));
        let note = news.map(|note| format!("; {note}")).unwrap_or_default();
        let service = replica.record.service.clone();
        let text = format!("process {}{port}{note}", status.program.pid);
        self.approximate.extend(news.cloned());
        self.events.note(&service, Some(name), "started", text);
    }

    /// Takes note that a program has ended. Its shim ends within moments and tells how; one that hangs does neither, and
    /// the zombie it has not waited for serves nobody.
    pub(super) fn take_program_end(&mut self, name: &str, run: u64) {
        // A shim that has ended has told already.
        if let Some(replica) = self.replicas.get_mut(name).filter(|r| r.run == run && r.shim.is_some()) {
            replica.program_ended();
        }
    }

    /// Starts what is due, follows what has started, kills what does not end.
    pub(super) fn follow_runs(&mut self, now: Instant) {
        let names: Vec<String> = self.replicas.keys().cloned().collect();
        for name in names {
            let Some(replica) = self.replicas.get_mut(&name) else { continue };
            if replica.state == State::Running && replica.note_health(now) {
                let service = replica.record.service.clone();
                self.events.note(&service, Some(&name), "available", "stayed ready");
            }
            match replica.state {
                State::Starting { deadline } if replica.shim.is_some() => {
                    if let Some(status) = replica.has_started() {
                        watch_program(replica, &self.tell);
                        replica.prober = Some(probe_of(replica, &self.tell, false));
                        self.note_start(&name, &status);
                    } else if deadline <= now {
                        let service = replica.record.service.clone();
                        let text = "its shim does not tell of its program; it is killed";
                        self.events.note(&service, Some(&name), "hangs", text);
                        replica.kill();
                    }
                }
                State::BackOff { until } if until <= now && self.stopping.is_empty() => {
                    replica.record.restarts += 1;
                    replica.record.restarts_in_row += 1;
                    self.start(&name);
                }
                State::Stopping { deadline } if deadline <= now => replica.kill(),
                _ => {}
            }
        }
    }

    /// Starts a run of a replica.
    pub(super) fn start(&mut self, name: &str) {
        let taken = self.ports();
        let relay = self.relay.socket().to_owned();
        let Some(replica) = self.replicas.get_mut(name) else { return };
        if let Some(status) = running(&replica.folder) {
            // An earlier agent had started it and died before its shim could tell: it must not be started twice.
            take_over(replica, &status, &self.tell);
            return;
        }
        if let Some(shim) = disk::holder(&replica.folder.shim_lock()) {
            follow(replica, shim, &self.tell);
            return;
        }
        match replica.start(&self.layout, &relay, &taken) {
            Ok(mut child) => {
                let (tell, name, run) = (self.tell.clone(), name.to_owned(), replica.run);
                tokio::spawn(async move {
                    let _ = child.wait().await;
                    let _ = tell.send(Message::ShimEnded { replica: name, run }).await;
                });
            }
            Err(error) => {
                let reason = match &error {
                    AgentError::File { source, .. } | AgentError::Process { source, .. } => {
                        format!("{error}: {source}")
                    }
                    other => other.to_string(),
                };
                let service = replica.record.service.clone();
                replica.ended(ExitRecord::not_started(reason.clone()));
                self.events.note(&service, Some(name), "not_started", reason);
            }
        }
    }

    /// Ports that are promised to a replica or a service.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let stable = self.workloads.values().filter_map(|w| w.record.spec.port);
        let own = self.replicas.values().flat_map(|r| [r.record.port, r.record.metrics_port]).flatten();
        stable.chain(own).collect()
    }
}

/// Returns who runs in a folder now.
pub(super) fn running(folder: &ReplicaFolder) -> Option<ShimStatus> {
    let status: Option<ShimStatus> = disk::read_volatile(&folder.status()).ok().flatten();
    status.filter(ShimStatus::is_alive)
}

/// Goes on with a run that another agent has begun.
pub(super) fn take_over(replica: &mut Replica, status: &ShimStatus, tell: &mpsc::Sender<Message>) {
    replica.adopt(status);
    watch_shim(replica, status.shim, tell);
    watch_program(replica, tell);
    if replica.state == State::Running {
        replica.prober = Some(probe_of(replica, tell, replica.record.proven));
    }
}

/// Goes on with a start that another agent has begun: its shim has not told of its program yet.
pub(super) fn follow(replica: &mut Replica, shim: Process, tell: &mpsc::Sender<Message>) {
    replica.expect(shim);
    watch_shim(replica, shim, tell);
}

fn watch_shim(replica: &Replica, shim: Process, tell: &mpsc::Sender<Message>) {
    let (tell, name, run) = (tell.clone(), replica.name.clone(), replica.run);
    tokio::spawn(async move {
        shim.ended().await;
        let _ = tell.send(Message::ShimEnded { replica: name, run }).await;
    });
}

fn watch_program(replica: &Replica, tell: &mpsc::Sender<Message>) {
    let Some(program) = replica.program else { return };
    let (tell, name, run) = (tell.clone(), replica.name.clone(), replica.run);
    tokio::spawn(async move {
        program.ended().await;
        let _ = tell.send(Message::ProgramEnded { replica: name, run }).await;
    });
}

/// Adds to a bad answer what the system knows about its reason: a program without a descriptor left accepts no
/// connection, and can hardly say so itself.
fn with_reason(replica: &Replica, answer: String) -> String {
    match replica.program.and_then(Process::descriptors) {
        Some((open, limit)) if open >= limit => {
            format!("{answer}; all {limit} file descriptors it may have are open")
        }
        _ => answer,
    }
}

/// Begins to probe a replica.
pub(super) fn probe_of(
    replica: &Replica,
    tell: &mpsc::Sender<Message>,
    started: bool,
) -> tokio::task::AbortHandle {
    let (tell, name, run) = (tell.clone(), replica.name.clone(), replica.run);
    let (health, port) = (replica.record.spec.health.clone(), replica.probe_port());
    let report = move |report| {
        let (tell, replica) = (tell.clone(), name.clone());
        async move {
            let _ = tell.send(Message::Report { replica, run, report }).await;
        }
    };
    tokio::spawn(probe::watch(health, port, started, report)).abort_handle()
}

/// Reads how a run ended. A shim that was killed has left no word, and perhaps processes that its program started:
/// `shim` is the one we started, which may not have come as far as telling its name.
pub(super) fn end_of_run(
    folder: &ReplicaFolder,
    shim: Option<Process>,
    left: Option<ExitStatus>,
) -> ExitRecord {
    if let Some(exit) = disk::read_volatile(&folder.exit()).ok().flatten() {
        return exit;
    }
    let status: Option<ShimStatus> = disk::read_volatile(&folder.status()).ok().flatten();
    let known = status.filter(ShimStatus::is_of_this_boot).map(|status| status.shim);
    for shim in known.into_iter().chain(shim).filter(|shim| !shim.is_alive()) {
        kill_orphans(shim);
    }
    ExitRecord::unrecorded(left)
}
