//! Progress: the same lines as elsewhere, above a live region that is redrawn in place at most ten times a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mlctl_core::event::{Event, EventKind, EventSink};
use mlctl_core::run::{RunState, StepProgress};
use mlctl_core::status::Status;

use super::lines::lines_of;
use super::words::item_line;
use crate::output::text::{SHOWN, shortened, strip_control};
use crate::output::{Printer, Style};

/// Redraws are no closer together than this.
const FRAME: Duration = Duration::from_millis(100);
/// Columns of the bar.
const BAR: u64 = 24;
/// A terminal with fewer columns or rows has lines only: there is no room to draw in.
const LEAST: (usize, usize) = (20, 4);

/// Draws a run on a terminal.
pub struct Progress<'a> {
    printer: &'a Printer,
    state: Mutex<Region>,
}

#[derive(Default)]
struct Region {
    run: RunState,
    /// Columns of each line drawn last, to be taken away before the next frame.
    drawn: Vec<usize>,
    last: Option<Instant>,
}

impl<'a> Progress<'a> {
    /// Returns the reader.
    #[must_use]
    pub fn new(printer: &'a Printer) -> Self {
        Self { printer, state: Mutex::default() }
    }

    /// Returns the lines of the region for a terminal of that many columns and rows, each with its width.
    fn frame(&self, run: &RunState, (columns, rows): (usize, usize)) -> Vec<(String, usize)> {
        let styles = self.printer.err_styles();
        let Some((_, _, step)) = run.current_step() else { return Vec::new() };
        if columns < LEAST.0 || rows < LEAST.1 {
            return Vec::new();
        }
        let finished =
            |step: &mlctl_core::run::StepState| matches!(step.progress, StepProgress::Finished { .. });
        let steps = || run.phases.values().flat_map(|p| p.steps.values());
        let (done, all) = (steps().filter(|s| finished(s)).count() as u64, steps().count() as u64);
        let mut lines =
            vec![(None, format!("{} step {} of {all}: {}", bar(done, all), done + 1, step.title))];
        let waiting = run.items.iter().filter(|(_, item)| item.status != Status::Current);
        for (id, item) in waiting.take(6) {
            let line = item_line(id, item.status, item.counts, item.cause.as_ref());
            lines.push((Some(Style::Dim), format!("  {line}")));
        }
        if let Some((done, total, text)) = &step.latest {
            let bar = if *total > 0 { format!("{} ", bar(*done, *total)) } else { String::new() };
            lines.push((None, format!("  {bar}{text}")));
        }
        // The last column and row stay free: a terminal that wraps or scrolls at them moves what was drawn.
        let lines = lines.into_iter().take(rows - 1);
        lines
            .map(|(style, line)| {
                // Cut first and painted then: what paints takes no column.
                let line: String = strip_control(&line).chars().take(columns - 1).collect();
                let width = line.chars().count();
                (style.map_or_else(|| line.clone(), |style| styles.paint(style, &line)), width)
            })
            .collect()
    }

    fn draw(&self, region: &mut Region, above: &[String]) {
        let size = self.printer.world().terminal_size();
        let mut bytes = String::new();
        let taken = rows_taken(&region.drawn, size);
        if taken > 0 {
            bytes.push_str(&format!("\u{1b}[{taken}A\u{1b}[J"));
        }
        for line in above {
            bytes.push_str(line);
            bytes.push('\n');
        }
        let frame = self.frame(&region.run, size);
        for (line, _) in &frame {
            bytes.push_str(line);
            bytes.push('\n');
        }
        region.drawn = frame.into_iter().map(|(_, width)| width).collect();
        region.last = Some(Instant::now());
        if !bytes.is_empty() {
            self.printer.world().stderr(bytes.as_bytes());
        }
    }
}

/// Returns how many rows above the cursor lines of those widths take now: a narrower window has wrapped them, and
/// what has left it at the top cannot be reached.
fn rows_taken(drawn: &[usize], (columns, rows): (usize, usize)) -> usize {
    let wrapped: usize = drawn.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
    wrapped.min(rows.saturating_sub(1))
}

fn bar(done: u64, total: u64) -> String {
    let filled = (done.min(total) * BAR).checked_div(total).unwrap_or(0);
    let part = |count: u64, with: char| std::iter::repeat_n(with, usize::try_from(count).unwrap_or(0));
    format!("[{}]", part(filled, '=').chain(part(BAR - filled, ' ')).collect::<String>())
}

impl EventSink for Progress<'_> {
    fn take(&self, event: &Event) {
        let mut region = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        region.run.apply(event);
        let fleeting = matches!(event.kind, EventKind::Progress { .. } | EventKind::Workload { .. });
        let above = match &event.kind {
            _ if fleeting => Vec::new(),
            EventKind::StepStarted { attempt: 1, .. } => Vec::new(),
            EventKind::Warning { text } => {
                let text = shortened(text, SHOWN);
                vec![format!("{} {text}", self.printer.err_styles().paint(Style::Warn, "warning:"))]
            }
            _ => lines_of(event, &region.run, self.printer),
        };
        let due = region.last.is_none_or(|last| last.elapsed() >= FRAME);
        if !fleeting || due {
            self.draw(&mut region, &above);
        }
    }
}

#[cfg(test)]
mod tests {
    use mlctl_core::event::{EVENT_VERSION, PhaseListing, StepListing};
    use mlctl_core::release::Operator;

    use super::*;
    use crate::output::World;
    use crate::settings::{ColorChoice, OutputSettings};

    #[test]
    fn a_frame_is_no_wider_than_the_terminal_and_leaves_no_color_on() {
        let sink = || Box::new(std::io::sink());
        let world = World::sealed([].into(), "/".into(), "/mlctl".into(), sink(), sink());
        let settings = OutputSettings { color: ColorChoice::Always, ..OutputSettings::default() };
        let printer = Printer::new(&world, &settings);
        let long = "word ".repeat(100);
        let listing = PhaseListing {
            name: "p".into(),
            title: "p".into(),
            steps: vec![StepListing { id: "s".into(), title: long.clone() }],
        };
        let kinds = [
            EventKind::RunStarted {
                operation: "deploy".into(),
                system: "shop".into(),
                target: "sim".into(),
                operator: Operator { name: "ana".into(), host: "desk".into() },
                release: None,
                plan: String::new(),
                resumed: false,
                phases: vec![listing.clone()],
            },
            EventKind::PhaseStarted { phase: "p".into(), steps: listing.steps, deadline: None },
            EventKind::StepStarted { phase: "p".into(), step: "s".into(), attempt: 1 },
            EventKind::Workload {
                phase: "p".into(),
                step: "s".into(),
                item: mlctl_core::item::ItemId::workload("api"),
                status: Status::InProgress,
                ready: 0,
                updated: 0,
                desired: 2,
                cause: Some(mlctl_core::status::Cause::transient("starting", &long)),
                deadline: None,
            },
        ];
        let mut run = RunState::default();
        for (seq, kind) in (1..).zip(kinds) {
            let at = jiff::Timestamp::UNIX_EPOCH;
            run.apply(&Event { v: EVENT_VERSION, run: "r".into(), seq, at, elapsed_ms: 0, kind });
        }
        let progress = Progress::new(&printer);
        for (columns, rows, lines) in
            [(100, 24, 2), (20, 4, 2), (19, 24, 0), (100, 3, 0), (1, 1, 0), (0, 0, 0)]
        {
            let frame = progress.frame(&run, (columns, rows));
            assert_eq!(frame.len(), lines, "{columns}x{rows}");
            for (line, width) in &frame {
                assert_eq!(
                    (strip_control(line).chars().count(), *width),
                    (columns - 1, columns - 1),
                    "{line}"
                );
            }
            assert!(frame.last().is_none_or(|(line, _)| line.ends_with("\u{1b}[0m")), "{frame:?}");
        }
    }

    #[test]
    fn a_region_is_taken_away_whatever_became_of_the_window() {
        for (drawn, size, rows) in [
            (&[][..], (80, 24), 0),
            (&[79, 10, 0], (80, 24), 3),
            (&[79, 10, 0], (300, 100), 3),
            (&[79, 10, 0], (20, 24), 4 + 1 + 1),
            (&[79, 10, 0], (20, 5), 4),
            (&[79], (1, 1), 0),
            (&[79], (0, 24), 23),
        ] {
            assert_eq!(rows_taken(drawn, size), rows, "{drawn:?} in {size:?}");
        }
    }

    #[test]
    fn a_bar_is_as_wide_whatever_is_done() {
        for (done, total) in [(0, 0), (0, 7), (3, 7), (7, 7), (9, 7)] {
            assert_eq!(bar(done, total).len(), 26, "{done} of {total}");
        }
        assert_eq!(bar(1, 2), "[============            ]");
    }
}
