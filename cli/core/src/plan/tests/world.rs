//! A world for the planner in a few words, and a plan as lines.
//!
//! An item reads `workload/api@2 x2..5 needs store/db,workload/user`: id, version of its content, replica range,
//! needs. A live item reads `workload/api@2 x3 failed`: its count, and its status when it is not current.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use crate::item::{Desired, Digest, Item, ItemId, ItemKind, ReplicaRange, Tier};
use crate::overrides::{Override, OverrideKind};
use crate::plan::{Change, Difference, Operand, Operation, Plan, PlanError, PlanInput, Selection, plan};
use crate::playbook::{OnFailure, Playbook, PlaybookFile};
use crate::ports::{MigrationFile, Write};
use crate::release::{Operator, Release, ReleaseState};
use crate::snapshot::{Live, Snapshot};
use crate::status::{Status, WorkloadStatus};
use crate::steps::Action;
use crate::system::{System, SystemFile};

pub(super) const SHOP: &str = "
apiVersion: mlctl/v1
system: shop
services:
  queue: {command: [queue], port: 4000, phase: infrastructure}
  user: {command: [user], port: 4001, health: {check: /health}, metrics: {port: 9001, expect: [logins_total]}}
  catalog: {command: [catalog], port: 4002, health: {check: /health}, routes: [{path: /api/products}]}
  gateway: {command: [gateway], port: 8080, gateway: true, health: {check: /health}, needs: [user, catalog]}
kpis:
  latency: {sli: p99(http_request_duration_seconds), target: '<500ms', load: p99}
  uptime: {sli: 'ratio(good, all)', target: '>99.9%'}
load:
  verify: {rate: 50/s, duration: 2s, mix: [{name: read, weight: 1, get: /api/products}], thresholds: [errors<1%]}
";

/// Everything a plan is made of, with what most cases share.
pub(super) struct Case {
    pub(super) system: System,
    pub(super) playbook: Playbook,
    pub(super) operation: Operation,
    pub(super) desired: Desired,
    pub(super) snapshot: Snapshot,
    pub(super) previews: BTreeMap<ItemId, Vec<Difference>>,
    pub(super) releases: Vec<Release>,
    pub(super) selection: Selection,
}

impl Case {
    /// Returns an empty target that should run these items.
    pub(super) fn new(desired: &str) -> Self {
        Self {
            system: SystemFile::parse("mlctl.yaml", SHOP.as_bytes()).unwrap().system().unwrap(),
            playbook: playbook("deploy"),
            operation: Operation { verb: "deploy".into(), tag: None, rollback_of: None, on_failure: None },
            desired: items(desired),
            snapshot: Snapshot::empty("2026-01-01T00:00:00Z".parse().unwrap()),
            previews: BTreeMap::new(),
            releases: Vec::new(),
            selection: Selection::All,
        }
    }

    /// Adds live items.
    pub(super) fn live(mut self, text: &str) -> Self {
        self.snapshot.items.extend(lines(text).map(live));
        self
    }

    /// Adds a release; the last one added as `head` runs.
    pub(super) fn release(mut self, number: u32, state: ReleaseState, desired: &str) -> Self {
        self.releases.push(release(number, state, items(desired)));
        self
    }

    pub(super) fn head(mut self, number: u32) -> Self {
        self.snapshot.head = self.releases.iter().find(|r| r.number == number).map(Release::head);
        self
    }

    pub(super) fn phases(mut self, names: &[&str]) -> Self {
        self.selection = Selection::Phases(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    pub(super) fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.operation.on_failure = Some(on_failure);
        self
    }

    pub(super) fn floor(mut self, service: &str, replicas: u32) -> Self {
        self.snapshot.overrides.push(Override {
            id: "floor-1".into(),
            owner: "operator@host".into(),
            reason: "campaign".into(),
            since: self.snapshot.taken_at,
            until: None,
            kind: OverrideKind::ReplicaFloor { service: service.into(), replicas },
        });
        self
    }

    pub(super) fn plan(&self) -> Result<Plan, PlanError> {
        plan(&PlanInput {
            operation: &self.operation,
            target: "test",
            system: &self.system,
            playbook: &self.playbook,
            desired: &self.desired,
            snapshot: &self.snapshot,
            previews: &self.previews,
            releases: &self.releases,
            next_number: self.releases.iter().map(|release| release.number).max().unwrap_or(0) + 1,
            selection: &self.selection,
        })
    }

    /// Returns the plan, or its refusal, as text.
    pub(super) fn text(&self) -> String {
        self.plan().map_or_else(|error| format!("refused: {error}\n"), |plan| text(&plan))
    }

    /// Returns the case in which the target is as the plan leaves it, verified.
    pub(super) fn after(mut self, plan: &Plan) -> Self {
        for (_, step) in plan.steps() {
            match &step.action {
                Action::Apply(apply) => apply.writes.iter().for_each(|write| self.write(write)),
                Action::Migrate(migrate) => {
                    for item in &migrate.items {
                        self.write(&Write::Put { item: item.clone(), replicas: None });
                    }
                }
                _ => {}
            }
        }
        if let Some(planned) = &plan.release {
            self.releases.retain(|release| release.number != planned.number);
            self.releases.push(release(planned.number, ReleaseState::Verified, planned.desired.clone()));
            self = self.head(planned.number);
        }
        self
    }

    fn write(&mut self, write: &Write) {
        let id = write.id().clone();
        match write {
            Write::Put { item, replicas } => {
                let generation = self.snapshot.get(&id).generation + 1;
                let live = Live { generation, ..current(Some(item.digest.clone()), *replicas) };
                self.snapshot.items.insert(id, live);
            }
            Write::Remove { .. } => drop(self.snapshot.items.remove(&id)),
            Write::Scale { replicas, .. } => {
                self.snapshot.items.entry(id).and_modify(|live| live.replicas = Some(*replicas));
            }
            Write::Restart { .. } => {}
        }
    }
}

pub(super) fn playbook(name: &str) -> Playbook {
    let text = crate::playbook::builtin(name).unwrap();
    PlaybookFile::parse(name, text.as_bytes()).unwrap().bind(&indexmap::IndexMap::new()).unwrap()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

pub(super) fn items(text: &str) -> Desired {
    Desired { items: lines(text).map(item).collect(), ..Desired::default() }
}

fn named(word: &str) -> (ItemId, u32) {
    let (id, version) = word.split_once('@').unwrap();
    (id.parse().unwrap(), version.parse().unwrap())
}

fn item(line: &str) -> Item {
    let mut words = line.split_whitespace();
    let (id, version) = named(words.next().unwrap());
    let (mut replicas, mut needs) = (None, Vec::new());
    while let Some(word) = words.next() {
        if word == "needs" {
            needs = words.next().unwrap().split(',').map(|need| need.parse().unwrap()).collect();
        } else if let Some((min, max)) = word.strip_prefix('x').and_then(|range| range.split_once("..")) {
            replicas = Some(ReplicaRange { min: min.parse().unwrap(), max: max.parse().unwrap() });
        }
    }
    let infrastructure = !matches!(id.kind, ItemKind::Workload | ItemKind::Migration) || id.name == "queue";
    let tier = if infrastructure { Tier::Infrastructure } else { Tier::Applications };
    let payload = payload(&id, version, line.contains("breaking"));
    let digest = Digest::of_json(&payload);
    Item { id, tier, needs, digest, replicas, progress_deadline_ms: Some(60_000), payload }
}

fn payload(id: &ItemId, version: u32, breaking: bool) -> serde_json::Value {
    if id.kind != ItemKind::Migration {
        return json!({ "version": version });
    }
    let file = |number: u32| MigrationFile {
        version: number,
        name: "step".into(),
        up: if breaking && number == version { "-- mlctl: breaks-older\n" } else { "select 1;\n" }.into(),
        down: None,
    };
    json!({ "files": (1..=version).map(file).collect::<Vec<_>>() })
}

fn live(line: &str) -> (ItemId, Live) {
    let mut words = line.split_whitespace();
    let (id, version) = named(words.next().unwrap());
    let digest = Digest::of_json(&payload(&id, version, line.contains("breaking")));
    let (mut replicas, mut status) = (None, Status::Current);
    for word in words {
        match word {
            "failed" => status = Status::Failed,
            "updating" => status = Status::InProgress,
            "breaking" => {}
            count => replicas = Some(count.strip_prefix('x').unwrap().parse().unwrap()),
        }
    }
    let mut live = current(Some(digest), replicas);
    live.status.status = status;
    (id, live)
}

fn current(digest: Option<Digest>, replicas: Option<u32>) -> Live {
    let count = replicas.unwrap_or(0);
    let status =
        WorkloadStatus { status: Status::Current, ready: count, updated: count, desired: count, cause: None };
    Live { digest, generation: 1, observed_generation: 1, replicas, status }
}

pub(super) fn release(number: u32, state: ReleaseState, desired: Desired) -> Release {
    Release {
        number,
        tag: None,
        system: "shop".into(),
        created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        author: Operator { name: "operator".into(), host: "host".into() },
        run: format!("run-{number}"),
        state,
        rollback_of: None,
        note: None,
        desired,
    }
}

/// Writes a plan down, everything a reader could want to see changed.
pub(super) fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let release = plan.release.as_ref().map_or_else(
        || "no release".to_owned(),
        |r| format!("release {}{}", r.number, if r.creates { " (new)" } else { "" }),
    );
    let from = plan.from.map_or_else(|| "nothing".to_owned(), |from| from.to_string());
    writeln!(text, "{} {} on {}: from {from} to {release}", plan.operation, plan.system, plan.target)
        .unwrap();
    for warning in &plan.warnings {
        writeln!(text, "warning: {warning}").unwrap();
    }
    for phase in &plan.phases {
        phase_text(&mut text, phase);
    }
    if let Some(fallback) = &plan.fallback {
        writeln!(text, "way back to release {}:", fallback.release).unwrap();
        phase_text(&mut text, &fallback.phase);
    }
    let head = plan.head_after.as_deref().unwrap_or("no phase");
    writeln!(text, "head after {head}; verifies: {}; empty: {}", plan.verifies, plan.is_empty()).unwrap();
    text
}

fn phase_text(text: &mut String, phase: &crate::plan::Phase) {
    let deadline = phase.deadline_ms.map(|ms| format!(" within {} s", ms / 1000)).unwrap_or_default();
    writeln!(text, "{}{deadline}", phase.name).unwrap();
    for step in &phase.steps {
        let skip = step.skip.as_ref().map(|skip| format!(" [skipped: {skip}]")).unwrap_or_default();
        writeln!(
            text,
            "  {}: {}{} -> {:?}{skip}",
            step.id,
            step.title,
            detail(&step.action),
            step.on_failure
        )
        .unwrap();
        step.changes.iter().for_each(|change| writeln!(text, "    {}", change_text(change)).unwrap());
    }
}

fn detail(action: &Action) -> String {
    match action {
        Action::Apply(apply) => {
            let count = apply.writes.len();
            if count > 1 { format!(" ({count} writes, {} at a time)", apply.width) } else { String::new() }
        }
        Action::Health(gate) => {
            let asked =
                |c: &crate::steps::gate::HealthCheck| format!("{:?} {}{}", c.through, c.service, c.path);
            format!(" [{}]", gate.checks.iter().map(asked).collect::<Vec<_>>().join(", "))
        }
        Action::Metrics(gate) => format!(" {:?}", gate.expect),
        Action::Load(load) => {
            let all: Vec<String> = load.profile.thresholds.iter().map(ToString::to_string).collect();
            format!(" [own: {}, all: {}]", load.own_thresholds, all.join(", "))
        }
        Action::Kpis(gate) => format!(" {:?} of {}", gate.kpis, gate.from),
        Action::Mark(mark) => format!(" [{}]", mark.release),
        _ => String::new(),
    }
}

fn change_text(change: &Change) -> String {
    let sign = match change.op {
        Operand::Create => '+',
        Operand::Update => '~',
        Operand::Delete => '-',
        Operand::Keep => '=',
    };
    let counts = change.replicas.map(|(before, after)| format!(" {before} -> {after}")).unwrap_or_default();
    let fields = change.differences.iter().map(|d| format!(" {} {:?} -> {:?}", d.path, d.before, d.after));
    format!("{sign} {}{counts}{}", change.item, fields.collect::<String>())
}
