//! Puts the parts together: setup, load, teardown, report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mlctl_core::gate::GateResult;
use mlctl_core::ports::{LoadError, LoadFault, LoadReport, LoadRequest, LoadRunner, LoadTick};
use mlctl_core::run::CancelToken;
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;

use crate::engine::{self, Ended, Load};
use crate::origin::Origin;
use crate::recorder::Recorder;
use crate::schedule::Schedule;
use crate::script::Script;
use crate::session::Session;
use crate::template::Values;
use crate::verdict::{Evidence, limits};

/// Due requests that may wait for a connection, unless told otherwise.
const BACKLOG: usize = 4096;

/// Sends load profiles over HTTP/1.1, on the runtime it is called on.
#[derive(Debug, Clone)]
pub struct HttpLoadRunner {
    keep_alive: bool,
    allowed_hosts: BTreeSet<String>,
    backlog: usize,
}

impl Default for HttpLoadRunner {
    fn default() -> Self {
        Self { keep_alive: true, allowed_hosts: BTreeSet::new(), backlog: BACKLOG }
    }
}

impl HttpLoadRunner {
    /// Returns a runner that keeps connections open and loads this machine only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether a connection serves many requests, or each request opens one of its own.
    #[must_use]
    pub const fn with_keep_alive(mut self, keep_alive: bool) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Allows a host, as it stands in the base URL, that is not on this machine.
    #[must_use]
    pub fn allowing_host(mut self, host: impl Into<String>) -> Self {
        self.allowed_hosts.insert(host.into());
        self
    }

    /// Sets how many due requests may wait for a connection; more are counted as not sent.
    #[must_use]
    pub const fn with_backlog(mut self, backlog: usize) -> Self {
        self.backlog = backlog;
        self
    }

    /// Binds the mix to what the setup saved and runs the schedule.
    async fn load(
        &self,
        request: &LoadRequest,
        script: &Script,
        session: &Session<'_>,
        recorder: Arc<Mutex<Recorder>>,
        tick: &(dyn Fn(LoadTick) + Send + Sync),
        cancel: &CancelToken,
    ) -> Result<Ended, String> {
        let profile = &request.profile;
        let origin = session.origin.clone();
        let mix = (script.mix.iter())
            .map(|entry| entry.bind(&session.values, &origin.prefix, &origin.host, self.keep_alive))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| e.to_string())?;
        let weights = WeightedIndex::new(profile.mix.iter().map(|entry| entry.weight))
            .map_err(|_| "the mix is empty, or no entry of it has a weight".to_owned())?;
        let load = Load {
            schedule: schedule_of(request),
            mix,
            weights,
            seed: request.seed,
            connections: usize::try_from(profile.connections).unwrap_or(usize::MAX).max(1),
            backlog: self.backlog,
            timeout: profile.timeout.get(),
            keep_alive: self.keep_alive,
            origin,
        };
        Ok(engine::run(load, recorder, tick, cancel).await)
    }
}

fn schedule_of(request: &LoadRequest) -> Schedule {
    let profile = &request.profile;
    Schedule::new(profile.rate.per_second(), profile.warmup.get(), profile.duration.get())
}

#[async_trait]
impl LoadRunner for HttpLoadRunner {
    async fn run(
        &self,
        request: &LoadRequest,
        tick: &(dyn Fn(LoadTick) + Send + Sync),
        cancel: &CancelToken,
    ) -> Result<LoadReport, LoadError> {
        let failed = |fault, reason: String| LoadError { base: request.base.clone(), fault, reason };
        let unfit = |reason: String| failed(LoadFault::Profile, reason);
        let profile = &request.profile;
        // All that can be known to be wrong is found before anything is sent.
        let script = Script::compile(profile).map_err(|e| unfit(e.to_string()))?;
        if profile.mix.is_empty() {
            return Err(unfit("its mix is empty".to_owned()));
        }
        if let Some(name) = script.secrets().find(|name| !request.secrets.contains_key(*name)) {
            return Err(unfit(format!("it uses the secret `{name}`, and the target has none of that name")));
        }
        let client = |reason: String| failed(LoadFault::Client, reason);
        let origin =
            Origin::resolve(&request.base, &self.allowed_hosts).await.map_err(|e| client(e.to_string()))?;
        let recorder = Recorder::new(script.mix.len(), limits(&profile.thresholds))
            .map_err(|e| client(format!("no memory for its histograms ({e})")))?;
        let recorder = Arc::new(Mutex::new(recorder));

        let values = Values { variables: BTreeMap::new(), secrets: request.secrets.clone() };
        let random = StdRng::seed_from_u64(request.seed);
        let mut session = Session::new(&origin, profile.timeout.get(), values, random);
        let ended = match session.setup(&script.setup, cancel).await {
            Ok(true) => {
                let load = self.load(request, &script, &session, Arc::clone(&recorder), tick, cancel);
                load.await.map_err(|reason| (LoadFault::Profile, reason))
            }
            Ok(false) => Ok(Ended { interrupted: true, measured: Duration::ZERO }),
            Err(error) => Err((error.fault(), format!("setup {error}"))),
        };
        // Whatever came of it: what the setup made is removed.
        let left = session.teardown(&script.teardown).await;
        match ended {
            Ok(ended) => Ok(report(request, &recorder.lock(), &ended, left)),
            Err((fault, reason)) => {
                let left = left.iter().map(|result| format!("; teardown {}", result.got)).collect::<String>();
                Err(failed(fault, format!("{reason}{left}")))
            }
        }
    }
}

fn report(request: &LoadRequest, recorder: &Recorder, ended: &Ended, left: Vec<GateResult>) -> LoadReport {
    let profile = &request.profile;
    let names: Vec<String> = profile.mix.iter().map(|entry| entry.name.clone()).collect();
    let seconds = ended.measured.as_secs_f64();
    let evidence = Evidence {
        recorder,
        names: &names,
        planned: schedule_of(request).measured_requests(),
        seconds,
        interrupted: ended.interrupted,
    };
    // The verdicts stand in the order of the thresholds; what the teardown left behind comes after them.
    let mut verdicts: Vec<_> = profile.thresholds.iter().map(|threshold| evidence.judge(threshold)).collect();
    verdicts.extend(left);
    let total = &recorder.total;
    LoadReport {
        offered_per_second: schedule_of(request).rate(),
        achieved_per_second: if seconds > 0.0 { total.succeeded() as f64 / seconds } else { 0.0 },
        due: total.count,
        sent: total.count - total.not_sent,
        succeeded: total.succeeded(),
        failures: recorder.failures.iter().map(|(class, count)| (class.to_string(), *count)).collect(),
        total: total.report(),
        endpoints: names.iter().cloned().zip(recorder.entries.iter().map(|tally| tally.report())).collect(),
        client_lateness_p99_us: recorder.lateness_p99_us(),
        verdicts,
        interrupted: ended.interrupted,
        seconds,
    }
}
