//! The environment of this service.

use std::path::PathBuf;

use service_kit::auth::Verifier;
use service_kit::{Base, Clock, Configuration, Reader};

/// Everything that the environment decides.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `DATABASE_URL`: the database file that `mlctl db migrate` prepares.
    pub database: PathBuf,
    /// `EMBEDDED_DIR`: the folder that all replicas of all services share.
    pub embedded: PathBuf,
    /// Checks access tokens: with the keys of `USER_SERVICE_URL`, or with `JWT_SECRET` where that is set.
    pub verifier: Verifier,
    /// The time of day; tests set it.
    pub clock: Clock,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let clock = Clock::system();
        let embedded_only = env.embedded_only(&["KAFKA_BROKERS"]);
        let database = env.sqlite("DATABASE_URL");
        let embedded = env.path("EMBEDDED_DIR");
        let verifier = env.verifier(&clock);
        embedded_only?;
        Some(Self { base, database: database?, embedded: embedded?, verifier: verifier?, clock })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}

#[cfg(test)]
mod tests {
    use service_kit::Environment;

    use super::*;
    use crate::IDENTITY;

    #[test]
    fn a_complete_environment_is_taken() {
        let environment = Environment::of([
            ("DATABASE_URL", "sqlite:/nowhere/database.db"),
            ("EMBEDDED_DIR", "/nowhere"),
            ("USER_SERVICE_URL", "http://127.0.0.1:3001"),
        ]);
        let config = Config::from_environment(IDENTITY, &environment).unwrap();
        assert_eq!(config.database, PathBuf::from("/nowhere/database.db"));
        assert_eq!(config.base.port, 3004);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let environment =
            Environment::of([("KAFKA_BROKERS", "k:9092"), ("DATABASE_URL", "postgresql://p/d")]);
        let error = Config::from_environment(IDENTITY, &environment).unwrap_err();
        let variables: Vec<_> = error.problems.iter().map(|problem| problem.variable.as_str()).collect();
        assert_eq!(variables, ["KAFKA_BROKERS", "DATABASE_URL", "EMBEDDED_DIR", "USER_SERVICE_URL"]);
        assert!(error.to_string().contains("only the embedded adapter"), "{error}");
    }
}
