//! The open loop: offers every request when it is due, to a bounded number of connections and a bounded backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mlctl_core::ports::LoadTick;
use mlctl_core::run::{CancelLevel, CancelToken};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout_at};

use crate::connection::{Link, drain, send};
use crate::failure::Failure;
use crate::origin::Origin;
use crate::recorder::{Outcome, Recorder, Sent};
use crate::schedule::Schedule;
use crate::script::Prepared;

/// What a run needs, unchanging while it lasts.
pub(crate) struct Load {
    pub(crate) origin: Origin,
    pub(crate) schedule: Schedule,
    /// The entries of the mix and how they are drawn.
    pub(crate) mix: Vec<Prepared>,
    pub(crate) weights: WeightedIndex<u32>,
    pub(crate) seed: u64,
    /// Connections open at most.
    pub(crate) connections: usize,
    /// Due requests that may wait for a connection at most.
    pub(crate) backlog: usize,
    /// How long an answer may take after sending, and how long a due request may wait to be sent.
    pub(crate) timeout: Duration,
    pub(crate) keep_alive: bool,
}

/// One request that has become due.
#[derive(Clone, Copy)]
struct Slot {
    index: u64,
    due: Instant,
    /// When a connection was free for it: what comes later is the client's doing.
    free: Instant,
}

/// Connections and what waits for them.
#[derive(Default)]
struct Pool {
    busy: usize,
    /// First in, first out, so that all connections, and the backends behind them, are used alike.
    idle: VecDeque<Link>,
    waiting: VecDeque<Slot>,
}

struct Shared {
    load: Load,
    recorder: Arc<Mutex<Recorder>>,
    pool: Mutex<Pool>,
}

/// How a run ended.
pub(crate) struct Ended {
    /// True when it was cut short.
    pub(crate) interrupted: bool,
    /// How long the measured part lasted.
    pub(crate) measured: Duration,
}

/// Runs the schedule to its end and waits for the last answers, counting them in `recorder`. The first step of cancelling ends the schedule and
/// still waits for what is under way; the second drops that too.
pub(crate) async fn run(
    load: Load,
    recorder: Arc<Mutex<Recorder>>,
    tick: &(dyn Fn(LoadTick) + Send + Sync),
    cancel: &CancelToken,
) -> Ended {
    let schedule = load.schedule;
    let shared = Arc::new(Shared { load, recorder, pool: Mutex::default() });
    let mut workers = JoinSet::new();
    let start = Instant::now();
    let end = start + schedule.length();

    let mut ticks = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let tell = || tick(shared.tick(start.elapsed()));

    let mut next = 0;
    let mut interrupted = false;
    loop {
        let due = schedule.due(next).map(|after| start + after);
        tokio::select! {
            biased;
            () = cancel.at_least(CancelLevel::AfterStep) => {
                interrupted = true;
                break;
            }
            _ = ticks.tick() => tell(),
            () = sleep_until(due.unwrap_or(end)) => match due {
                Some(due) => {
                    shared.offer(next, due, &mut workers);
                    next += 1;
                }
                // The last slot has been offered and its share of the time is over.
                None => break,
            },
        }
        while workers.try_join_next().is_some() {}
    }
    let stopped = if interrupted { Instant::now().min(end) } else { end };

    if interrupted {
        // Nobody sends these any more, and that is not the server's doing: they were never due.
        shared.pool.lock().waiting.clear();
    }
    loop {
        tokio::select! {
            biased;
            () = cancel.at_least(CancelLevel::Now) => {
                interrupted = true;
                break;
            }
            _ = ticks.tick() => tell(),
            joined = workers.join_next() => if joined.is_none() { break },
        }
    }
    workers.shutdown().await;

    let measured = stopped.saturating_duration_since(start + schedule.warmup());
    Ended { interrupted, measured }
}

impl Shared {
    /// Hands a due request to a connection, to the backlog, or to nobody.
    fn offer(self: &Arc<Self>, index: u64, due: Instant, workers: &mut JoinSet<()>) {
        let slot = Slot { index, due, free: due };
        let mut pool = self.pool.lock();
        if pool.busy < self.load.connections {
            pool.busy += 1;
            let link = pool.idle.pop_front();
            workers.spawn(Arc::clone(self).work(slot, link));
        } else if pool.waiting.len() < self.load.backlog {
            pool.waiting.push_back(slot);
        } else {
            drop(pool);
            self.give_up(slot, Duration::ZERO);
        }
    }

    /// Sends one request after the other over one connection, as long as any waits.
    async fn work(self: Arc<Self>, mut slot: Slot, mut link: Option<Link>) {
        loop {
            self.perform(slot, &mut link).await;
            if !self.load.keep_alive {
                link = None;
            }
            match self.next_or_rest(&mut link) {
                Some(next) => slot = next,
                None => break,
            }
        }
    }

    /// Takes the next waiting request that somebody would still wait for, or lays the connection aside. Both happen
    /// under one lock: a request that begins to wait in between would wait for nobody.
    fn next_or_rest(&self, link: &mut Option<Link>) -> Option<Slot> {
        let mut pool = self.pool.lock();
        while let Some(slot) = pool.waiting.pop_front() {
            let now = Instant::now();
            let age = now.saturating_duration_since(slot.due);
            if age < self.load.timeout {
                return Some(Slot { free: now, ..slot });
            }
            // Sending what everybody has given up would only be a burst on a server that recovers.
            self.give_up(slot, age);
        }
        pool.busy -= 1;
        pool.idle.extend(link.take());
        None
    }

    fn give_up(&self, slot: Slot, age: Duration) {
        self.recorder.lock().record(&Outcome {
            entry: self.entry_of(&mut self.random_of(slot)),
            measured: self.load.schedule.is_measured(slot.index),
            response: age,
            sent: None,
            failure: Some(Failure::NotSent),
        });
    }

    /// Sends one request, waits for its answer and counts it.
    async fn perform(&self, slot: Slot, link: &mut Option<Link>) {
        let started = Instant::now();
        let mut random = self.random_of(slot);
        let entry = self.entry_of(&mut random);
        let exchange = self.exchange(entry, slot, &mut random, link);
        let failure = match timeout_at(started + self.load.timeout, exchange).await {
            Ok(done) => done.err(),
            Err(_) => Some(Failure::Timeout),
        };
        if failure.is_some() {
            // Whatever state the connection is in, the next request does not inherit it.
            *link = None;
        }
        let now = Instant::now();
        self.recorder.lock().record(&Outcome {
            entry,
            measured: self.load.schedule.is_measured(slot.index),
            response: now.saturating_duration_since(slot.due),
            sent: Some(Sent {
                service: now.saturating_duration_since(started),
                lateness: started.saturating_duration_since(slot.free),
            }),
            failure,
        });
    }

    async fn exchange(
        &self,
        entry: usize,
        slot: Slot,
        random: &mut StdRng,
        link: &mut Option<Link>,
    ) -> Result<(), Failure> {
        let prepared = self.load.mix.get(entry).ok_or(Failure::InvalidRequest)?;
        let request = prepared.request(slot.index, random).ok_or(Failure::InvalidRequest)?;
        let response = send(&self.load.origin, link, request).await?;
        let status = response.status();
        drain(response).await?;
        if prepared.expect.matches(status.as_u16()) {
            Ok(())
        } else if status.is_client_error() || status.is_server_error() {
            Err(Failure::Status(status.as_u16()))
        } else {
            Err(Failure::UnexpectedStatus)
        }
    }

    /// Returns the random numbers of one request: they depend on the seed and its index, not on who was faster.
    fn random_of(&self, slot: Slot) -> StdRng {
        StdRng::seed_from_u64(self.load.seed ^ slot.index.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn entry_of(&self, random: &mut StdRng) -> usize {
        self.load.weights.sample(random)
    }

    fn tick(&self, elapsed: Duration) -> LoadTick {
        let mut recorder = self.recorder.lock();
        LoadTick {
            elapsed_ms: millis(elapsed),
            total_ms: millis(self.load.schedule.length()),
            sent: recorder.all_sent,
            failed: recorder.all_failed,
            p99_us: recorder.take_second_p99_us(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
