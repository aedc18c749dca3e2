//! Lines: one line a change, never a carriage return, and a heartbeat while nothing changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mlctl_core::event::{Event, EventKind, EventSink, Outcome};
use mlctl_core::item::ItemId;
use mlctl_core::run::RunState;
use mlctl_core::status::Status;
use mlctl_core::steps::load::sentence;

use super::words::{duration, item_line};
use crate::output::text::{SHOWN, shortened};
use crate::output::{Printer, Style, verdict_style};

/// Lines of a piece of evidence shown at once; all of them are in the run's event file.
const EVIDENCE_LINES: usize = 12;
/// What of the evidence is shown at once; the rest is for whoever opens the folder.
const PRINTED: [&str; 5] = ["status", "replica", "log", "previous_log", "event"];
/// Between two progress lines of one step.
const PROGRESS_EVERY_MS: u64 = 5_000;

/// Prints a run line by line.
pub struct Lines<'a> {
    printer: &'a Printer,
    state: Mutex<Told>,
}

/// What was said so far.
#[derive(Default)]
struct Told {
    run: RunState,
    /// No progress line before this many milliseconds of the run.
    quiet_until: u64,
    /// Status, counts and cause last told of an item: a cause whose text only counts on is not told again.
    items: BTreeMap<ItemId, (Status, [u32; 3], Option<String>)>,
}

impl Told {
    /// Takes an event and says whether it is worth a line.
    fn is_news(&mut self, event: &Event) -> bool {
        self.run.apply(event);
        match &event.kind {
            EventKind::Progress { .. } if event.elapsed_ms < self.quiet_until => false,
            EventKind::Progress { .. } => {
                self.quiet_until = event.elapsed_ms + PROGRESS_EVERY_MS;
                true
            }
            EventKind::Workload { item, status, ready, updated, desired, cause, .. } => {
                let now =
                    (*status, [*ready, *updated, *desired], cause.as_ref().map(|cause| cause.code.clone()));
                self.items.insert(item.clone(), now.clone()) != Some(now)
            }
            _ => true,
        }
    }
}

impl<'a> Lines<'a> {
    /// Returns the reader.
    #[must_use]
    pub fn new(printer: &'a Printer) -> Self {
        Self { printer, state: Mutex::default() }
    }

    fn say(&self, elapsed_ms: u64, line: &str) {
        let stamp = format!("{:>4}.{}s", elapsed_ms / 1000, elapsed_ms % 1000 / 100);
        let styles = self.printer.err_styles();
        self.printer.status(&format!("{} {line}", styles.paint(Style::Dim, &stamp)));
    }
}

impl EventSink for Lines<'_> {
    fn take(&self, event: &Event) {
        let mut told = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.is_news(event) {
            return;
        }
        if let EventKind::Warning { text } = &event.kind {
            self.printer.warning(text);
            return;
        }
        for line in lines_of(event, &told.run, self.printer) {
            self.say(event.elapsed_ms, &line);
        }
    }
}

/// Returns what there is to say about one event.
pub(super) fn lines_of(event: &Event, state: &RunState, printer: &Printer) -> Vec<String> {
    let styles = printer.err_styles();
    let title = |phase: &str, step: &str| {
        let step = state.phases.get(phase).and_then(|p| p.steps.get(step));
        step.map_or_else(String::new, |step| step.title.clone())
    };
    match &event.kind {
        EventKind::RunStarted { operation, system, target, release, resumed, .. } => {
            let release = release.map(|number| format!(" release {number}")).unwrap_or_default();
            let verb = if *resumed { format!("resuming {operation}") } else { operation.clone() };
            vec![styles.paint(
                Style::Heading,
                &format!("{verb}{release} of {system} on {target} (run {})", event.run),
            )]
        }
        EventKind::PhaseStarted { phase, .. } => {
            let title = state.phases.get(phase).map_or(phase.as_str(), |p| p.title.as_str());
            let title = if title == phase { phase.clone() } else { format!("{phase}: {title}") };
            vec![styles.paint(Style::Heading, &format!("== {title}"))]
        }
        EventKind::StepStarted { phase, step, attempt } => {
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            vec![format!("   {}{again}", title(phase, step))]
        }
        EventKind::Workload { item, status, ready, updated, desired, cause, .. } => {
            let line = item_line(item, *status, (*ready, *updated, *desired), cause.as_ref());
            let style = match status {
                Status::Current => Style::Good,
                Status::Failed => Style::Bad,
                _ => Style::Dim,
            };
            vec![format!("     {}", styles.paint(style, &shortened(&line, SHOWN)))]
        }
        EventKind::Progress { text, .. } => vec![format!("     {}", shortened(text, SHOWN))],
        EventKind::Gate { result, .. } => {
            let verdict = styles.paint(verdict_style(result.verdict), result.verdict.word());
            vec![format!(
                "     {verdict}: {} wants {}, got {}",
                result.subject,
                result.want,
                shortened(&result.got, SHOWN)
            )]
        }
        EventKind::Load { report, .. } if report.interrupted => vec![format!("     {}", sentence(report))],
        EventKind::Load { .. } => Vec::new(),
        EventKind::Retry { attempt, after_ms, reason, .. } => {
            vec![format!(
                "     attempt {attempt} failed: {}; again in {}",
                shortened(reason, SHOWN),
                duration(*after_ms)
            )]
        }
        EventKind::Evidence { named: false, .. } => Vec::new(),
        EventKind::Evidence { what, .. } if !PRINTED.contains(&what.as_str()) => Vec::new(),
        EventKind::Evidence { item, what, lines, .. } => {
            let what = what.replace('_', " ");
            let more = lines.len().saturating_sub(EVIDENCE_LINES);
            let mut told = vec![format!("     evidence about {}, {what}:", item.name)];
            if more > 0 {
                told.push(format!("       ({more} earlier lines in the run's events)"));
            }
            told.extend(lines.iter().skip(more).map(|line| format!("       {}", shortened(line, SHOWN))));
            told
        }
        EventKind::StepFinished { phase, step, outcome, note, took_ms } => {
            if *outcome == Outcome::WillNotRun {
                return Vec::new();
            }
            let (style, word) = outcome_style(*outcome);
            let word = styles.paint(style, word);
            let note = shortened(note, SHOWN);
            vec![format!("   {word}: {} ({note}) in {}", title(phase, step), duration(*took_ms))]
        }
        EventKind::PhaseFinished { phase, outcome, took_ms } => {
            let (style, word) = outcome_style(*outcome);
            vec![format!("== {phase} {} in {}", styles.paint(style, word), duration(*took_ms))]
        }
        EventKind::Warning { .. } | EventKind::RunFinished { .. } => Vec::new(),
    }
}

const fn outcome_style(outcome: Outcome) -> (Style, &'static str) {
    let style = match outcome {
        Outcome::Success => Style::Good,
        Outcome::Warning => Style::Warn,
        Outcome::Skipped | Outcome::WillNotRun => Style::Dim,
        Outcome::Failed | Outcome::Aborted => Style::Bad,
    };
    (style, outcome.word())
}
