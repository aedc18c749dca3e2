//! Carries a plan out for a command: lock, journal, readers, signals, summary. Every mutation goes through here.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mlctl_core::clock::{Clock as _, SystemClock};
use mlctl_core::event::{Event, EventSink, Fanout};
use mlctl_core::plan::Plan;
use mlctl_core::ports::{ErrorKind, Lease, LockHolder, LockRequest, Orchestrator};
use mlctl_core::run::{CancelLevel, CancelToken, Canceller, Ports, RunRequest, RunState, execute};

use crate::error::{CommandError, ExitStatus};
use crate::output::{Printer, report};
use crate::session::Session;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::store::{Elsewhere, EvidenceFolder, KeptRun};

/// How long the lease lives without renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(15);
/// Between two tries for a taken lock.
const LOCK_POLL: Duration = Duration::from_millis(500);

/// What a command wants carried out.
pub struct Conduct<'a> {
    /// The session.
    pub session: &'a Session,
    /// The settings.
    pub settings: &'a Settings,
    /// The printer.
    pub printer: &'a Printer,
    /// How long [`Conduct::wait_in_line`] waits for a taken lock; none = not at all.
    wait_lock: Option<Duration>,
    signals: Signals,
}

impl<'a> Conduct<'a> {
    /// Makes ready: from here on signals are heard, and no longer end the process by themselves.
    ///
    /// # Errors
    /// Signals that cannot be heard.
    pub fn new(
        session: &'a Session,
        settings: &'a Settings,
        printer: &'a Printer,
        wait_lock: Option<Duration>,
    ) -> Result<Self, CommandError> {
        Ok(Self { session, settings, printer, wait_lock, signals: Signals::hear()? })
    }

    /// Does what comes before a run, such as a build, a plan or a question, until somebody wants to stop.
    ///
    /// # Errors
    /// Those of the work; a wish to stop.
    pub async fn unless_asked<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        self.signals.unless_asked(operation, work).await
    }

    /// Waits for what a change leads to, until somebody wants to stop waiting.
    ///
    /// # Errors
    /// Those of the wait; a wish to stop.
    pub async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        self.signals.unless_stopped(work).await
    }

    /// Takes the lock, sees that the world is still the plan's, and carries the plan out.
    ///
    /// # Errors
    /// A lock that is taken, a world that moved, a journal that cannot be opened. A run that fails is no error here:
    /// its outcome is the status.
    pub async fn carry_out(&self, plan: &Plan) -> Result<ExitStatus, CommandError> {
        let run = ulid::Ulid::new().to_string();
        let runs = &self.session.runs;
        runs.begin(&run)?;
        let lease = self.lock(&plan.operation, &run).await.inspect_err(|_| runs.forget(&run))?;
        let guarded = async {
            let now = self.session.observe().await?;
            if now.fingerprint() != plan.base {
                return Err(CommandError::refused(
                    "the target has changed since the plan was made; nothing was done",
                )
                .hint("plan again: run the same command once more"));
            }
            self.run(&run, plan, None, lease.as_ref()).await
        };
        let result = guarded.await.inspect_err(|_| runs.forget(&run));
        release_on_error(lease.as_ref(), result).await
    }

    /// Carries an interrupted run on, from its mirrored journal.
    ///
    /// # Errors
    /// As [`Self::carry_out`]; the world may have moved, each step probes it anew.
    pub async fn resume(&self, kept: &KeptRun) -> Result<ExitStatus, CommandError> {
        let replay = &kept.replay;
        self.session.runs.agrees(&replay.run, &kept.text)?;
        self.session.runs.begin(&replay.run)?;
        let lease = self.lock(&replay.plan.operation, &replay.run).await?;
        let result = self.run(&replay.run, &replay.plan, Some(kept), lease.as_ref()).await;
        release_on_error(lease.as_ref(), result).await
    }

    async fn run(
        &self,
        run: &str,
        plan: &Plan,
        kept: Option<&KeptRun>,
        lease: &dyn Lease,
    ) -> Result<ExitStatus, CommandError> {
        let (session, printer) = (self.session, self.printer);
        let target = &session.target;
        let elsewhere = Elsewhere {
            mirror: target.mirror.as_ref(),
            releases: target.releases.as_ref(),
            orchestrator: target.orchestrator.as_ref(),
        };
        let trouble = session.runs.prune(run, elsewhere, SystemClock.now()).await;
        trouble.iter().for_each(|text| printer.warning(text));
        let so_far = kept.map(|kept| kept.text.as_str()).unwrap_or_default();
        let journal = session.runs.journal(run, so_far, Arc::clone(&session.target.mirror))?;
        let events = session.runs.events(run)?;
        let state = StateSink::default();
        let reader = report::reader(printer);
        let github = report::GitHub::in_workflow(printer);
        let mut sinks: Vec<&dyn EventSink> = vec![&events, &state, reader.as_ref()];
        if let Some(github) = &github {
            sinks.push(github);
        }
        let fanout = Fanout(sinks);
        let warn = |text: &str| printer.warning(text);
        let keeper = EvidenceFolder::new(session.runs.evidence(run), &fanout, &warn);
        let (canceller, cancel) = Canceller::new();
        let ports = Ports {
            orchestrator: target.orchestrator.as_ref(),
            inspector: target.inspector.as_ref(),
            releases: target.releases.as_ref(),
            stores: target.stores.as_ref(),
            load: target.load.as_ref(),
            clock: &SystemClock,
        };
        let seed = kept.map_or_else(rand::random, |kept| kept.replay.seed);
        let request = RunRequest {
            run,
            operator: &self.settings.operator,
            plan,
            seed,
            replay: kept.map(|kept| &kept.replay),
            total: self.settings.timeout.into_iter().chain(plan.deadline_ms.map(Duration::from_millis)).min(),
            lease,
            lease_ttl: LEASE_TTL,
            journal: &journal,
            sink: &keeper,
            cancel: &cancel,
        };
        let report = tokio::select! {
            report = execute(&request, ports) => report,
            never = self.pass_on(&plan.operation, &canceller) => match never {},
        };
        let state = state.into_state();
        report::summary(printer, &state, session.front().await.as_deref());
        // What the last event says, so that it and the process cannot differ.
        let exit = state.finish.map(|finish| finish.exit);
        Ok(match ExitStatus::from(report.outcome) {
            _ if exit == Some(ExitStatus::Terminated as u8) => ExitStatus::Terminated,
            status => status,
        })
    }

    /// Passes signals on to what can be stopped in two steps, and says what comes of it.
    async fn pass_on(&self, operation: &str, canceller: &Canceller) -> Infallible {
        let carry_on = report::carry_on(operation);
        let tell = |level| {
            self.printer.warning(&match level {
                CancelLevel::AfterStep => {
                    format!("stopping after this step; once more stops at once ({carry_on})")
                }
                _ => format!("stopping now; what is under way is recorded ({carry_on})"),
            });
        };
        self.signals.pass_on(canceller, tell).await
    }

    /// Makes a change that is no run, such as an override or a migration, while holding the target's lease.
    ///
    /// # Errors
    /// A lock that is taken or lost, what the work says, a second wish to stop (the first lets the work finish).
    pub async fn with_lease<T>(
        &self,
        operation: &str,
        work: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        self.unless_asked(operation, self.wait_in_line()).await?;
        let lease = self.lock(operation, &ulid::Ulid::new().to_string()).await?;
        let (canceller, cancel) = Canceller::new();
        let result = tokio::select! {
            result = work => result,
            lost = keep(lease.as_ref()) => Err(lost),
            error = insisted(operation, &cancel) => Err(error),
            never = self.pass_on(operation, &canceller) => match never {},
        };
        // What was done is done; a lease that is not given back expires by itself.
        let _ = lease.release().await;
        result
    }

    /// Waits until nobody holds the lock, when told to wait. To be called before anything is planned: what the other
    /// run changes is then in the plan.
    ///
    /// # Errors
    /// A lock that is still taken when the time is over.
    pub async fn wait_in_line(&self) -> Result<(), CommandError> {
        let Some(wait) = self.wait_lock else { return Ok(()) };
        let until = tokio::time::Instant::now() + wait;
        let mut told = None;
        while let Some(holder) = self.session.target.orchestrator.lock_holder().await? {
            let now = tokio::time::Instant::now();
            if now >= until {
                return Err(taken(Some(&holder), "the target is locked"));
            }
            let run = holder.request.run.clone();
            if told.as_ref() != Some(&run) {
                let left = until.saturating_duration_since(now).as_secs();
                self.printer
                    .status(&format!("waiting up to {left} s for the lock: {}", sentence(Some(&holder))));
                told = Some(run);
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
        Ok(())
    }

    /// Takes the lease; says who holds it and since when if it cannot be had.
    async fn lock(&self, operation: &str, run: &str) -> Result<Box<dyn Lease>, CommandError> {
        let process = mlctl_agent::Process::own();
        let request = LockRequest {
            operation: operation.to_owned(),
            operator: self.settings.operator.clone(),
            run: run.to_owned(),
            pid: process.pid,
            pid_start: process.start,
            ttl: LEASE_TTL,
        };
        let orchestrator = self.session.target.orchestrator.as_ref();
        match orchestrator.lock(&request).await {
            Ok(lease) => Ok(lease),
            Err(error) if error.kind == ErrorKind::Conflict => {
                Err(taken(orchestrator.lock_holder().await?.as_ref(), &error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Renews a lease for ever; returns only when it is lost.
async fn keep(lease: &dyn Lease) -> CommandError {
    let mut held_until = tokio::time::Instant::now() + LEASE_TTL;
    loop {
        tokio::time::sleep(LEASE_TTL / 3).await;
        match lease.renew().await {
            Ok(()) => held_until = tokio::time::Instant::now() + LEASE_TTL,
            Err(error) if error.kind == ErrorKind::LeaseLost || tokio::time::Instant::now() >= held_until => {
                return error.into();
            }
            Err(_) => {}
        }
    }
}

/// Waits for the second wish to stop.
async fn insisted(operation: &str, cancel: &CancelToken) -> CommandError {
    cancel.at_least(CancelLevel::Now).await;
    let status = if cancel.by_system() { ExitStatus::Terminated } else { ExitStatus::Interrupted };
    CommandError::new(status, format!("{operation}: stopped half-way"))
        .hint("`mlctl status` and `mlctl db status` show what is there")
}

/// Gives the lease back when the run never began; the engine does it otherwise.
async fn release_on_error(
    lease: &dyn Lease,
    result: Result<ExitStatus, CommandError>,
) -> Result<ExitStatus, CommandError> {
    if result.is_err() {
        // What matters is the first error; an unreleased lease expires by itself.
        let _ = lease.release().await;
    }
    result
}

fn taken(holder: Option<&LockHolder>, otherwise: &str) -> CommandError {
    let text = holder
        .map_or_else(|| otherwise.to_owned(), |_| format!("the target is locked: {}", sentence(holder)));
    CommandError::new(ExitStatus::Locked, text)
        .hint("--wait-lock 5m waits in line; a lock whose owner died is free within seconds")
}

fn sentence(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(
        || "its holder just left".to_owned(),
        |holder| {
            let request = &holder.request;
            format!(
                "{} by {} (run {}, pid {}) since {}, expires {} unless renewed",
                request.operation, request.operator, request.run, request.pid, holder.since, holder.expires
            )
        },
    )
}

/// Says who holds the lock, for `runs`.
#[must_use]
pub fn holder_sentence(holder: &LockHolder) -> String {
    sentence(Some(holder))
}

/// Says who holds the lock now, for `status`.
///
/// # Errors
/// A target that does not answer.
pub async fn lock_sentence(orchestrator: &dyn Orchestrator) -> Result<Option<String>, CommandError> {
    let holder = orchestrator.lock_holder().await?;
    Ok(holder.as_ref().map(|holder| sentence(Some(holder))))
}

/// Folds events for the summary.
#[derive(Default)]
struct StateSink(std::sync::Mutex<RunState>);

impl StateSink {
    fn into_state(self) -> RunState {
        self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl EventSink for StateSink {
    fn take(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).apply(event);
    }
}
