//! A small system on a simulated target, and one call that runs a plan and checks what holds of every run.

use std::collections::BTreeMap;
use std::time::Duration;

use super::copies::Home;
pub(super) use super::told::{Told, Trigger};
use crate::event::{EventKind, EventSink, Fanout, Recorder, RunOutcome};
use crate::item::{Desired, ItemId};
use crate::overrides::Override;
use crate::plan::{Operation, Plan, PlanInput, Selection, plan, restart, rollback_desired, scale};
use crate::playbook::{OnFailure, PlaybookFile};
use crate::ports::{
    Inspector, Lease, LockRequest, MigrationFile, Orchestrator as _, OverrideStore as _, ReleaseInput,
    ReleaseStore,
};
use crate::release::{Operator, Release, ReleaseState, default_rollback_target};
use crate::run::journal::{Replay, read};
use crate::run::{CancelToken, Ports, RunRequest, execute};
use crate::sim::Sim;
use crate::snapshot::Snapshot;
use crate::system::{System, SystemFile};

/// How long the lease of a run lives without renewal.
const TTL: Duration = Duration::from_secs(15);

fn operator() -> Operator {
    Operator { name: "operator".into(), host: "host".into() }
}

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

/// What a run says that could not give its lease back.
const EXPIRES: &str = "the lock expires by itself";

pub(super) struct Rig {
    pub(super) sim: Sim,
    system: String,
    migrations: u32,
    pub(super) on_failure: Option<OnFailure>,
    pub(super) selection: Selection,
    pub(super) total: Option<Duration>,
    /// The copies of journals at home; the simulation keeps the mirror.
    pub(super) home: Home,
    /// What reads the target, where that is not the simulation itself.
    pub(super) inspector: Option<Box<dyn Inspector>>,
    runs: u32,
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
            home: Home::default(),
            inspector: None,
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

    /// Returns a target of its own that goes on from here, with its own copies at home.
    pub(super) fn fork(&self) -> Self {
        Self {
            sim: self.sim.fork(None),
            system: self.system.clone(),
            migrations: self.migrations,
            on_failure: self.on_failure,
            selection: self.selection.clone(),
            total: self.total,
            home: self.home.fork(),
            inspector: None,
            runs: self.runs,
        }
    }

    /// Lets the target behave as another script says from now on.
    pub(super) fn follow(&mut self, script: &str) {
        self.sim = self.sim.fork(Some(script));
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

    fn system(&self) -> System {
        SystemFile::parse("mlctl.yaml", self.system.as_bytes()).unwrap().system().unwrap()
    }

    pub(super) async fn desired(&self) -> Desired {
        self.sim.resolve(&self.system(), &self.input()).await.unwrap()
    }

    /// Plans a deploy.
    pub(super) async fn plan(&self) -> Plan {
        let desired = self.desired().await;
        self.plan_of("deploy", &desired, None, &self.selection).await
    }

    /// Plans a rollback to the last release that passed verification and differs from what runs.
    pub(super) async fn plan_rollback(&self) -> Plan {
        let (snapshot, releases, head) = self.look().await;
        let head_runs = head.as_ref().is_none_or(|head| snapshot.strays(&head.desired).is_empty());
        let target = default_rollback_target(&releases, head.as_ref(), head_runs).unwrap();
        let desired = rollback_desired(head.as_ref(), target, &[], false, head_runs).unwrap();
        self.plan_of("rollback", &desired, Some(target.number), &Selection::All).await
    }

    /// Plans other replica counts.
    pub(super) async fn plan_scale(&self, counts: &[(&str, u32)]) -> Plan {
        let (snapshot, _, head) = self.look().await;
        let counts: Vec<(String, u32)> = counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        scale("shop", "sim", &snapshot, &head.unwrap().desired, &counts).unwrap()
    }

    /// Plans fresh replicas.
    pub(super) async fn plan_restart(&self, services: &[&str]) -> Plan {
        let (snapshot, _, head) = self.look().await;
        let services: Vec<String> = services.iter().map(|name| (*name).to_owned()).collect();
        restart("shop", "sim", &snapshot, &head.unwrap().desired, &services, "token").unwrap()
    }

    /// Plans the end of every workload.
    pub(super) async fn plan_down(&self) -> Plan {
        let (snapshot, _, head) = self.look().await;
        crate::plan::down("shop", "sim", &snapshot, &head.unwrap().desired).unwrap()
    }

    async fn look(&self) -> (Snapshot, Vec<Release>, Option<Release>) {
        let snapshot = self.sim.observe().await.unwrap();
        let releases = ReleaseStore::list(&self.sim).await.unwrap();
        let number = snapshot.head.as_ref().map(|head| head.number);
        let head = releases.iter().find(|release| Some(release.number) == number).cloned();
        (snapshot, releases, head)
    }

    async fn plan_of(
        &self,
        verb: &str,
        desired: &Desired,
        rollback_of: Option<u32>,
        selection: &Selection,
    ) -> Plan {
        let text = crate::playbook::builtin(verb).unwrap();
        let playbook = PlaybookFile::parse(verb, text.as_bytes()).unwrap();
        let playbook = playbook.bind(&indexmap::IndexMap::new()).unwrap();
        let mut previews = BTreeMap::new();
        for item in &desired.items {
            previews.insert(item.id.clone(), self.sim.preview(item).await.unwrap());
        }
        let on_failure = self.on_failure;
        plan(&PlanInput {
            operation: &Operation { verb: verb.into(), tag: None, rollback_of, on_failure },
            target: "sim",
            system: &self.system(),
            playbook: &playbook,
            desired,
            snapshot: &self.sim.observe().await.unwrap(),
            previews: &previews,
            releases: &ReleaseStore::list(&self.sim).await.unwrap(),
            next_number: self.sim.next_number().await.unwrap(),
            selection,
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

    /// Carries on a run from its mirrored journal, as another process would.
    pub(super) async fn resume(&mut self, run: &str) -> Told {
        self.resume_with(run, &CancelToken::never(), &Recorder::default()).await
    }

    pub(super) async fn resume_with(
        &mut self,
        run: &str,
        cancel: &CancelToken,
        sink: &dyn EventSink,
    ) -> Told {
        let text = self.sim.journal_text(run);
        let replay = Replay::of(read(&text).unwrap()).unwrap();
        assert_eq!(replay.closed, None, "the run is over");
        let plan = replay.plan.clone();
        self.home.restore(run, &text);
        self.go(run, &plan, Some(&replay), cancel, sink).await
    }

    async fn lock(&self, run: &str) -> Box<dyn Lease> {
        let request = LockRequest {
            operation: "deploy".into(),
            operator: operator(),
            run: run.to_owned(),
            pid: 1,
            pid_start: 0,
            ttl: TTL,
        };
        self.sim.lock(&request).await.unwrap()
    }

    /// Puts an override in force.
    pub(super) async fn put(&self, entry: &Override) {
        let lease = self.lock("override").await;
        self.sim.put(entry, lease.fence()).await.unwrap();
        lease.release().await.unwrap();
    }

    /// Ends one that is in force.
    pub(super) async fn end(&self, id: &str) {
        let lease = self.lock("override").await;
        assert!(self.sim.end(id, lease.fence()).await.unwrap());
        lease.release().await.unwrap();
    }

    async fn go(
        &self,
        run: &str,
        plan: &Plan,
        replay: Option<&Replay>,
        cancel: &CancelToken,
        sink: &dyn EventSink,
    ) -> Told {
        let operator = operator();
        let lease = self.lock(run).await;
        let journal = self.home.journal(run, self.sim.journal(run));
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
            lease_ttl: TTL,
            journal: &journal,
            sink: &Fanout(vec![&recorder, sink]),
            cancel,
        };
        let ports = Ports {
            orchestrator: &self.sim,
            inspector: self.inspector.as_deref().unwrap_or(&self.sim),
            releases: &self.sim,
            stores: &self.sim,
            load: &self.sim,
            clock: &clock,
        };
        let report = execute(&request, ports).await;
        let told = Told { run: run.to_owned(), report, events: recorder.events() };
        told.check();
        let holder = self.sim.world().lease.map(|held| held.holder.request.run);
        let expires =
            |kind: &EventKind| matches!(kind, EventKind::Warning { text } if text.ends_with(EXPIRES));
        if told.report.outcome != RunOutcome::LeaseLost && told.place(expires).is_none() {
            assert_ne!(holder.as_deref(), Some(run), "the lease is given back\n{}", told.text());
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
