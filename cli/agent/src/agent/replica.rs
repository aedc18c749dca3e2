//! One replica: its shim, its state, and what is known of its health.

use std::process::ExitStatus;
use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::local_protocol::SocketMode;
use rustix::process::Signal;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::workload::Workload;
use crate::process::{Process, Usage, kill_shim};
use crate::record::{ExitRecord, Intent, ReplicaFolder, ReplicaRecord, ShimStatus};
use crate::shim::END_WAIT;
use crate::{AgentError, disk};

/// First pause before a replica that ended is started again; doubled each time.
const BACK_OFF_FIRST: Duration = Duration::from_millis(250);
/// Longest such pause.
const BACK_OFF_MOST: Duration = Duration::from_secs(30);
/// Health for so long forgives all earlier ends.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// A shim gets this much longer than its own grace before the agent kills its replica.
const SHIM_SLACK: Duration = Duration::from_secs(2);
/// How long a shim may take to tell of its program: it waits for a listening socket, and the machine may be busy.
const START_WAIT: Duration = Duration::from_secs(20);
/// How long a shim may take to tell how its program ended. It ends what the program has left first, and reads the end
/// of the log; killed before, it could tell neither what was left nor that memory ran out.
const REAP_WAIT: Duration = END_WAIT.saturating_add(Duration::from_secs(3));

/// Where a replica is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its shim was started and has not told of the program yet.
    Starting {
        /// When it is given up.
        deadline: Instant,
    },
    /// Its program runs.
    Running,
    /// It ended and will be started again.
    BackOff {
        /// When.
        until: Instant,
    },
    /// It is out of the routes and finishes what is in flight.
    Draining {
        /// When it is asked to end whatever is still open.
        deadline: Instant,
    },
    /// It was asked to end.
    Stopping {
        /// When it is killed.
        deadline: Instant,
    },
    /// It has ended for good.
    Ended,
}

/// A replica as the agent drives it.
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) folder: ReplicaFolder,
    pub(super) record: ReplicaRecord,
    pub(super) state: State,
    /// Since when it is in that state.
    pub(super) since: Timestamp,
    /// Counts its runs under this agent, so that news of an earlier run are told apart.
    pub(super) run: u64,
    pub(super) shim: Option<Process>,
    pub(super) program: Option<Process>,
    pub(super) ready_at: Option<Instant>,
    /// What it last answered in place of "ready".
    pub(super) answer: Option<String>,
    pub(super) prober: Option<AbortHandle>,
    /// How its program ended, as long as its shim has not told.
    pub(super) left: Option<ExitStatus>,
    /// True once its shim was asked to kill its run.
    killed: bool,
    sample: Option<(Instant, Usage)>,
    /// Processor use lately, in thousandths of a core.
    pub(super) cpu_millis: Option<u64>,
    /// Resident memory.
    pub(super) memory_bytes: Option<u64>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(prober) = &self.prober {
            prober.abort();
        }
    }
}

impl Replica {
    pub(super) fn new(name: String, folder: ReplicaFolder, record: ReplicaRecord) -> Self {
        let since = record.created_at;
        Self {
            name,
            folder,
            record,
            state: State::Starting { deadline: Instant::now() + START_WAIT },
            since,
            run: 0,
            shim: None,
            program: None,
            ready_at: None,
            answer: None,
            prober: None,
            left: None,
            killed: false,
            sample: None,
            cpu_millis: None,
            memory_bytes: None,
        }
    }

    /// Writes its record; a full disk costs what the next agent knows, not the replica.
    pub(super) fn save(&self) -> Result<(), AgentError> {
        disk::write_json(&self.folder.record(), &self.record, disk::Durability::Process)
    }

    pub(super) fn enter(&mut self, state: State) {
        self.state = state;
        self.since = Timestamp::now();
    }

    /// Says whether it is on its way out.
    pub(super) fn is_leaving(&self) -> bool {
        self.record.intent != Intent::Run || matches!(self.state, State::Draining { .. } | State::Ended)
    }

    /// Says whether it takes requests.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Running && self.ready_at.is_some()
    }

    /// Says whether it has been ready for long enough.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        self.is_ready() && self.available_at().is_some_and(|at| at <= now)
    }

    /// Returns when it will be available if it stays ready.
    pub(super) fn available_at(&self) -> Option<Instant> {
        self.ready_at.map(|at| at + Duration::from_millis(self.record.spec.update.min_ready_ms))
    }

    /// Returns the port its probes go to: its own, or, with a passed socket, that of its metrics.
    pub(super) fn probe_port(&self) -> Option<u16> {
        self.record.port.or(self.record.metrics_port)
    }

    pub(super) fn begin(&mut self, shim: Option<Process>) {
        self.shim = shim;
        (self.program, self.left) = (None, None);
        self.ready_at = None;
        self.answer = None;
        self.killed = false;
        self.enter(State::Starting { deadline: Instant::now() + START_WAIT });
    }

    /// Takes over a start that an earlier agent has begun.
    pub(super) fn expect(&mut self, shim: Process) {
        self.run += 1;
        self.begin(Some(shim));
        if self.record.intent != Intent::Run {
            self.signal_end();
        }
    }

    pub(super) const fn grace_ms(&self) -> u64 {
        self.record.spec.update.drain_ms.saturating_add(self.record.spec.update.stop_grace_ms)
    }

    /// Takes over a replica that an earlier agent started. One that had proven itself is taken for ready until a probe
    /// says otherwise: the routes must not lose it meanwhile.
    pub(super) fn adopt(&mut self, status: &ShimStatus) {
        self.run += 1;
        self.shim = Some(status.shim);
        self.note_program(status);
        self.killed = false;
        self.state = match self.record.intent {
            Intent::Run => State::Running,
            _ => State::Stopping { deadline: self.kill_deadline() },
        };
        self.since = status.started_at;
        if self.record.proven && self.record.intent == Intent::Run && status.program.is_alive() {
            let lasting = Duration::from_millis(self.record.spec.update.min_ready_ms);
            let now = Instant::now();
            self.ready_at = Some(now.checked_sub(lasting).unwrap_or(now));
        }
    }

    /// Reads whether the shim has started the program by now.
    pub(super) fn has_started(&mut self) -> Option<ShimStatus> {
        let status: ShimStatus = disk::read_volatile(&self.folder.status()).ok()??;
        if self.shim != Some(status.shim) {
            return None;
        }
        self.note_program(&status);
        self.enter(State::Running);
        Some(status)
    }

    /// Takes note of what a shim tells. Its ports are those its program was told, whatever we chose since.
    fn note_program(&mut self, status: &ShimStatus) {
        (self.program, self.left) = (Some(status.program), None);
        if let Some(ports) = status.ports.filter(|_| !self.record.proven) {
            (self.record.port, self.record.metrics_port) = (ports.own, ports.metrics);
        }
    }

    /// Takes note that its program has ended and its shim has not. It is given time to tell how, then killed.
    pub(super) fn program_ended(&mut self) {
        if let Some(prober) = self.prober.take() {
            prober.abort();
        }
        if matches!(self.state, State::Draining { .. }) {
            self.record.intent = Intent::Stop;
            let _ = self.save();
        }
        self.ready_at = None;
        self.left = self.program.and_then(Process::left_status);
        self.killed = true;
        self.enter(State::Stopping { deadline: Instant::now() + REAP_WAIT });
    }

    /// Begins its way out: drained first when its connections can be counted.
    pub(super) fn leave(&mut self) {
        let update = &self.record.spec.update;
        let counted = self.record.spec.socket == SocketMode::Relay && self.record.spec.port.is_some();
        match self.state {
            State::BackOff { .. } => self.end(),
            State::Running if counted && update.drain_ms > 0 => {
                let deadline = Instant::now() + Duration::from_millis(update.drain_ms);
                self.enter(State::Draining { deadline });
            }
            State::Starting { .. } | State::Running => self.stop(),
            State::Stopping { .. } | State::Draining { .. } => {
                self.record.intent = Intent::Stop;
                let _ = self.save();
            }
            State::Ended => {}
        }
        if let Some(prober) = self.prober.take() {
            prober.abort();
        }
    }

    /// Asks it to end for good, at once. Recorded first: an agent that takes over here must not start it again.
    pub(super) fn stop(&mut self) {
        self.record.intent = Intent::Stop;
        let _ = self.save();
        self.signal_end();
    }

    /// Asks its present run to end; what is wanted of it stays.
    pub(super) fn signal_end(&mut self) {
        // Drain switched off means that requests in flight are not worth waiting for.
        let signal = if self.record.spec.update.drain_ms == 0 { Signal::QUIT } else { Signal::TERM };
        self.ready_at = None;
        if let Some(shim) = self.shim {
            shim.signal(signal);
        }
        self.enter(State::Stopping { deadline: self.kill_deadline() });
    }

    /// Kills its run; the second time, a shim that does not obey.
    pub(super) fn kill(&mut self) {
        match self.shim {
            Some(shim) if self.killed => kill_shim(shim),
            Some(shim) => {
                shim.signal(Signal::QUIT);
            }
            None => {}
        }
        self.killed = true;
        self.enter(State::Stopping { deadline: Instant::now() + REAP_WAIT });
    }

    fn kill_deadline(&self) -> Instant {
        // The next one kills the shim itself when its run was to be killed already.
        let slack = if self.killed { REAP_WAIT } else { SHIM_SLACK };
        Instant::now() + Duration::from_millis(self.grace_ms()) + slack
    }

    /// Takes note that its run has ended.
    pub(super) fn ended(&mut self, mut exit: ExitRecord) {
        exit.sick = self.record.sick.take();
        if let Some(prober) = self.prober.take() {
            prober.abort();
        }
        self.shim = None;
        self.program = None;
        self.ready_at = None;
        (self.sample, self.cpu_millis, self.memory_bytes) = (None, None, None);
        self.record.last_exit = Some(exit);
        let was_draining = matches!(self.state, State::Draining { .. });
        if self.record.intent == Intent::Run && !was_draining {
            self.record.failing = true;
            let pause = back_off(self.record.restarts_in_row);
            self.enter(State::BackOff { until: Instant::now() + pause });
            let _ = self.save();
        } else {
            self.end();
        }
    }

    /// Says whether it is of a workload's newest revision.
    pub(super) fn is_of(&self, workload: &Workload) -> bool {
        self.record.service == workload.record.spec.name && self.record.revision == workload.revision
    }

    /// Forgets how it failed so far: somebody asks for it anew, so it is started at once and judged afresh.
    pub(super) fn try_again(&mut self) {
        if !self.record.failing {
            return;
        }
        self.record.failing = false;
        self.record.restarts_in_row = 0;
        if let State::BackOff { .. } = self.state {
            self.enter(State::BackOff { until: Instant::now() });
        }
        let _ = self.save();
    }

    fn end(&mut self) {
        self.record.intent = Intent::Ended;
        let _ = self.save();
        self.enter(State::Ended);
    }

    /// Takes note of what lasting health means; says whether it has just proven itself.
    pub(super) fn note_health(&mut self, now: Instant) -> bool {
        let Some(ready_at) = self.ready_at.filter(|_| self.is_available(now)) else { return false };
        let news = !self.record.proven || self.record.failing;
        self.record.proven = true;
        self.record.failing = false;
        let forgiven =
            self.record.restarts_in_row > 0 && now.saturating_duration_since(ready_at) >= FORGIVEN_AFTER;
        if forgiven {
            self.record.restarts_in_row = 0;
        }
        if news || forgiven {
            let _ = self.save();
        }
        news
    }

    /// Measures what it uses.
    pub(super) fn measure(&mut self, now: Instant) {
        let Some(usage) = self.program.and_then(Process::usage) else { return };
        self.memory_bytes = Some(usage.memory_bytes);
        if let Some((at, before)) = self.sample {
            let elapsed = super::workload::millis(now.saturating_duration_since(at));
            let used = usage.cpu_ms.saturating_sub(before.cpu_ms);
            self.cpu_millis = (used * 1000).checked_div(elapsed).or(self.cpu_millis);
        }
        self.sample = Some((now, usage));
    }
}

/// Returns how long to wait before the next start, after so many restarts in a row.
fn back_off(restarts: u32) -> Duration {
    BACK_OFF_FIRST.saturating_mul(1_u32.checked_shl(restarts).unwrap_or(u32::MAX)).min(BACK_OFF_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_half_a_minute() {
        let pauses: Vec<u128> = (0..9).map(|n| back_off(n).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(back_off(40), BACK_OFF_MOST);
    }
}
