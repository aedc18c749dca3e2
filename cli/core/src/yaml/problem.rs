//! What is wrong with a file: every problem with its place, its key and what was expected.

use std::fmt;
use std::sync::Arc;

use super::limit::{LONGEST_MESSAGE, LONGEST_WORD, MOST_PROBLEMS};
use super::node::visible;

/// The way to a value: `services.api.routes[0].path`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPath(String);

impl KeyPath {
    /// Returns the path of `key` below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        // A key with a dot of its own is quoted, so that a path can be read back.
        let quote = if key.contains('.') { "\"" } else { "" };
        let key = visible(key);
        if self.0.is_empty() {
            Self(format!("{quote}{key}{quote}"))
        } else {
            Self(format!("{}.{quote}{key}{quote}", self.0))
        }
    }

    /// Returns the path of an item of the list at this one, counted from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Returns the path as text; empty for the file itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File, as the caller named it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Key it is about; empty for the file as a whole.
    pub path: KeyPath,
    /// What was found and what was expected.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.as_str().is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

/// All that is wrong with a file, in the order of the file, up to a number that nobody reads at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    /// Whether there were more than are kept.
    more: bool,
}

impl Problems {
    /// Returns whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Returns whether there were more problems than are kept: looking for others is no use.
    pub const fn is_full(&self) -> bool {
        self.more
    }

    /// Returns the problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.told.iter()
    }

    /// Adds a problem, unless the same place already has the same one.
    pub fn push(&mut self, mut problem: Problem) {
        if problem.message.chars().nth(LONGEST_MESSAGE).is_some() {
            problem.message = problem.message.chars().take(LONGEST_MESSAGE).chain(['…']).collect();
        }
        // Whatever a file holds, a problem is one line and moves no cursor.
        problem.message = visible(&problem.message);
        problem.suggestion = problem.suggestion.map(|meant| visible(&meant));
        if self.told.contains(&problem) {
            return;
        }
        let at = self.told.partition_point(|each| (each.line, each.column) <= (problem.line, problem.column));
        self.told.insert(at, problem);
        if self.told.len() > MOST_PROBLEMS {
            self.told.pop();
            self.more = true;
        }
    }

    /// Adds all problems of another set.
    pub fn extend(&mut self, other: Self) {
        self.more |= other.more;
        other.told.into_iter().for_each(|problem| self.push(problem));
    }

    /// Returns `value` when nothing is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.told.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.told.first().filter(|_| self.more) {
            Some(first) => write!(f, "\n{}: and more; these are the first {MOST_PROBLEMS}", first.file),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problems {}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.told.iter()
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(iter: I) -> Self {
        let mut problems = Self::default();
        iter.into_iter().for_each(|problem| problems.push(problem));
        problems
    }
}

/// Returns the candidate that `found` is probably a slip of, if one is near enough.
pub fn did_you_mean<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if found.len() > LONGEST_WORD {
        return None;
    }
    // Case, hyphen and underscore are the usual slips; they cost nothing.
    let fold = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let wanted = fold(found);
    (candidates.into_iter().filter(|candidate| candidate.len() <= LONGEST_WORD))
        .map(|candidate| (strsim::osa_distance(&wanted, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let shorter = candidate.chars().count().min(found.chars().count());
            let folded = fold(candidate);
            // A word with something added or left out, such as SIGTERM for TERM.
            let within = shorter >= 4 && (wanted.contains(&folded) || folded.contains(&wanted));
            *distance <= (shorter / 3).max(1) || within
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}
