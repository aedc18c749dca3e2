//! The environment of this service.

use service_kit::auth::Verifier;
use service_kit::{Base, Clock, Configuration, DatabaseUrl, Place, Reader, kafka};

/// Everything that the environment decides.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `DATABASE_URL`: the database that `mlctl db migrate` prepares.
    pub database: DatabaseUrl,
    /// `DATABASE_POOL_SIZE`: connections to it at most.
    pub pool_size: u32,
    /// `KAFKA_BROKERS`, else the log under `EMBEDDED_DIR`, which all replicas of all services share.
    pub events: Place<kafka::Settings>,
    /// Checks access tokens: with the keys of `USER_SERVICE_URL`, or with `JWT_SECRET` where that is set.
    pub verifier: Verifier,
    /// The time of day; tests set it.
    pub clock: Clock,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let clock = Clock::system();
        let database = env.database("DATABASE_URL");
        let pool_size = env.pool_size();
        let events = env.event_log();
        let verifier = env.verifier(&clock);
        Some(Self {
            base,
            database: database?,
            pool_size: pool_size?,
            events: events?,
            verifier: verifier?,
            clock,
        })
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
        assert!(matches!(config.database, DatabaseUrl::Sqlite(path) if path.ends_with("database.db")));
        assert!(matches!(config.events, Place::Embedded(_)));
        assert_eq!(config.base.port, 3004);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let environment = Environment::of([("KAFKA_BROKERS", "k"), ("DATABASE_URL", "mysql://p/d")]);
        let error = Config::from_environment(IDENTITY, &environment).unwrap_err();
        let variables: Vec<_> = error.problems.iter().map(|problem| problem.variable.as_str()).collect();
        assert_eq!(variables, ["DATABASE_URL", "KAFKA_BROKERS", "USER_SERVICE_URL"]);
    }
}
