//! Configuration: environment variables, each also readable from a file, all problems told at once.
//!
//! `NAME_FILE` names a file that holds the value of `NAME` (its trailing newline is trimmed); both set is a mistake.
//! An empty value counts as absent. Nothing here ever shows a value: it may be a secret.

mod base;
mod reader;

pub use base::Base;
pub use reader::Reader;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;

/// Variables of the environment as a value, so that tests hand in their own.
#[derive(Clone, Default)]
pub struct Environment {
    /// `None` marks a value that is no UTF-8 text.
    variables: BTreeMap<String, Option<String>>,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok())))
            .collect();
        Self { variables }
    }

    /// An environment of these variables and no others.
    pub fn of<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect();
        Self { variables }
    }

    /// The same environment with one variable more, or another value of it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), Some(value.to_owned()));
        self
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Where a service's database is.
#[derive(Clone, Debug)]
pub enum DatabaseUrl {
    /// A file: the embedded adapter.
    Sqlite(PathBuf),
    /// A PostgreSQL server; the address holds its password.
    Postgres(SecretString),
}

/// Where another store of a service is.
#[derive(Clone, Debug)]
pub enum Place<T> {
    /// Under this folder: the embedded adapter.
    Embedded(PathBuf),
    /// On the server of this address.
    Server(T),
}

/// A service's configuration.
pub trait Configuration: Sized {
    /// Reads every variable through `env`, which notes each problem, and builds the value from what was read.
    /// Read all variables first and use `?` only while building, so that one start shows every mistake.
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self>;

    /// The part of the configuration that every service has.
    fn base(&self) -> &Base;

    /// Reads the whole configuration of one service.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the environment.
    fn from_environment(identity: crate::Identity, environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let base = Base::read(identity, &mut reader).unwrap_or_else(|| Base::new(identity));
        let config = Self::read(base, &mut reader);
        reader.finish(config)
    }
}

/// What is wrong with one variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or its `_FILE` form when that one is at fault.
    pub variable: String,
    /// What was expected; never the value.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.text)
    }
}

/// The environment does not configure this service; one line per problem.
#[derive(Debug, thiserror::Error)]
#[error("the environment has {} problem(s): {}", problems.len(), join(problems))]
pub struct ConfigError {
    /// Every problem, in the order the variables are read.
    pub problems: Vec<Problem>,
}

fn join(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}
