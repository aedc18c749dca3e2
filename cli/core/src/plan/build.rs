//! Turns the steps of a playbook into planned steps: names resolved, groups ordered, nothing left to look up.

use super::order::groups;
use super::{Change, Operand, PlanError, PlanInput, Step};
use crate::item::{Desired, Item, ItemId, ItemKind, Tier};
use crate::playbook::{self, Missing, OnFailure, Order, StepFailure, Through as Way};
use crate::ports::Write;
use crate::steps::apply::Apply;
use crate::steps::gate::{HealthGate, HttpGate, KpiGate, MetricsGate, health_checks};
use crate::steps::{Action, load, mark, migrate, wait};
use crate::system::{LoadProfile, ServicePhase};

/// Returns the items an `apply` of a playbook covers, kinds in the order it names them.
pub(super) fn chosen<'a>(desired: &'a Desired, apply: &playbook::Apply) -> Vec<&'a Item> {
    let tier = tier_of(apply.phase);
    apply
        .items
        .iter()
        .flat_map(|kind| {
            let kind = kind_of(*kind);
            let meant =
                move |item: &&Item| item.id.kind == kind && (kind != ItemKind::Workload || item.tier == tier);
            desired.items.iter().filter(meant)
        })
        .collect()
}

const fn kind_of(kind: playbook::ItemKind) -> ItemKind {
    match kind {
        playbook::ItemKind::Namespace => ItemKind::Namespace,
        playbook::ItemKind::Secrets => ItemKind::Secret,
        playbook::ItemKind::Config => ItemKind::Config,
        playbook::ItemKind::Stores => ItemKind::Store,
        playbook::ItemKind::Services => ItemKind::Workload,
    }
}

const fn tier_of(phase: ServicePhase) -> Tier {
    match phase {
        ServicePhase::Infrastructure => Tier::Infrastructure,
        ServicePhase::Applications => Tier::Applications,
    }
}

/// Builds the steps of one plan.
pub(super) struct StepBuilder<'a> {
    input: &'a PlanInput<'a>,
    /// Load steps so far: id, and how many thresholds of its own each has.
    loads: Vec<(String, usize)>,
    width: usize,
}

impl<'a> StepBuilder<'a> {
    pub(super) const fn new(input: &'a PlanInput<'a>) -> Self {
        Self { input, loads: Vec::new(), width: 1 }
    }

    /// Returns the greatest width seen: the way back may be as wide.
    pub(super) const fn width(&self) -> usize {
        self.width
    }

    pub(super) fn phase(&mut self, phase: &playbook::Phase) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::new();
        for step in &phase.steps {
            self.step(step, &mut steps)?;
        }
        Ok(steps)
    }

    fn step(&mut self, step: &playbook::Step, steps: &mut Vec<Step>) -> Result<(), PlanError> {
        let bad = |reason: String| PlanError::BadStep { step: step.id.clone(), reason };
        let planned = match &step.action {
            playbook::Action::Apply(apply) => return self.apply(step, apply, steps),
            playbook::Action::Migrate(migrate) => self.migrate(step, migrate),
            playbook::Action::Gate(gate) => self.gate(step, gate).map_err(bad)?,
            playbook::Action::Load(load) => self.load(step, load).map_err(bad)?,
            playbook::Action::Mark(_) => {
                self.look(step, "mark the release verified", Action::Mark(mark::Mark { release: 0 }))
            }
            playbook::Action::Scale(scale) => {
                let id = self.workload(&scale.service).map_err(bad)?;
                self.write(
                    step,
                    format!("scale {} to {}", scale.service, scale.replicas),
                    Write::Scale { id, replicas: scale.replicas },
                )
            }
            playbook::Action::Restart(restart) => {
                let id = self.workload(&restart.service).map_err(bad)?;
                let token = self.input.snapshot.taken_at.to_string();
                self.write(step, format!("restart {}", restart.service), Write::Restart { id, token })
            }
            playbook::Action::Env(_) => {
                return Err(bad("environment overrides are not available yet".to_owned()));
            }
            playbook::Action::Wait(wait) => {
                let millis = u64::from(wait.seconds) * 1000;
                self.look(step, format!("wait {} s", wait.seconds), Action::Wait(wait::Wait { millis }))
            }
        };
        steps.push(planned);
        if let Some(check) = &step.verify {
            let gate = Action::Http(http_gate(check));
            steps.push(Step {
                id: format!("{}:verify", step.id),
                ..self.look(step, format!("ask {}", check.http), gate)
            });
        }
        Ok(())
    }

    /// Plans one step a group of items: each group stands on the groups before it.
    fn apply(
        &mut self,
        step: &playbook::Step,
        apply: &playbook::Apply,
        steps: &mut Vec<Step>,
    ) -> Result<(), PlanError> {
        self.width = self.width.max(apply.width as usize);
        let items = chosen(self.input.desired, apply);
        let grouped = match apply.order {
            Order::File => vec![items],
            Order::Needs => {
                by_kind(&items).map(|kind| groups(&kind)).collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        let grouped: Vec<_> = grouped.into_iter().filter(|group| !group.is_empty()).collect();
        let many = grouped.len() > 1;
        for (index, group) in grouped.into_iter().enumerate() {
            let id = match (many, &group[..]) {
                (false, _) => step.id.clone(),
                (true, [only]) => format!("{}:{}", step.id, only.id.name),
                (true, _) => format!("{}:{}", step.id, index + 1),
            };
            let changes: Vec<Change> = group.iter().map(|item| self.input.change(item)).collect();
            let drifted = |change: &&Change| {
                let (live, item) =
                    (self.input.snapshot.get(&change.item), self.input.desired.get(&change.item));
                change.op == Operand::Update
                    && item.is_some_and(|item| live.digest.as_ref() == Some(&item.digest))
            };
            let rewrite = changes.iter().filter(drifted).map(|change| change.item.clone()).collect();
            let put =
                |item: &&Item| Write::Put { item: (*item).clone(), replicas: self.input.replicas(item) };
            let action = Action::Apply(Apply {
                writes: group.iter().map(put).collect(),
                rewrite,
                width: apply.width as usize,
                stable_for_ms: apply.stable_for.as_millis(),
            });
            let timeout = apply.deadline.or(step.timeout).map(crate::system::units::TimeSpan::as_millis);
            let title = format!("apply {}", names(&group));
            steps.push(Step { id, title, action, changes, timeout_ms: timeout, ..self.bare(step) });
        }
        if apply.items.contains(&playbook::ItemKind::Services) {
            self.remove(step, tier_of(apply.phase), steps);
        }
        Ok(())
    }

    /// Plans the removal of workloads that the release no longer has, after everything new is there.
    fn remove(&self, step: &playbook::Step, tier: Tier, steps: &mut Vec<Step>) {
        let leftovers = self.input.leftovers(tier);
        if leftovers.is_empty() {
            return;
        }
        let names: Vec<&str> = leftovers.iter().map(|id| id.name.as_str()).collect();
        let title = format!("remove {}", names.join(", "));
        let gone = |id: &ItemId| Change {
            item: id.clone(),
            op: Operand::Delete,
            differences: Vec::new(),
            replicas: None,
        };
        let changes = leftovers.iter().map(gone).collect();
        let action = Action::Apply(Apply {
            writes: leftovers.iter().map(|id| Write::Remove { id: id.clone() }).collect(),
            rewrite: Vec::new(),
            width: leftovers.len(),
            stable_for_ms: 0,
        });
        steps.push(Step { id: format!("{}:remove", step.id), title, action, changes, ..self.bare(step) });
    }

    fn migrate(&self, step: &playbook::Step, migrate: &playbook::Migrate) -> Step {
        let meant =
            |item: &&Item| item.id.kind == ItemKind::Migration && migrate.services.contains(&item.id.name);
        let items: Vec<Item> = self.input.desired.items.iter().filter(meant).cloned().collect();
        let changes = items.iter().map(|item| self.input.change(item)).collect();
        let skip = items.is_empty().then(|| "no service has migrations".to_owned());
        let title = "run pending migrations".to_owned();
        Step { title, changes, skip, action: Action::Migrate(migrate::Migrate { items }), ..self.bare(step) }
    }

    fn gate(&self, step: &playbook::Step, gate: &playbook::GateCheck) -> Result<Step, String> {
        Ok(match gate {
            playbook::GateCheck::Health(health) => {
                // A rollback goes to a release that may lack a service of the present file.
                let chosen = |name: &str| health.health.contains(name) && self.is_desired(name);
                let checks = health_checks(self.input.system, chosen, &health.through);
                let within_ms = health.within.as_millis();
                let way = |way: &Way| match way {
                    Way::Gateway => "through the gateway",
                    Way::Direct => "direct",
                };
                let ways: Vec<_> = health.through.iter().map(way).collect();
                let title = format!("check health {}", ways.join(" and "));
                self.look(step, title, Action::Health(HealthGate { checks, within_ms }))
            }
            playbook::GateCheck::Metrics(metrics) => {
                let services = self.input.system.services.iter();
                let expect = services
                    .filter(|(name, _)| self.is_desired(name))
                    .filter_map(|(name, service)| {
                        Some((name.clone(), service.metrics.as_ref()?.expect.clone()))
                    })
                    .filter(|(_, series)| !series.is_empty())
                    .collect();
                let within_ms = metrics.within.as_millis();
                self.look(
                    step,
                    "look for the expected metrics",
                    Action::Metrics(MetricsGate { expect, within_ms }),
                )
            }
            playbook::GateCheck::Kpis(kpis) => {
                let own = self.loads.iter().find(|(id, _)| *id == kpis.from).map(|(_, own)| *own);
                let own = own.ok_or_else(|| format!("there is no load step `{}` before it", kpis.from))?;
                let measured = self.measured_kpis();
                let judged = measured.iter().enumerate().filter(|(_, (name, _))| kpis.kpis.contains(name));
                let kpis_of = judged.map(|(at, (name, _))| (name.clone(), own + at)).collect();
                let gate = KpiGate { from: kpis.from.clone(), kpis: kpis_of };
                self.look(step, "judge the KPIs", Action::Kpis(gate))
            }
            playbook::GateCheck::Http(check) => {
                self.look(step, format!("ask {}", check.http), Action::Http(http_gate(check)))
            }
        })
    }

    fn is_desired(&self, service: &str) -> bool {
        self.input.desired.items.iter().any(|item| item.id == ItemId::workload(service))
    }

    /// Returns the KPIs that a load result can tell, with their thresholds, in the order of the file.
    fn measured_kpis(&self) -> Vec<(String, crate::system::units::Threshold)> {
        let kpis = self.input.system.kpis.iter();
        kpis.filter_map(|(name, kpi)| Some((name.clone(), kpi.load_threshold()?))).collect()
    }

    fn load(&mut self, step: &playbook::Step, load: &playbook::LoadStep) -> Result<Step, String> {
        let title = format!("send load ({})", load.profile);
        let Some(profile) = self.input.system.load.get(&load.profile) else {
            if load.missing == Missing::Fail {
                return Err(format!("the system has no load profile `{}`", load.profile));
            }
            self.loads.push((step.id.clone(), 0));
            let skip = Some(format!("mlctl.yaml has no load profile `{}`", load.profile));
            let action = Action::Wait(wait::Wait { millis: 0 });
            return Ok(Step { title, skip, action, ..self.bare(step) });
        };
        let own = profile.thresholds.len();
        self.loads.push((step.id.clone(), own));
        let mut profile = profile.clone();
        profile.thresholds.extend(self.measured_kpis().into_iter().map(|(_, threshold)| threshold));
        let secrets = named_secrets(&profile);
        let name = load.profile.clone();
        let action = Action::Load(Box::new(load::Load { name, profile, own_thresholds: own, secrets }));
        Ok(Step { title, action, ..self.bare(step) })
    }

    fn workload(&self, name: &str) -> Result<ItemId, String> {
        let id = ItemId::workload(name);
        self.input
            .desired
            .get(&id)
            .map(|item| item.id.clone())
            .ok_or_else(|| format!("there is no service `{name}`"))
    }

    fn write(&self, step: &playbook::Step, title: String, write: Write) -> Step {
        let item = write.id().clone();
        let change = Change { item, op: Operand::Update, differences: Vec::new(), replicas: None };
        let action =
            Action::Apply(Apply { writes: vec![write], rewrite: Vec::new(), width: 1, stable_for_ms: 0 });
        Step { title, action, changes: vec![change], ..self.bare(step) }
    }

    fn look(&self, step: &playbook::Step, title: impl Into<String>, action: Action) -> Step {
        Step { title: title.into(), action, ..self.bare(step) }
    }

    /// Returns what every planned step takes over from the playbook's.
    fn bare(&self, step: &playbook::Step) -> Step {
        let whole = self.input.operation.on_failure.unwrap_or(self.input.playbook.on_failure);
        let whole = if whole == OnFailure::Rollback { StepFailure::Rollback } else { StepFailure::Stop };
        let forced = self.input.operation.on_failure.is_some();
        let on_failure = match step.on_failure {
            Some(StepFailure::Continue) => StepFailure::Continue,
            Some(own) if !forced => own,
            _ => whole,
        };
        Step {
            id: step.id.clone(),
            title: String::new(),
            action: Action::Wait(wait::Wait { millis: 0 }),
            changes: Vec::new(),
            timeout_ms: step.timeout.map(crate::system::units::TimeSpan::as_millis),
            retries: step.retries,
            on_failure,
            skip: None,
        }
    }
}

fn http_gate(check: &playbook::HttpCheck) -> HttpGate {
    HttpGate {
        path: check.http.clone(),
        json: check.json.clone(),
        equals: check.equals.clone(),
        within_ms: check.within.as_millis(),
    }
}

/// Splits items into runs of one kind, keeping their order.
fn by_kind<'a>(items: &[&'a Item]) -> impl Iterator<Item = Vec<&'a Item>> {
    items.chunk_by(|a, b| a.id.kind == b.id.kind).map(<[_]>::to_vec)
}

fn names(group: &[&Item]) -> String {
    group.iter().map(|item| item.id.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Returns the secrets that the templates of a profile name.
fn named_secrets(profile: &LoadProfile) -> Vec<String> {
    let text = serde_json::to_string(profile).unwrap_or_default();
    let mut names: Vec<String> = text
        .split("{{secret:")
        .skip(1)
        .filter_map(|rest| rest.split_once("}}"))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}
