//! A command that ended: its code and its streams, with assertions that show both when they fail.

use std::time::Duration;

use serde_json::Value;

/// What came of one command.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line.
    pub line: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Finished {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// With both streams, when it is another.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.told());
        self
    }

    /// Asserts that a text is in one of the streams.
    ///
    /// # Panics
    /// With both streams, when it is not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "no `{text}` in: {}", self.told());
        self
    }

    /// Asserts that a text is in neither stream.
    ///
    /// # Panics
    /// With both streams, when it is.
    #[track_caller]
    pub fn says_not(self, text: &str) -> Self {
        assert!(!self.stdout.contains(text) && !self.stderr.contains(text), "`{text}` in: {}", self.told());
        self
    }

    /// Returns stdout as one JSON document.
    ///
    /// # Panics
    /// With both streams, when it is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in: {}", self.told()))
    }

    /// Returns stdout as one JSON document a line.
    ///
    /// # Panics
    /// With both streams, when a line is none.
    #[must_use]
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error} in `{line}` of: {}", self.told()))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// Returns the command with all it said.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { line, code, stdout, stderr, took } = self;
        format!("`{line}` ended with {code:?} after {took:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}
