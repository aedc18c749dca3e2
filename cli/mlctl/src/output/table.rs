//! Tables: aligned columns on a terminal, tab-separated elsewhere.

use mlctl_core::gate::{GateResult, Verdict};

use super::text::{SHOWN, shortened, strip_control};
use super::{Style, Styles};

/// Rows of cells under headings.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<(String, Option<Style>)>>,
}

impl Table {
    /// Returns an empty table.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&text| text.to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row. What a cell holds may come from others: it cannot move the cursor.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Option<Style>)>) {
        self.rows.push(cells.into_iter().map(|(cell, style)| (strip_control(&cell), style)).collect());
    }

    /// Adds a row without styles.
    pub fn plain(&mut self, cells: &[&str]) {
        self.row(cells.iter().map(|&cell| (cell.to_owned(), None)));
    }

    /// Says whether there are no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the text, each line ended.
    #[must_use]
    pub fn render(&self, styles: Styles) -> String {
        let columns = self.head.len();
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|(cell, _)| cell.chars().count());
            cells.chain([self.head[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        let heads: Vec<_> = self.head.iter().map(|head| (head.clone(), Some(Style::Heading))).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for (at, (cell, style)) in row.iter().enumerate().take(columns) {
                let pad = widths[at].saturating_sub(cell.chars().count());
                line.push_str(&style.map_or_else(|| cell.clone(), |style| styles.paint(style, cell)));
                if at + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', pad + 2));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Returns the style of a verdict.
#[must_use]
pub const fn verdict_style(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Pass => Style::Good,
        Verdict::Inconclusive => Style::Warn,
        Verdict::Fail => Style::Bad,
    }
}

/// Returns what gates said, one row a result.
pub fn gate_table<'a>(results: impl IntoIterator<Item = &'a GateResult>) -> Table {
    let mut table = Table::new(&["CHECK", "VERDICT", "WANTS", "GOT"]);
    for result in results {
        table.row([
            (result.subject.clone(), None),
            (result.verdict.word().to_owned(), Some(verdict_style(result.verdict))),
            (result.want.clone(), None),
            (shortened(&result.got, SHOWN), None),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::World;
    use crate::settings::ColorChoice;

    #[test]
    fn columns_align_and_lines_have_no_trailing_space() {
        let world = World::sealed(
            std::collections::BTreeMap::new(),
            "/".into(),
            "/mlctl".into(),
            Box::new(std::io::sink()),
            Box::new(std::io::sink()),
        );
        let mut table = Table::new(&["SERVICE", "READY", "CAUSE"]);
        table.plain(&["a", "2/2", ""]);
        table.plain(&["longer-name", "0/2", "starting"]);
        let text = table.render(Styles::for_stream(&world, ColorChoice::Never, false));
        assert_eq!(text, "SERVICE      READY  CAUSE\na            2/2\nlonger-name  0/2    starting\n");
    }
}
