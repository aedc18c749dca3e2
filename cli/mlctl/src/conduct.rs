//! Carries a plan out for a command: lock, journal, readers, signals, summary. Every mutation goes through here.

mod line;

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mlctl_core::clock::{Clock as _, SystemClock};
use mlctl_core::event::{EventSink, Fanout};
use mlctl_core::plan::Plan;
use mlctl_core::ports::{ErrorKind, Lease, LockRequest};
use mlctl_core::run::{CancelLevel, CancelToken, Canceller, Ports, RunRequest, execute};

use crate::error::{CommandError, ExitStatus};
use crate::lock::{self, Held, Kept, judged, keep};
use crate::output::{Printer, report};
use crate::session::Session;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::store::{Elsewhere, EvidenceFolder, Kept as KeptJournal, KeptRun, kept_run};

/// What a command wants carried out.
pub struct Conduct<'a> {
    /// The session.
    pub session: &'a Session,
    /// The settings.
    pub settings: &'a Settings,
    /// The printer.
    pub printer: &'a Printer,
    /// How long to wait in line for a taken lock; none = not at all.
    wait_lock: Option<Duration>,
    /// The lock, from the end of the line until a run takes it over.
    held: Mutex<Option<Held>>,
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
        let (held, signals) = (Mutex::default(), Signals::hear()?);
        Ok(Self { session, settings, printer, wait_lock, held, signals })
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

    /// Takes the lock, unless it is held already, sees that the world is still the plan's, and carries the plan out.
    ///
    /// # Errors
    /// A lock that is taken, a world that moved, a journal that cannot be opened. A run that fails is no error here:
    /// its outcome is the status.
    pub async fn carry_out(&self, plan: &Plan) -> Result<ExitStatus, CommandError> {
        let held = self.begin(&plan.operation).await?;
        let result = self.planned(plan, &held, held.lease.as_ref()).await;
        release_on_error(held.lease.as_ref(), result).await
    }

    /// Carries a plan out as [`Self::carry_out`] does, and then, when all went well, does the rest under the same lock.
    ///
    /// # Errors
    /// As [`Self::carry_out`]; those of the rest.
    pub async fn carry_out_and(
        &self,
        plan: &Plan,
        rest: impl AsyncFnOnce(&dyn Lease) -> Result<(), CommandError>,
    ) -> Result<ExitStatus, CommandError> {
        let held = self.begin(&plan.operation).await?;
        let lease = held.lease.as_ref();
        let result = match self.planned(plan, &held, &Kept(lease)).await {
            Ok(ExitStatus::Done) => self.under(lease, &plan.operation, rest).await.map(|()| ExitStatus::Done),
            other => other,
        };
        // What was done is done; a lease that is not given back expires by itself.
        let _ = lease.release().await;
        result
    }

    /// Makes the files of a run and takes its lock.
    async fn begin(&self, operation: &str) -> Result<Held, CommandError> {
        let runs = &self.session.runs;
        if let Some(held) = self.take_held() {
            let begun = runs.begin(&held.run).map(|()| ExitStatus::Done);
            release_on_error(held.lease.as_ref(), begun).await?;
            return Ok(held);
        }
        let run = self.session.next_run().await?;
        runs.begin(&run)?;
        let lease = self.lock(operation, &run).await.inspect_err(|_| runs.forget(&run))?;
        Ok(Held { run, lease })
    }

    async fn planned(&self, plan: &Plan, held: &Held, lease: &dyn Lease) -> Result<ExitStatus, CommandError> {
        let guarded = async {
            let now = self.session.observe().await?;
            if now.fingerprint() != plan.base {
                return Err(CommandError::refused(
                    "the target has changed since the plan was made; nothing was done",
                )
                .hint("plan again: the same command once more, or a new plan file by `mlctl deploy --dry-run --out FILE`"));
            }
            self.run(&held.run, plan, None, lease).await
        };
        guarded.await.inspect_err(|_| self.session.runs.forget(&held.run))
    }

    /// Carries an interrupted run on, from its mirrored journal.
    ///
    /// # Errors
    /// As [`Self::carry_out`]; the world may have moved, each step probes it anew.
    pub async fn resume(&self, kept: &KeptRun) -> Result<ExitStatus, CommandError> {
        let replay = &kept.replay;
        self.session.runs.agrees(&replay.run, &kept.text)?;
        self.session.runs.begin(&replay.run)?;
        let lease = match self.take_held() {
            Some(held) => {
                let named = held.lease.belongs_to(&replay.run).await;
                let named = named.map(|()| ExitStatus::Done).map_err(CommandError::from);
                release_on_error(held.lease.as_ref(), named).await?;
                held.lease
            }
            None => {
                let lease = self.lock(&replay.plan.operation, &replay.run).await;
                lease.inspect_err(|_| self.session.runs.forget(&replay.run))?
            }
        };
        let result = self.carry_on(kept, lease.as_ref()).await;
        release_on_error(lease.as_ref(), result).await
    }

    /// Carries a run on, if nobody did so between the look at its journal and the lock.
    async fn carry_on(&self, kept: &KeptRun, lease: &dyn Lease) -> Result<ExitStatus, CommandError> {
        let run = &kept.replay.run;
        let now = kept_run(self.session.target.mirror.as_ref(), run).await?;
        if !matches!(now, Some(KeptJournal::Run(now)) if now.text == kept.text) {
            return Err(CommandError::refused(format!("resume run {run}: another process went on with it"))
                .hint("`mlctl runs` says how it ended; `mlctl deploy` plans anew"));
        }
        self.run(run, &kept.replay.plan, Some(kept), lease).await
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
        // A backlog takes longer than a lease lives.
        let trouble = tokio::select! {
            trouble = session.runs.prune(run, elsewhere, SystemClock.now()) => trouble,
            lost = keep(lease) => return Err(lost),
        };
        trouble.iter().for_each(|text| printer.warning(text));
        printer.world().note_change();
        let so_far = kept.map(|kept| kept.text.as_str()).unwrap_or_default();
        let journal = session.runs.journal(run, so_far, Arc::clone(&session.target.mirror))?;
        let events = session.runs.events(run)?;
        let state = report::Fold::default();
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
        // Whoever slept since it took the lock learns here that it is another's by now.
        lease.renew().await?;
        let seed = kept.map_or_else(rand::random, |kept| kept.replay.seed);
        let request = RunRequest {
            run,
            operator: &self.settings.operator,
            plan,
            seed,
            replay: kept.map(|kept| &kept.replay),
            total: self.settings.timeout.into_iter().chain(plan.deadline_ms.map(Duration::from_millis)).min(),
            lease,
            lease_ttl: lock::TTL,
            journal: &journal,
            sink: &keeper,
            cancel: &cancel,
        };
        let report = tokio::select! {
            report = execute(&request, ports) => report,
            never = self.pass_on(&plan.operation, &canceller) => match never {},
        };
        if let Some(text) = journal.incomplete() {
            printer.warning(&text);
        }
        let state = state.into_state();
        let unverified = plan
            .release
            .as_ref()
            .filter(|release| release.creates && !plan.verifies)
            .map(|release| release.number);
        let stores = plan.release.as_ref().and_then(|release| report::stores(&release.desired));
        let known = report::Known { front: session.front().await, unverified, stores };
        report::summary(printer, &state, &known);
        // What the last event says, so that it and the process cannot differ.
        let exit = state.finish.map(|finish| finish.exit);
        Ok(match ExitStatus::from(report.outcome) {
            _ if exit == Some(ExitStatus::Terminated as u8) => ExitStatus::Terminated,
            status => status,
        })
    }

    /// Passes signals on to what can be stopped in two steps, and says what comes of it.
    async fn pass_on(&self, operation: &str, canceller: &Canceller) -> Infallible {
        let carry_on = self.printer.hint(report::carry_on(operation));
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
        work: impl AsyncFnOnce(&dyn Lease) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let Held { lease, .. } = match (self.take_held(), self.wait_lock) {
            (Some(held), _) => held,
            (None, Some(wait)) => self.stand_in_line(operation, wait).await?,
            (None, None) => {
                let run = self.session.next_run().await?;
                Held { lease: self.lock(operation, &run).await?, run }
            }
        };
        let lease = lease.as_ref();
        self.printer.world().note_change();
        let result = self.under(lease, operation, work).await;
        let result = match result {
            Err(error) => Err(judged(lease, error).await),
            done => done,
        };
        // What was done is done; a lease that is not given back expires by itself.
        let _ = lease.release().await;
        result
    }

    /// Works while the lease is renewed, until it is lost or somebody insists on stopping.
    async fn under<T>(
        &self,
        lease: &dyn Lease,
        operation: &str,
        work: impl AsyncFnOnce(&dyn Lease) -> Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        let (canceller, cancel) = Canceller::new();
        tokio::select! {
            result = work(lease) => result,
            lost = keep(lease) => Err(lost),
            error = insisted(operation, &cancel) => Err(error),
            never = self.pass_on(operation, &canceller) => match never {},
        }
    }

    /// Takes the lease; says who holds it and since when if it cannot be had.
    async fn lock(&self, operation: &str, run: &str) -> Result<Arc<dyn Lease>, CommandError> {
        let orchestrator = self.session.target.orchestrator.as_ref();
        match orchestrator.lock(&self.request(operation, run)).await {
            Ok(lease) => Ok(lease.into()),
            Err(error) if error.kind == ErrorKind::Conflict => {
                Err(lock::taken(&orchestrator.lock_state().await?, &error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn request(&self, operation: &str, run: &str) -> LockRequest {
        let process = mlctl_agent::Process::own();
        LockRequest {
            operation: operation.to_owned(),
            operator: self.settings.operator.clone(),
            run: run.to_owned(),
            pid: process.pid,
            pid_start: process.start,
            ttl: lock::TTL,
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
