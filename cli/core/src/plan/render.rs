//! A plan as rows, for a table or a diff; the words are chosen where they are printed.

use super::{Change, Operand, Plan};

/// One row of a plan: a step, and what it does to one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Row<'a> {
    /// The phase.
    pub phase: &'a str,
    /// The step's id.
    pub step: &'a str,
    /// What the step does.
    pub title: &'a str,
    /// The change; none for a step that only looks.
    pub change: Option<&'a Change>,
    /// Why the step has nothing to do.
    pub skip: Option<&'a str>,
}

impl Row<'_> {
    /// Says whether the row changes something.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.change.is_some_and(|change| change.op != Operand::Keep)
    }
}

/// Returns the rows of a plan, in order.
#[must_use]
pub fn rows(plan: &Plan) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for (phase, step) in plan.steps() {
        let row =
            |change| Row { phase, step: &step.id, title: &step.title, change, skip: step.skip.as_deref() };
        if step.changes.is_empty() {
            rows.push(row(None));
        }
        rows.extend(step.changes.iter().map(|change| row(Some(change))));
    }
    rows
}
