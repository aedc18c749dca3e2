//! GitHub: groups, annotations, masks and a step summary, on stderr so that stdout stays data.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use mlctl_core::event::{Event, EventKind, EventSink, RunOutcome};
use mlctl_core::run::RunState;
use mlctl_core::secret::Secret;

use super::words::duration;
use crate::output::Printer;
use crate::output::text::{SHOWN, shortened};

/// Writes workflow commands.
pub struct GitHub<'a> {
    printer: &'a Printer,
    state: Mutex<RunState>,
}

impl<'a> GitHub<'a> {
    /// Returns the reader when the process runs in a GitHub workflow.
    #[must_use]
    pub fn in_workflow(printer: &'a Printer) -> Option<Self> {
        (printer.world().var("GITHUB_ACTIONS").as_deref() == Some("true"))
            .then(|| Self { printer, state: Mutex::default() })
    }

    /// Has the workflow's log show stars for a secret, whoever prints it.
    pub fn mask(printer: &Printer, secret: &Secret) {
        // A mask is one line: each line of a key file gets its own.
        for line in secret.expose().lines().filter(|line| !line.trim().is_empty()) {
            printer.talk(&format!("::add-mask::{}", escape(line)));
        }
    }

    /// Appends Markdown to the step's summary.
    fn summarize(&self, state: &RunState) {
        let Some(path) = self.printer.world().path("GITHUB_STEP_SUMMARY") else { return };
        let text = markdown(state);
        let written = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            self.printer.warning(&format!("write the step summary {}: {error}", path.display()));
        }
    }
}

impl EventSink for GitHub<'_> {
    fn take(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.apply(event);
        match &event.kind {
            EventKind::PhaseStarted { phase, .. } => {
                self.printer.talk(&format!("::group::{}", escape(phase)));
            }
            EventKind::PhaseFinished { .. } => self.printer.talk("::endgroup::"),
            EventKind::Warning { text } => {
                self.printer.talk(&format!("::warning::{}", escape(&shortened(text, SHOWN))));
            }
            EventKind::RunFinished { outcome, reason, .. } => {
                if *outcome != RunOutcome::Succeeded {
                    let title =
                        escape(&format!("{} {}", state.operation, outcome.words())).replace([':', ','], " ");
                    self.printer
                        .talk(&format!("::error title={title}::{}", escape(&shortened(reason, SHOWN))));
                }
                self.summarize(&state);
            }
            _ => {}
        }
    }
}

/// Escapes text for a workflow command (GitHub's "workflow commands" page).
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn markdown(state: &RunState) -> String {
    let Some(finish) = &state.finish else { return String::new() };
    let mut text = format!(
        "### {} of {} on {} {}\n\n",
        state.operation,
        state.system,
        state.target,
        finish.outcome.words()
    );
    if !finish.reason.is_empty() {
        text.push_str(&format!("{}\n\n", shortened(&finish.reason, SHOWN)));
    }
    text.push_str("| phase | outcome | took |\n|---|---|---|\n");
    for (name, phase) in &state.phases {
        let outcome = phase.outcome.map_or("not run", |outcome| outcome.word());
        text.push_str(&format!("| {name} | {outcome} | {} |\n", duration(phase.took_ms)));
    }
    if !state.gates.is_empty() {
        text.push_str("\n| check | wants | got | verdict |\n|---|---|---|---|\n");
    }
    for (_, gate) in &state.gates {
        text.push_str(&format!(
            "| {} | `{}` | {} | {} |\n",
            gate.subject,
            gate.want,
            shortened(&gate.got, SHOWN),
            gate.verdict
        ));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn foreign_text_cannot_start_a_command() {
        assert_eq!(escape("100%\n::error::no"), "100%25%0A::error::no");
    }
}
