//! A saved plan: what `--out` writes and `--plan` runs.

use std::collections::BTreeSet;

use super::Plan;
use crate::yaml::{KeyPath, Problem, Problems, did_you_mean, shown, typed};

/// Bytes of a saved plan: it holds the files of a release.
pub const LARGEST: usize = 64 << 20;

impl Plan {
    /// Reads a saved plan. `file` is what problems call it.
    ///
    /// # Errors
    /// No JSON, no plan, or a plan that refers to what it does not have.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let text = typed::text_of(file, bytes, LARGEST)?;
        let plan: Self = serde_json::from_str(text).map_err(|error| {
            let at = typed::byte_of(text, error.line(), error.column());
            typed::refused(file, text, at, &error.to_string())
        })?;
        plan.contradictions(file).or(plan)
    }

    /// Returns what a plan of the planner never has, and one changed by hand may.
    fn contradictions(&self, file: &str) -> Problems {
        let mut problems = Problems::default();
        let mut tell = |path: KeyPath, message: String, suggestion: Option<String>| {
            problems.push(Problem { file: file.into(), line: 1, column: 1, path, message, suggestion });
        };
        let (root, phases) = (KeyPath::default(), KeyPath::default().key("phases"));
        let mut names: Vec<&str> = Vec::new();
        let mut steps = BTreeSet::new();
        for (index, phase) in self.phases.iter().enumerate() {
            let path = phases.item(index);
            if names.contains(&phase.name.as_str()) {
                let message = format!("found the phase `{}` again, expected it once", shown(&phase.name));
                tell(path.key("name"), message, None);
            }
            names.push(&phase.name);
            for (index, step) in phase.steps.iter().enumerate() {
                if !steps.insert(step.id.as_str()) {
                    let message = format!("found the step `{}` again, expected it once", shown(&step.id));
                    tell(path.key("steps").item(index).key("id"), message, None);
                }
            }
        }
        let referred = (self.rolls_back.iter().enumerate())
            .map(|(index, name)| (root.key("rolls_back").item(index), name))
            .chain(self.head_after.iter().map(|name| (root.key("head_after"), name)));
        for (path, name) in referred.filter(|(_, name)| !names.contains(&name.as_str())) {
            let suggestion = did_you_mean(name, names.iter().copied());
            tell(path, format!("unknown phase `{}`, expected a phase of this plan", shown(name)), suggestion);
        }
        problems
    }
}
