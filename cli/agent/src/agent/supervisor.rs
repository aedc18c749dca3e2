//! Owns all state of a folder; one message at a time, then one round of [`Supervisor::reconcile`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::local_protocol::{Layout, Request, Response, SocketMode, WorkloadView};
use mlctl_core::ports::{Fence, LockRequest};
use rand::Rng as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::event_log::EventLog;
use super::lease::LeaseBook;
use super::probe::Report;
use super::relay_keeper::RelayKeeper;
use super::replica::{Replica, State};
use super::rollout::{Member, Width, decide};
use super::workload::{self, Workload};
use crate::disk;
use crate::process::Process;
use crate::record::{Intent, ReplicaFolder, ReplicaRecord};
use crate::relay::{Backend, Front};

/// Between two rounds while something moves that tells nobody: a shim that starts, connections that drain.
const MOVING: Duration = Duration::from_millis(50);
/// Between two rounds at rest: for the measuring of processor and memory use.
const RESTING: Duration = Duration::from_secs(2);
/// Ended replicas whose folders are kept, per service.
const ENDED_KEPT: usize = 5;
/// Digits of a replica's id.
const ID_DIGITS: usize = 6;
const ID_ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";

/// What reaches the supervisor.
#[derive(Debug)]
pub(super) enum Message {
    /// A client asks.
    Request {
        /// What.
        request: Request,
        /// Where the answer goes; gone when the client is.
        reply: oneshot::Sender<Response>,
    },
    /// A prober has news.
    Report {
        /// Of which replica.
        replica: String,
        /// Of which of its runs.
        run: u64,
        /// What.
        report: Report,
    },
    /// A shim has ended, and so has its replica.
    ShimEnded {
        /// Which replica.
        replica: String,
        /// Which of its runs.
        run: u64,
    },
    /// A program has ended; its shim has not yet.
    ProgramEnded {
        /// Which replica.
        replica: String,
        /// Of which of its runs.
        run: u64,
    },
    /// The relay's shim has ended.
    RelayEnded,
    /// A relay has ended, and its shim starts another.
    RelayLost {
        /// Which one.
        meeting: u64,
    },
}

/// All workloads as last told.
pub(super) type Views = Arc<Told>;

/// What watchers are told.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Told {
    /// The workloads there are.
    pub(super) workloads: BTreeMap<String, WorkloadView>,
    /// The last generations of those that were removed.
    pub(super) retired: BTreeMap<String, u64>,
}

/// All state of a folder.
pub(super) struct Supervisor {
    pub(super) layout: Layout,
    pub(super) build: String,
    pub(super) host: String,
    pub(super) lease: LeaseBook,
    pub(super) events: EventLog,
    pub(super) workloads: BTreeMap<String, Workload>,
    /// The last generations of workloads that were removed.
    pub(super) retired: BTreeMap<String, u64>,
    pub(super) replicas: BTreeMap<String, Replica>,
    pub(super) relay: RelayKeeper,
    pub(super) views: watch::Sender<Views>,
    /// Who asked the agent to end together with its replicas; nobody while it goes on.
    pub(super) stopping: Vec<oneshot::Sender<Response>>,
    /// The lease that ends then.
    pub(super) ending: Option<Fence>,
    pub(super) ended: BTreeMap<String, VecDeque<String>>,
    pub(super) measured: Instant,
    /// In which ways limits are approximate here, as told since the agent began.
    pub(super) approximate: BTreeSet<String>,
    pub(super) tell: mpsc::Sender<Message>,
}

impl Supervisor {
    /// Serves until it is asked to end, or every client and prober is gone.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        loop {
            self.reconcile().await;
            if self.is_stopping() && self.replicas.is_empty() {
                self.relay.stop().await;
                self.end_lease();
                for reply in self.stopping {
                    let _ = reply.send(Response::Done);
                }
                return;
            }
            tokio::select! {
                message = messages.recv() => match message {
                    Some(Message::Request { request: Request::Shutdown { stop_replicas: false, .. }, reply }) => {
                        let _ = reply.send(Response::Done);
                        return;
                    }
                    Some(message) => self.take(message),
                    None => return,
                },
                () = sleep_until(self.next_round()) => {}
            }
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        !self.stopping.is_empty()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request { request, reply } => self.answer(request, reply),
            Message::Report { replica, run, report } => self.take_report(&replica, run, report),
            Message::ShimEnded { replica, run } => self.take_end(&replica, run),
            Message::ProgramEnded { replica, run } => self.take_program_end(&replica, run),
            Message::RelayEnded => self.relay.has_ended(),
            Message::RelayLost { meeting } => self.relay.was_lost(meeting),
        }
    }

    /// One round: whatever is due is done, then everything is told.
    async fn reconcile(&mut self) {
        let now = Instant::now();
        self.advance_files(Timestamp::now());
        self.follow_runs(now);
        if self.is_stopping() {
            self.stop_unneeded();
        } else {
            self.roll(now);
        }
        let in_force = self.relay.sync(self.fronts()).await;
        self.finish_drains(in_force).await;
        self.forget();
        if now.saturating_duration_since(self.measured) >= RESTING {
            self.measured = now;
            self.replicas.values_mut().for_each(|r| r.measure(now));
        }
        self.publish(now);
    }

    /// Takes each workload one move further.
    fn roll(&mut self, now: Instant) {
        let names: Vec<String> = self.workloads.keys().cloned().collect();
        for name in names {
            let desired = self.wanted(&name);
            let Some(workload) = self.workloads.get_mut(&name) else { continue };
            let update = &workload.record.spec.update;
            let width = Width { surge: update.surge, unavailable: update.unavailable };
            let mut staying: Vec<&Replica> =
                self.replicas.values().filter(|r| r.record.service == name && !r.is_leaving()).collect();
            staying.sort_by(|a, b| (a.record.created_at, &a.name).cmp(&(b.record.created_at, &b.name)));
            let members: Vec<Member> = staying
                .iter()
                .map(|r| Member {
                    name: r.name.clone(),
                    newest: r.record.revision == workload.revision,
                    ready: r.is_ready(),
                    available: r.is_available(now),
                    proven: r.record.proven,
                })
                .collect();
            let available = members.iter().filter(|m| m.newest && m.available).count();
            let old = members.iter().filter(|m| !m.newest).count();
            workload.note_progress(desired as usize, available, old, now);
            workload.observed = workload.record.generation;
            let decision = decide(desired, width, &members);
            // Whoever has the port itself, and the data behind it, ends before another begins.
            let own = workload.record.spec.socket == SocketMode::Own;
            let occupied = own && self.replicas.values().any(|r| r.record.service == name && r.is_leaving());
            for _ in 0..if occupied { 0 } else { decision.create } {
                self.create(&name);
            }
            for leaving in &decision.remove {
                if let Some(replica) = self.replicas.get_mut(leaving) {
                    replica.leave();
                    self.events.note(
                        &name,
                        Some(leaving),
                        "leaving",
                        "out of the routes, finishes what is in flight",
                    );
                }
            }
        }
    }

    fn create(&mut self, service: &str) {
        let Some(workload) = self.workloads.get(service) else { return };
        let mut rng = rand::rng();
        let id: String =
            (0..ID_DIGITS).map(|_| char::from(ID_ALPHABET[rng.random_range(0..ID_ALPHABET.len())])).collect();
        let name = format!("{service}-{id}");
        let record = ReplicaRecord {
            service: service.to_owned(),
            revision: workload.revision.clone(),
            spec: workload.record.spec.clone(),
            port: None,
            metrics_port: None,
            restarts: 0,
            restarts_in_row: 0,
            created_at: Timestamp::now(),
            intent: Intent::Run,
            proven: false,
            last_exit: None,
            sick: None,
            failing: false,
        };
        let folder = ReplicaFolder(self.layout.replicas().join(&name));
        self.replicas.insert(name.clone(), Replica::new(name.clone(), folder, record));
        self.start(&name);
    }

    /// The relay's table as it should be: users meet a new replica once it is proven, not as soon as it is ready.
    /// Where nothing is proven yet, being ready has to do.
    fn fronts(&self) -> Vec<Front> {
        let now = Instant::now();
        let listening = self.workloads.iter().filter(|(_, w)| !w.record.removed && !self.is_stopping());
        listening
            .filter_map(|(name, workload)| {
                let spec = &workload.record.spec;
                let ready = || self.replicas.values().filter(|r| r.record.service == *name && r.is_ready());
                let proven = ready().any(|r| r.is_available(now));
                let backends = match spec.socket {
                    SocketMode::Own => return None,
                    SocketMode::Passed => Vec::new(),
                    SocketMode::Relay => ready()
                        .filter(|r| !proven || r.is_available(now))
                        .filter_map(|r| Some(Backend { replica: r.name.clone(), port: r.record.port? }))
                        .collect(),
                };
                Some(Front { service: name.clone(), port: spec.port?, mode: spec.socket, backends })
            })
            .collect()
    }

    /// Stops drained replicas: those without open connections, and those whose time is over.
    async fn finish_drains(&mut self, table_in_force: bool) {
        let draining = |r: &&mut Replica| matches!(r.state, State::Draining { .. });
        if self.replicas.values_mut().find(draining).is_none() {
            return;
        }
        // Without the table in force, new connections may still come; without an answer nothing is known.
        let open = if table_in_force { self.relay.open().await } else { None };
        let now = Instant::now();
        for replica in self.replicas.values_mut().filter(draining) {
            let State::Draining { deadline } = replica.state else { continue };
            let left = open.as_ref().map(|open| open.get(&replica.name).copied().unwrap_or_default());
            if left == Some(0) || deadline <= now {
                let service = replica.record.service.clone();
                let text = match left {
                    Some(0) => "no connection is open".to_owned(),
                    Some(left) => format!("its time is over with {left} connections open"),
                    None => "its time is over, the relay does not say what is open".to_owned(),
                };
                replica.stop();
                self.events.note(&service, Some(&replica.name), "drained", text);
            }
        }
    }

    /// Forgets replicas that ended for good and workloads that were removed and have none left.
    fn forget(&mut self) {
        let gone: Vec<String> =
            self.replicas.iter().filter(|(_, r)| r.state == State::Ended).map(|(n, _)| n.clone()).collect();
        for name in gone {
            let Some(replica) = self.replicas.remove(&name) else { continue };
            let kept = self.ended.entry(replica.record.service.clone()).or_default();
            kept.push_back(name);
            while kept.len() > ENDED_KEPT {
                if let Some(oldest) = kept.pop_front() {
                    let _ = std::fs::remove_dir_all(self.layout.replicas().join(oldest));
                }
            }
        }
        let left: BTreeSet<&String> = self.replicas.values().map(|r| &r.record.service).collect();
        let gone: Vec<(String, u64)> = self
            .workloads
            .iter()
            .filter(|(name, workload)| workload.record.removed && !left.contains(name))
            .map(|(name, workload)| (name.clone(), workload.record.generation))
            .collect();
        for (name, generation) in gone {
            self.retired.insert(name.clone(), generation);
            let generations = self.layout.generations();
            let written = disk::write_json(&generations, &self.retired, disk::Durability::Power)
                .and_then(|()| disk::remove(&workload::path(&self.layout, &name)));
            // What could not be written is tried again by the next round.
            if written.is_ok() {
                self.workloads.remove(&name);
            }
        }
    }

    /// When the next round is due by itself.
    fn next_round(&self) -> Instant {
        let now = Instant::now();
        let due = self.replicas.values().map(|replica| match replica.state {
            State::Starting { .. } | State::Draining { .. } => now + MOVING,
            State::BackOff { until } => until,
            State::Stopping { deadline } => deadline,
            State::Running if !replica.is_available(now) => replica.available_at().unwrap_or(now + RESTING),
            State::Running | State::Ended => now + RESTING,
        });
        due.chain([now + RESTING])
            .chain(self.relay.retry_at())
            .chain(self.next_file())
            .min()
            .unwrap_or(now + RESTING)
            .max(now + MOVING / 5)
    }

    /// Says whether the process that took a lease has ended. Only those of this machine can be known.
    pub(super) fn is_dead(host: &str, request: &LockRequest) -> bool {
        request.operator.host == host
            && request.pid_start != 0
            && !Process { pid: request.pid, start: request.pid_start }.is_alive()
    }
}
