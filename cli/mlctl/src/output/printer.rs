//! The printer: which stream is on, and in which voice. Data to stdout, everything else to stderr.

use serde::Serialize;

use super::text::{SHOWN, shortened};
use super::{Style, Styles, Table, World};
use crate::error::CommandError;
use crate::settings::{OutputFormat, OutputSettings};

/// Lines of one error's text that are shown.
const MOST_LINES: usize = 100;

/// Prints.
pub struct Printer {
    world: World,
    settings: OutputSettings,
    out: Styles,
    err: Styles,
}

impl Printer {
    /// Returns a printer for the world.
    #[must_use]
    pub fn new(world: &World, settings: &OutputSettings) -> Self {
        Self {
            out: Styles::for_stream(world, settings.color, world.stdout_is_terminal()),
            err: Styles::for_stream(world, settings.color, world.stderr_is_terminal()),
            world: world.clone(),
            settings: settings.clone(),
        }
    }

    /// Returns the surroundings.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Says whether data is wanted as JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.settings.format == OutputFormat::Json
    }

    /// Says whether more detail is wanted.
    #[must_use]
    pub const fn is_verbose(&self) -> bool {
        self.settings.verbose
    }

    /// Says whether status is unwanted.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.settings.quiet
    }

    /// Returns the styles of stdout.
    #[must_use]
    pub const fn out_styles(&self) -> Styles {
        self.out
    }

    /// Returns the styles of stderr.
    #[must_use]
    pub const fn err_styles(&self) -> Styles {
        self.err
    }

    /// Returns a text that names commands of mlctl so that they are about the same file and target.
    #[must_use]
    pub fn hint(&self, text: &str) -> String {
        match self.settings.again.as_str() {
            "" => text.to_owned(),
            flags => text.replace("mlctl ", &format!("mlctl{flags} ")),
        }
    }

    /// Prints a line of data.
    pub fn data(&self, line: &str) {
        self.world.stdout(format!("{}\n", line.trim_end_matches('\n')).as_bytes());
    }

    /// Prints a table as data.
    pub fn table(&self, table: &Table) {
        self.world.stdout(table.render(self.out).as_bytes());
    }

    /// Prints a value as one JSON document.
    pub fn json<T: Serialize>(&self, value: &T) {
        // What we print is strings, numbers and maps with string keys: it always serializes.
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.data(&text);
    }

    /// Prints a value as one line of JSON, where several follow each other.
    pub fn json_line<T: Serialize>(&self, value: &T) {
        self.data(&serde_json::to_string(value).unwrap_or_default());
    }

    /// Prints a status line; `--quiet` silences it.
    pub fn status(&self, line: &str) {
        if !self.settings.quiet {
            self.talk(line);
        }
    }

    /// Prints a line of detail; only `--verbose` shows it.
    pub fn detail(&self, line: &str) {
        if self.settings.verbose {
            self.talk(&self.err.paint(Style::Dim, line));
        }
    }

    /// Prints a warning; never silenced.
    pub fn warning(&self, text: &str) {
        let text = shortened(text, SHOWN);
        self.talk(&format!("{} {text}", self.err.paint(Style::Warn, "warning:")));
    }

    /// Prints an error with its causes and hints; never silenced. As JSON where data is.
    pub fn error(&self, error: &CommandError) {
        if self.is_json() {
            let document = serde_json::json!({
                "error": {"code": error.status as u8, "text": error.text, "causes": error.causes, "hints": error.hints}
            });
            self.talk(&document.to_string());
            return;
        }
        let mut lines = error.text.lines().map(|line| shortened(line, SHOWN));
        let first = lines.next().unwrap_or_default();
        self.talk(&format!("{} {first}", self.err.paint(Style::Bad, "error:")));
        lines.by_ref().take(MOST_LINES - 1).for_each(|line| self.talk(&line));
        let more = lines.count();
        if more > 0 {
            self.talk(&format!("... and {more} more lines; `-o json` has them all"));
        }
        for cause in &error.causes {
            self.talk(&format!("  caused by: {}", shortened(cause, SHOWN)));
        }
        if !error.hints.is_empty() {
            self.talk("");
        }
        for hint in &error.hints {
            self.talk(&format!("{} {}", self.err.paint(Style::Command, "hint:"), self.hint(hint)));
        }
    }

    /// Prints a line to stderr, whatever was asked.
    pub fn talk(&self, line: &str) {
        self.world.stderr(format!("{line}\n").as_bytes());
    }
}
