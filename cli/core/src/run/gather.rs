//! Gathers evidence from the target, within a patience: the way back must not wait for a target that does not answer.

use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use jiff::Timestamp;

use super::context::lock;
use super::engine::{Engine, Failure, describe};
use super::evidence::{Kind, MOST_ITEMS, Sort, answer_lines, bounded, result_line, results};
use super::witness::Witnesses;
use crate::event::EventKind;
use crate::item::{Item, ItemId, ItemKind};
use crate::mask::Mask;
use crate::plan::Step;
use crate::ports::{LogLine, LogQuery, ProbeAnswer, ProbeRequest, TargetEvent, Write};
use crate::steps::{Action, StepError};

/// How long gathering evidence may hold up the way back.
const PATIENCE: Duration = Duration::from_secs(3);
/// For one answer of a health path.
const ANSWER: Duration = Duration::from_secs(1);
/// Log lines kept as evidence, per replica.
const TAIL: usize = 100;
/// Replicas whose logs are read.
const REPLICAS: usize = 16;
/// Characters of a line that are read; fewer are kept.
const LINE_CHARS: usize = 4_000;

/// What is asked once for all items of a bundle.
struct Told {
    began: Timestamp,
    events: Vec<TargetEvent>,
    /// Why secrets could not be read, where they could not.
    unread: Option<String>,
}

/// Pieces in the order in which they came: what is there when the patience ends is kept.
#[derive(Default)]
struct Pieces(Mutex<Vec<(Sort, Vec<String>)>>);

impl Pieces {
    fn add(&self, sort: Sort, lines: Vec<String>) {
        if !lines.is_empty() {
            lock(&self.0).push((sort, lines));
        }
    }
}

impl Engine<'_> {
    /// Tells what is known about a failure before anything is undone. Takes at most twice the patience: for the
    /// secrets that have to be starred, and for everything else at once.
    pub(super) async fn save_evidence(&self, failure: &Failure) {
        let Failure { step, error, .. } = failure;
        let known = lock(&self.known).take();
        let Some(kind) = Kind::of(error, &step.action) else { return };
        let lives = self.observer.sender.borrow().clone();
        let (mut subjects, named) = kind.subjects(error, &step.action, &lives);
        let beyond = subjects.split_off(subjects.len().min(MOST_ITEMS));
        let (mask, unread) = match known {
            Some(known) => known,
            None => self.mask().await,
        };
        let system = ItemId::new(ItemKind::Namespace, &self.request.plan.system);
        self.tell_evidence(failure, (&system, true), &mask, (Sort::Failure, vec![error.to_string()]));
        let said: Vec<String> = results(error).iter().map(result_line).collect();
        self.tell_evidence(failure, (&system, true), &mask, (Sort::Gate, said));
        let pieces: Vec<Pieces> = subjects.iter().map(|_| Pieces::default()).collect();
        let gathered = async {
            let began = self.began().await;
            let events = self.ports.inspector.events(Some(began)).await.unwrap_or_default();
            let told = Told { began, events, unread };
            let each = subjects.iter().zip(&pieces).map(async |(item, pieces)| {
                self.look_at(step, kind, item, &told, pieces).await;
            });
            join_all(each).await;
        };
        let whole = tokio::time::timeout(PATIENCE, gathered).await.is_ok();
        for (item, pieces) in subjects.iter().zip(pieces) {
            for piece in pieces.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
                self.tell_evidence(failure, (item, named), &mask, piece);
            }
        }
        let warn = |text: String| self.teller.tell(EventKind::Warning { text });
        if !whole {
            let names: Vec<String> = subjects.iter().map(ToString::to_string).collect();
            warn(format!(
                "evidence about {} is incomplete: the target took over {PATIENCE:?}",
                names.join(", ")
            ));
        }
        if !beyond.is_empty() {
            let names: Vec<&str> = beyond.iter().map(|item| item.name.as_str()).collect();
            warn(format!("no evidence about {}: {MOST_ITEMS} items are the most", names.join(", ")));
        }
    }

    fn tell_evidence(
        &self,
        failure: &Failure,
        (item, named): (&ItemId, bool),
        mask: &Mask,
        (sort, lines): (Sort, Vec<String>),
    ) {
        if lines.is_empty() {
            return;
        }
        let lines = lines.iter().map(|line| mask.text(line)).collect();
        let (lines, cut) = bounded(sort, lines);
        self.teller.tell(EventKind::Evidence {
            phase: failure.phase.clone(),
            step: failure.step.id.clone(),
            item: item.clone(),
            named,
            what: sort.word().to_owned(),
            lines,
            cut,
            file: None,
        });
    }

    /// Returns what a step failed by with every secret starred: it goes to the journal, the events and the release. What
    /// was learnt for that is kept for the evidence, which comes next.
    pub(super) async fn starred(&self, error: &StepError) -> String {
        if matches!(error, StepError::Cancelled | StepError::LeaseLost | StepError::Journal(_)) {
            return error.to_string();
        }
        let known = lock(&self.known).take();
        let known = match known {
            Some(known) => known,
            None => self.mask().await,
        };
        let text = known.0.text(&error.to_string());
        *lock(&self.known) = Some(known);
        text
    }

    /// Learns every secret that the target holds or the plan names, and says which one could not be read: what a
    /// program printed is then not kept, since nobody could star it.
    async fn mask(&self) -> (Mask, Option<String>) {
        let mut mask = Mask::default();
        let plan = self.request.plan;
        let planned = plan.release.iter().flat_map(|release| &release.desired.items);
        planned.clone().for_each(|item| mask.learn_variables(&item.payload));
        let mut names: Vec<ItemId> = planned.map(|item| item.id.clone()).collect();
        let inspector = self.ports.inspector;
        let read = async {
            match self.ports.orchestrator.observe().await {
                Ok(snapshot) => names.extend(snapshot.items.into_keys()),
                Err(error) => return Some(error.to_string()),
            }
            names.retain(|id| id.kind == ItemKind::Secret);
            names.sort();
            names.dedup();
            for id in &names {
                match inspector.secret(&id.name).await {
                    Ok(value) => value.iter().for_each(|value| mask.learn(value.expose())),
                    Err(error) => return Some(error.to_string()),
                }
            }
            None
        };
        let unread = tokio::time::timeout(PATIENCE, read).await;
        let unread = unread.unwrap_or_else(|_| Some(format!("the target took over {PATIENCE:?}")));
        (mask, unread)
    }

    /// Gathers what a bundle holds about one item; what cannot be had is left out.
    async fn look_at(&self, step: &Step, kind: Kind, item: &ItemId, told: &Told, pieces: &Pieces) {
        let replicas = match item.kind {
            ItemKind::Workload => self.ports.inspector.replicas(Some(&item.name)).await.ok(),
            _ => None,
        };
        let witnesses = Witnesses::among(replicas.as_deref().unwrap_or_default());
        for sort in kind.sorts(item.kind) {
            if let Some(reason) = told.unread.as_ref().filter(|_| sort.is_of_program()) {
                let text = format!(
                    "left out, since it may hold a secret that could not be read to star it: {reason}"
                );
                pieces.add(sort, vec![text]);
                continue;
            }
            match sort {
                Sort::Status => {
                    let live = self.observer.sender.borrow().get(item).cloned();
                    pieces.add(sort, live.iter().map(|live| describe(item, live)).collect());
                }
                Sort::Replicas => pieces.add(sort, witnesses.lines()),
                Sort::Log => {
                    let lines = self.log(item, told.began, witnesses.last_words(item, &told.events)).await;
                    let (mut log, mut previous) = (witnesses.logs(&lines), Vec::new());
                    if log.is_empty() {
                        // Nobody of the revision that failed is left: what there is beside it, rather than nothing.
                        previous.extend(lines.iter().map(|line| format!("{}: {}", line.replica, line.text)));
                    }
                    pieces.add(Sort::Log, log.drain(..).flatten().collect());
                    pieces.add(Sort::PreviousLog, previous);
                }
                Sort::Events => pieces.add(sort, witnesses.events(item, &told.events)),
                Sort::Probe => {
                    let mut answers = self.answers(item).await;
                    answers.retain(|answer| replicas.is_none() || !witnesses.excludes(&answer.subject));
                    pieces.add(sort, answers.iter().flat_map(answer_lines).collect());
                }
                Sort::Plan => pieces.add(sort, self.planned(step, item)),
                // Read together with the log; told of the whole system.
                Sort::PreviousLog | Sort::Failure | Sort::Gate => {}
            }
        }
    }

    /// Returns the last lines of every replica there is and was.
    async fn log(&self, item: &ItemId, began: Timestamp, until: Option<Timestamp>) -> Vec<LogLine> {
        let (service, tail) = (item.name.clone(), Some(TAIL));
        let query = LogQuery { service, previous: true, tail, since: Some(began), until, follow: false };
        let Ok(stream) = self.ports.inspector.logs(&query).await else { return Vec::new() };
        // Bounded as it comes: there may be many replicas, and lines of any length.
        let lines = stream.filter_map(|line| std::future::ready(line.ok())).take(REPLICAS * TAIL);
        let bounded =
            lines.map(|line| LogLine { text: line.text.chars().take(LINE_CHARS).collect(), ..line });
        bounded.collect().await
    }

    /// Returns when the run began, in its first process, by the target's clock: what the target tells is dated by that.
    async fn began(&self) -> Timestamp {
        let there = self.ports.orchestrator.observe().await.map(|snapshot| snapshot.taken_at);
        let now = self.ports.clock.now();
        let first = self.request.replay.and_then(|replay| replay.records.first());
        let ago = first.map_or_else(
            || self.teller.started.elapsed(),
            |record| Duration::try_from(now.duration_since(record.at)).unwrap_or_default(),
        );
        let there = there.unwrap_or(now);
        there.saturating_sub(ago).unwrap_or(there)
    }

    /// Asks each replica on the health paths that the plan asks of it.
    async fn answers(&self, item: &ItemId) -> Vec<ProbeAnswer> {
        let mut answers = Vec::new();
        let steps = self.request.plan.steps().map(|(_, step)| &step.action);
        let checks = steps.filter_map(|action| match action {
            Action::Health(gate) => Some(&gate.checks),
            _ => None,
        });
        let mine = checks.flatten().filter(|check| check.service == item.name);
        for check in mine {
            let request = ProbeRequest {
                service: item.name.clone(),
                through: check.through,
                path: check.path.clone(),
                timeout: ANSWER,
            };
            answers.extend(self.ports.inspector.probe(&request).await.unwrap_or_default());
        }
        answers
    }

    /// Returns the item as planned, with what a variable called like a secret says starred.
    fn planned(&self, step: &Step, item: &ItemId) -> Vec<String> {
        let desired = self.request.plan.release.iter().flat_map(|release| &release.desired.items);
        let Some(planned) = of_step(&step.action).chain(desired).find(|planned| planned.id == *item) else {
            return Vec::new();
        };
        let value = serde_json::to_value(planned).unwrap_or_default();
        let text = serde_json::to_string_pretty(&Mask::default().value(&value)).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

/// Returns the items that a step itself writes or migrates: on the way back they are not those of the release.
fn of_step(action: &Action) -> impl Iterator<Item = &Item> {
    let (writes, migrations) = match action {
        Action::Apply(apply) => (&apply.writes[..], &[][..]),
        Action::Migrate(migrate) => (&[][..], &migrate.items[..]),
        _ => (&[][..], &[][..]),
    };
    let put = writes.iter().filter_map(|write| match write {
        Write::Put { item, .. } => Some(item),
        _ => None,
    });
    put.chain(migrations)
}
