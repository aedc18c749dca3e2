//! Evidence: what a bundle holds for which failure. Pure: tables and bounds; `gather` asks the target.
//!
//! A bundle is gathered before anything is undone, because the way back destroys it. It is told as `evidence` events
//! and kept at home, beside the run. It is not mirrored on the target: the target has the logs themselves for as long
//! as it keeps the replica, a cluster has no room for texts of that size beside its lease (a ConfigMap ends at 1 MiB),
//! and a log that is copied to more places is a secret that leaks from more places. What has to survive a lost home
//! folder does: the journal's mirror holds how each step ended and why, and the failed release carries its reason.

use std::collections::BTreeMap;

use crate::gate::{GateResult, Verdict};
use crate::item::{ItemId, ItemKind};
use crate::ports::ProbeAnswer;
use crate::snapshot::Live;
use crate::status::Status;
use crate::steps::{Action, StepError};

/// Items one bundle is about; those beyond are named.
pub(super) const MOST_ITEMS: usize = 8;
/// Characters of one line.
const LINE_CHARS: usize = 2_000;
/// Bytes of one piece: with the items and sorts there are, a bundle stays below two megabytes.
const PIECE_BYTES: usize = 32 * 1024;

/// One sort of evidence about one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    /// Why the step failed.
    Failure,
    /// Where the item stands.
    Status,
    /// Its replicas, with their restarts and last exits.
    Replicas,
    /// The end of the log of replicas that are there.
    Log,
    /// The end of the log of replicas that are gone.
    PreviousLog,
    /// What the target says happened to it.
    Events,
    /// What each replica answers on the health path of the plan.
    Probe,
    /// What the gate said.
    Gate,
    /// The item as planned.
    Plan,
}

impl Sort {
    /// Returns the word in events and file names.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Status => "status",
            Self::Replicas => "replica",
            Self::Log => "log",
            Self::PreviousLog => "previous_log",
            Self::Events => "event",
            Self::Probe => "probe",
            Self::Gate => "gate",
            Self::Plan => "plan",
        }
    }

    /// Says whether an item of that kind can have it: only a workload has replicas, logs and answers.
    const fn fits(self, kind: ItemKind) -> bool {
        matches!(self, Self::Status | Self::Events | Self::Plan) || matches!(kind, ItemKind::Workload)
    }

    /// Says whether it is text of the program itself, which may print a secret.
    pub(super) const fn is_of_program(self) -> bool {
        matches!(self, Self::Log | Self::PreviousLog | Self::Probe)
    }

    /// Says which end of too long a text is kept: the last words of a log, the first of everything else.
    const fn keeps_end(self) -> bool {
        matches!(self, Self::Log | Self::PreviousLog | Self::Events)
    }
}

/// What failed, as far as evidence is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An item cannot become what it should.
    Item,
    /// A clock ran out.
    Deadline,
    /// A gate said no, or could not tell.
    Gate,
    /// A load run failed its thresholds or could not begin.
    Load,
    /// A migration failed.
    Migration,
    /// The target refused a call.
    Refused,
}

impl Kind {
    /// Tells what a step failed by; none when nothing failed: it was stopped, or could not be recorded.
    pub(super) fn of(error: &StepError, action: &Action) -> Option<Self> {
        Some(match (error, action) {
            (StepError::Cancelled | StepError::LeaseLost | StepError::Journal(_), _) => return None,
            (StepError::Terminal { .. }, _) => Self::Item,
            (StepError::Load(_), _) | (_, Action::Load(_)) => Self::Load,
            (StepError::Store(_), _) | (_, Action::Migrate(_)) => Self::Migration,
            (StepError::GateFailed { .. } | StepError::GateInconclusive { .. }, _) => Self::Gate,
            (StepError::Target(_), _) => Self::Refused,
            (StepError::Deadline { .. }, action) if action.is_change() => Self::Deadline,
            (StepError::Deadline { .. }, _) => Self::Gate,
        })
    }

    /// Returns what a bundle holds about an item of that kind, in the order in which it is read.
    pub(super) fn sorts(self, item: ItemKind) -> Vec<Sort> {
        use Sort::{Events, Log, Plan, PreviousLog, Probe, Replicas, Status};
        let wanted: &[Sort] = match self {
            Self::Item | Self::Deadline | Self::Gate => {
                &[Status, Replicas, Log, PreviousLog, Events, Probe, Plan]
            }
            Self::Load => &[Status, Replicas, Log, PreviousLog, Events, Probe],
            Self::Migration => &[Status, Replicas, Log, Events, Plan],
            Self::Refused => &[Status, Replicas, Events, Plan],
        };
        wanted.iter().copied().filter(|sort| sort.fits(item)).collect()
    }

    /// Returns the items a bundle is about: those the error names, else those of the step that are not current; for
    /// what judges the whole (a KPI over all requests names nobody), every workload there is. Says whether the failure
    /// names them.
    pub(super) fn subjects(
        self,
        error: &StepError,
        action: &Action,
        lives: &BTreeMap<ItemId, Live>,
    ) -> (Vec<ItemId>, bool) {
        let mut subjects: Vec<ItemId> = match (error, self) {
            (StepError::Terminal { item, .. }, _) => vec![item.clone()],
            (_, Self::Migration) => match action {
                Action::Migrate(step) => {
                    let of = |id: &ItemId| [id.clone(), ItemId::workload(&id.name)];
                    step.items.iter().flat_map(|item| of(&item.id)).collect()
                }
                _ => Vec::new(),
            },
            (_, Self::Refused) => step_items(action),
            _ => {
                let step = step_items(action);
                // What later steps will make is not there yet, and says nothing.
                let due =
                    |id: &ItemId, live: &Live| live.status.status != Status::NotFound || step.contains(id);
                let down = lives.iter().filter(|(id, live)| !live.is_current() && due(id, live));
                let down = down.map(|(id, _)| id.clone());
                let named = refused(error).filter_map(|result| result.subject.split(' ').next());
                down.chain(named.map(ItemId::workload).filter(|id| lives.contains_key(id))).collect()
            }
        };
        let mut named = true;
        match self {
            Self::Gate | Self::Load if subjects.is_empty() => {
                named = false;
                subjects.extend(lives.keys().filter(|id| id.kind == ItemKind::Workload).cloned());
            }
            Self::Deadline if subjects.is_empty() => subjects.extend(step_items(action)),
            _ => {}
        }
        subjects.sort();
        subjects.dedup();
        (subjects, named)
    }
}

fn step_items(action: &Action) -> Vec<ItemId> {
    match action {
        Action::Apply(apply) => apply.writes.iter().map(|write| write.id().clone()).collect(),
        _ => Vec::new(),
    }
}

/// Returns what a gate did not let pass.
fn refused(error: &StepError) -> impl Iterator<Item = &GateResult> {
    results(error).iter().filter(|result| result.verdict != Verdict::Pass)
}

/// Returns everything a gate said.
pub(super) fn results(error: &StepError) -> &[GateResult] {
    match error {
        StepError::GateFailed { results } | StepError::GateInconclusive { results } => results,
        _ => &[],
    }
}

/// Cuts a piece down to its bounds; says what was cut.
pub(super) fn bounded(sort: Sort, lines: Vec<String>) -> (Vec<String>, Option<String>) {
    let total = lines.len();
    let mut shortened = 0_usize;
    let mut room = PIECE_BYTES;
    let mut kept = Vec::new();
    let mut ordered: Box<dyn Iterator<Item = String>> =
        if sort.keeps_end() { Box::new(lines.into_iter().rev()) } else { Box::new(lines.into_iter()) };
    for line in &mut ordered {
        let line = match line.char_indices().nth(LINE_CHARS) {
            Some((end, _)) => {
                shortened += 1;
                format!("{} (and {} more bytes)", &line[..end], line.len() - end)
            }
            None => line,
        };
        let Some(left) = room.checked_sub(line.len() + 1) else { break };
        room = left;
        kept.push(line);
    }
    if sort.keeps_end() {
        kept.reverse();
    }
    let left_out = total - kept.len();
    let which = if sort.keeps_end() { "earlier" } else { "later" };
    let cuts = [
        (left_out > 0).then(|| format!("{left_out} {which} lines are left out")),
        (shortened > 0).then(|| format!("{shortened} lines are shortened")),
    ];
    let cuts: Vec<String> = cuts.into_iter().flatten().collect();
    (kept, (!cuts.is_empty()).then(|| cuts.join(", ")))
}

pub(super) fn answer_lines(answer: &ProbeAnswer) -> Vec<String> {
    let ProbeAnswer { subject, url, detail, took, .. } = answer;
    let status = answer.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let head = format!("{subject}: {status} from {url} in {} ms", took.as_millis());
    std::iter::once(head).chain(detail.lines().map(|line| format!("  {line}"))).collect()
}

pub(super) fn result_line(result: &GateResult) -> String {
    let GateResult { subject, want, got, verdict } = result;
    format!("{verdict}: {subject} wants {want}, got {got}")
}

#[cfg(test)]
mod tests;
