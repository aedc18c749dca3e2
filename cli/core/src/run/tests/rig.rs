//! A small system on a simulated target, and one call that runs a plan and checks what holds of every run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::event::{Event, EventKind, EventSink, Outcome, Recorder, RunOutcome};
use crate::item::{Desired, ItemId};
use crate::plan::{Operation, Plan, PlanInput, Selection, plan};
use crate::playbook::{OnFailure, PlaybookFile};
use crate::ports::{LockRequest, MigrationFile, Orchestrator as _, ReleaseInput, ReleaseStore};
use crate::release::{Operator, ReleaseState};
use crate::run::journal::{Replay, read};
use crate::run::{CancelToken, Canceller, Ports, RunReport, RunRequest, RunState, execute};
use crate::sim::Sim;
use crate::system::SystemFile;

/// Two services beside each other, a gateway behind them, a store, a secret. Versions stand in variables.
const SHOP: &str = "
apiVersion: mlctl/v1
system: shop
services:
  user:
    command: [user]
    port: 4001
    replicas: {min: 2, max: 4}
    needs: [db]
    env: {VERSION: 'user-1', JWT: {secret: jwt}}
    health: {check: /health}
    metrics: {port: 9001, expect: [logins_total]}
    update: {progressDeadline: 30s}
  catalog:
    command: [catalog]
    port: 4002
    env: {VERSION: 'catalog-1'}
    health: {check: /health}
    routes: [{path: /api/products}]
  gateway: {command: [gateway], port: 8080, gateway: true, health: {check: /health}, needs: [user, catalog]}
stores:
  db: {kind: postgresql, version: '14'}
secrets:
  jwt: {generate: token}
kpis:
  latency: {sli: p99(http_request_duration_seconds), target: '<500ms', load: p99}
load:
  verify: {rate: 50/s, duration: 8s, warmup: 2s, mix: [{name: read, weight: 1, get: /api/products}], thresholds: [errors<1%]}
";

pub(super) struct Rig {
    pub(super) sim: Sim,
    system: String,
    migrations: u32,
    pub(super) on_failure: Option<OnFailure>,
    pub(super) selection: Selection,
    pub(super) total: Option<Duration>,
    runs: u32,
}

/// What a run told, and how it ended.
pub(super) struct Told {
    pub(super) run: String,
    pub(super) report: RunReport,
    pub(super) events: Vec<Event>,
}

impl Rig {
    pub(super) fn new(script: &str) -> Self {
        Self {
            sim: Sim::from_toml(script).unwrap(),
            system: SHOP.to_owned(),
            migrations: 1,
            on_failure: None,
            selection: Selection::All,
            total: None,
            runs: 0,
        }
    }

    /// Returns a rig on which the first versions run, verified.
    pub(super) async fn running(script: &str) -> Self {
        let mut rig = Self::new(script);
        let told = rig.deploy().await;
        assert_eq!(told.report.outcome, RunOutcome::Succeeded, "{}", told.text());
        rig
    }

    /// Changes the text of the system.
    pub(super) fn edit(&mut self, from: &str, to: &str) {
        assert!(self.system.contains(from), "{from} is not in the system");
        self.system = self.system.replace(from, to);
    }

    pub(super) fn add_migration(&mut self) {
        self.migrations += 1;
    }

    fn input(&self) -> ReleaseInput {
        let file = |version| MigrationFile {
            version,
            name: "step".to_owned(),
            up: format!("create table t{version} (id integer);"),
            down: None,
        };
        let files = (1..=self.migrations).map(file).collect();
        ReleaseInput { migrations: BTreeMap::from([("user".to_owned(), files)]), ..ReleaseInput::default() }
    }

    pub(super) async fn desired(&self) -> Desired {
        let system = SystemFile::parse("mlctl.yaml", self.system.as_bytes()).unwrap().system().unwrap();
        self.sim.resolve(&system, &self.input()).await.unwrap()
    }

    pub(super) async fn plan(&self) -> Plan {
        let system = SystemFile::parse("mlctl.yaml", self.system.as_bytes()).unwrap().system().unwrap();
        let text = crate::playbook::builtin("deploy").unwrap();
        let playbook = PlaybookFile::parse("deploy", text.as_bytes()).unwrap();
        let playbook = playbook.bind(&indexmap::IndexMap::new()).unwrap();
        let desired = self.sim.resolve(&system, &self.input()).await.unwrap();
        let mut previews = BTreeMap::new();
        for item in &desired.items {
            previews.insert(item.id.clone(), self.sim.preview(item).await.unwrap());
        }
        plan(&PlanInput {
            operation: &Operation {
                verb: "deploy".into(),
                tag: None,
                rollback_of: None,
                on_failure: self.on_failure,
            },
            target: "sim",
            system: &system,
            playbook: &playbook,
            desired: &desired,
            snapshot: &self.sim.observe().await.unwrap(),
            previews: &previews,
            releases: &ReleaseStore::list(&self.sim).await.unwrap(),
            next_number: self.sim.next_number().await.unwrap(),
            selection: &self.selection,
        })
        .unwrap()
    }

    /// Plans and runs a deploy.
    pub(super) async fn deploy(&mut self) -> Told {
        let plan = self.plan().await;
        self.carry_out(&plan).await
    }

    pub(super) async fn carry_out(&mut self, plan: &Plan) -> Told {
        self.carry_out_with(plan, &CancelToken::never(), &Recorder::default()).await
    }

    pub(super) async fn carry_out_with(
        &mut self,
        plan: &Plan,
        cancel: &CancelToken,
        sink: &dyn EventSink,
    ) -> Told {
        self.runs += 1;
        let run = format!("run-{}", self.runs);
        self.go(&run, plan, None, cancel, sink).await
    }

    /// Names the run that comes next.
    pub(super) fn next_run(&self) -> String {
        format!("run-{}", self.runs + 1)
    }

    /// Carries on a run from its journal, as another process would.
    pub(super) async fn resume(&mut self, run: &str) -> Told {
        let replay = Replay::of(read(&self.sim.journal_text(run)).unwrap()).unwrap();
        assert_eq!(replay.closed, None, "the run is over");
        let plan = replay.plan.clone();
        self.go(run, &plan, Some(&replay), &CancelToken::never(), &Recorder::default()).await
    }

    async fn go(
        &self,
        run: &str,
        plan: &Plan,
        replay: Option<&Replay>,
        cancel: &CancelToken,
        sink: &dyn EventSink,
    ) -> Told {
        let operator = Operator { name: "operator".into(), host: "host".into() };
        let ttl = Duration::from_secs(15);
        let request = LockRequest {
            operation: "deploy".into(),
            operator: operator.clone(),
            run: run.to_owned(),
            pid: 1,
            pid_start: 0,
            ttl,
        };
        let lease = self.sim.lock(&request).await.unwrap();
        let journal = self.sim.journal(run);
        let recorder = Recorder::default();
        let clock = self.sim.clock();
        let request = RunRequest {
            run,
            operator: &operator,
            plan,
            seed: 7,
            replay,
            total: self.total,
            lease: &*lease,
            lease_ttl: ttl,
            journal: &journal,
            sink: &crate::event::Fanout(vec![&recorder, sink]),
            cancel,
        };
        let ports = Ports {
            orchestrator: &self.sim,
            inspector: &self.sim,
            releases: &self.sim,
            stores: &self.sim,
            load: &self.sim,
            clock: &clock,
        };
        let report = execute(&request, ports).await;
        let told = Told { run: run.to_owned(), report, events: recorder.events() };
        told.check();
        let holder = self.sim.world().lease.map(|held| held.holder.request.run);
        if told.report.outcome != RunOutcome::LeaseLost {
            assert_eq!(holder, None, "the lease is given back\n{}", told.text());
        }
        told
    }

    /// Returns the state of each release, oldest first.
    pub(super) fn releases(&self) -> Vec<(u32, ReleaseState)> {
        self.sim.world().releases.iter().map(|release| (release.number, release.state)).collect()
    }

    /// Returns the value of `VERSION` that a workload runs with.
    pub(super) fn version(&self, service: &str) -> Option<String> {
        let world = self.sim.world();
        let item = world.items.get(&ItemId::workload(service))?.item.as_ref()?;
        Some(item.payload.pointer("/env/VERSION")?.as_str()?.to_owned())
    }
}

impl Told {
    /// Checks what holds of every run: one end and nothing after it, a whole numbering, and a fold that neither
    /// duplicates nor replay disturb.
    fn check(&self) {
        let ends =
            self.events.iter().filter(|event| matches!(event.kind, EventKind::RunFinished { .. })).count();
        assert_eq!(ends, 1, "{}", self.text());
        let Some(EventKind::RunFinished { outcome, exit, reason, .. }) = self.events.last().map(|e| &e.kind)
        else {
            panic!("something follows the end:\n{}", self.text());
        };
        let told = (*outcome, *exit, reason);
        assert_eq!(told, (self.report.outcome, self.report.outcome.exit_code(), &self.report.reason));
        assert!(self.events.iter().map(|event| event.seq).eq(1..=self.events.len() as u64));
        assert!(self.events.is_sorted_by_key(|event| event.elapsed_ms));
        let state = self.state();
        let mut twice = RunState::default();
        for (at, event) in self.events.iter().enumerate() {
            twice.apply(event);
            self.events[..=at].iter().for_each(|again| twice.apply(again));
        }
        assert_eq!(state, twice, "duplicates change the fold");
        let mut read = RunState::default();
        for event in &self.events {
            let line = serde_json::to_string(event).unwrap();
            read.apply(&serde_json::from_str(&line).unwrap());
        }
        assert_eq!(state, read, "events read back fold to another state");
        assert_eq!(state.current_step(), None, "a step still runs at the end:\n{}", self.text());
    }

    /// Returns the run as its events fold to it.
    pub(super) fn state(&self) -> RunState {
        let mut state = RunState::default();
        self.events.iter().for_each(|event| state.apply(event));
        state
    }

    /// Returns how a step ended.
    pub(super) fn outcome(&self, wanted: &str) -> Option<Outcome> {
        self.events.iter().rev().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, outcome, .. } if step == wanted => Some(*outcome),
            _ => None,
        })
    }

    /// Returns the milliseconds a step took.
    pub(super) fn took(&self, wanted: &str) -> u64 {
        let took = self.events.iter().find_map(|event| match &event.kind {
            EventKind::StepFinished { step, took_ms, .. } if step == wanted => Some(*took_ms),
            _ => None,
        });
        took.unwrap_or_else(|| panic!("no step {wanted}:\n{}", self.text()))
    }

    /// Returns the milliseconds the run took.
    pub(super) fn elapsed(&self) -> u64 {
        self.events.last().unwrap().elapsed_ms
    }

    /// Returns the place of the first event that a test finds.
    pub(super) fn place(&self, wanted: impl Fn(&EventKind) -> bool) -> Option<usize> {
        self.events.iter().position(|event| wanted(&event.kind))
    }

    /// Returns the events as lines.
    pub(super) fn text(&self) -> String {
        self.events.iter().map(|event| format!("{}\n", line(&event.kind))).collect()
    }
}

fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::RunStarted { operation, release, resumed, phases, .. } => {
            let steps: usize = phases.iter().map(|phase| phase.steps.len()).sum();
            format!("run {operation}, release {release:?}, resumed {resumed}, {steps} steps")
        }
        EventKind::PhaseStarted { phase, steps, .. } => format!("phase {phase} ({} steps)", steps.len()),
        EventKind::StepStarted { step, attempt, .. } => format!("  step {step}, attempt {attempt}"),
        EventKind::Workload { item, status, ready, updated, desired, cause, .. } => {
            let cause = cause.as_ref().map(|cause| format!(" ({})", cause.code)).unwrap_or_default();
            format!("    {item}: {} {ready}/{updated}/{desired}{cause}", status.word())
        }
        EventKind::Progress { text, .. } => format!("    {text}"),
        EventKind::Gate { result, .. } => {
            format!("    {}: wants {}, got {}: {}", result.subject, result.want, result.got, result.verdict)
        }
        EventKind::Load { report, .. } => format!("    load: {}", crate::steps::load::sentence(report)),
        EventKind::Retry { attempt, reason, .. } => format!("    retry after attempt {attempt}: {reason}"),
        EventKind::Warning { text } => format!("warning: {text}"),
        EventKind::Evidence { item, what, lines, .. } => {
            format!("    evidence {what} of {item}: {}", lines.join(" | "))
        }
        EventKind::StepFinished { step, outcome, note, .. } => {
            format!("  step {step} {}: {note}", outcome.word())
        }
        EventKind::PhaseFinished { phase, outcome, .. } => format!("phase {phase} {}", outcome.word()),
        EventKind::RunFinished { outcome, exit, reason, head, serving } => {
            let serving: Vec<String> = serving
                .iter()
                .map(|s| format!("{} {} {:?}", s.item.name, s.status.word(), s.release))
                .collect();
            format!("run {} ({exit}), head {head:?}: {reason} [{}]", outcome.words(), serving.join(", "))
        }
    }
}

/// Raises the cancel level when an event comes that a test waits for.
pub(super) struct Trigger<F> {
    canceller: Canceller,
    wanted: F,
    raised: Mutex<bool>,
}

impl<F: Fn(&EventKind) -> bool + Send + Sync> Trigger<F> {
    pub(super) fn new(canceller: Canceller, wanted: F) -> Self {
        Self { canceller, wanted, raised: Mutex::new(false) }
    }
}

impl<F: Fn(&EventKind) -> bool + Send + Sync> EventSink for Trigger<F> {
    fn take(&self, event: &Event) {
        let mut raised = self.raised.lock().unwrap();
        if !*raised && (self.wanted)(&event.kind) {
            *raised = true;
            self.canceller.escalate();
        }
    }
}
