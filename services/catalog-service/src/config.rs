//! The environment of this service.

use secrecy::SecretString;
use service_kit::auth::{SharedToken, Verifier};
use service_kit::{Base, Clock, Configuration, Place, Reader, kafka};

/// Everything that the environment decides.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `MONGODB_URL`, else the documents under `EMBEDDED_DIR`, which all replicas of all services share.
    pub documents: Place<SecretString>,
    /// `DATABASE_POOL_SIZE`: connections to MongoDB at most, unless its address says `maxPoolSize`.
    pub pool_size: u32,
    /// `KAFKA_BROKERS`, else the log under `EMBEDDED_DIR`.
    pub events: Place<kafka::Settings>,
    /// `INTERNAL_TOKEN`: what other services show on `/internal` routes.
    pub internal: SharedToken,
    /// Checks access tokens: with the keys of `USER_SERVICE_URL`, or with `JWT_SECRET` where that is set.
    pub verifier: Verifier,
    /// The time of day; tests set it.
    pub clock: Clock,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let clock = Clock::system();
        let documents = env.document_store();
        let pool_size = env.pool_size();
        let events = env.event_log();
        let internal = env.secret("INTERNAL_TOKEN").map(SharedToken::new);
        let verifier = env.verifier(&clock);
        Some(Self {
            base,
            documents: documents?,
            pool_size: pool_size?,
            events: events?,
            internal: internal?,
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

    fn complete() -> Environment {
        Environment::of([
            ("EMBEDDED_DIR", "/nowhere"),
            ("INTERNAL_TOKEN", "internal"),
            ("USER_SERVICE_URL", "http://127.0.0.1:3001"),
        ])
    }

    #[test]
    fn a_complete_environment_is_taken() {
        let config = Config::from_environment(IDENTITY, &complete()).unwrap();
        assert!(matches!(config.documents, Place::Embedded(folder) if folder.ends_with("nowhere")));
        assert_eq!((config.base.port, config.pool_size), (3003, 10));
        let with_secret =
            Environment::of([("EMBEDDED_DIR", "/nowhere"), ("INTERNAL_TOKEN", "i"), ("JWT_SECRET", "s")]);
        Config::from_environment(IDENTITY, &with_secret).unwrap();
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let environment = Environment::of([
            ("MONGODB_URL", "m:27017"),
            ("KAFKA_BROKERS", "k:0"),
            ("USER_SERVICE_URL", "no"),
        ]);
        let error = Config::from_environment(IDENTITY, &environment).unwrap_err();
        let variables: Vec<_> = error.problems.iter().map(|problem| problem.variable.as_str()).collect();
        assert_eq!(variables, ["MONGODB_URL", "KAFKA_BROKERS", "INTERNAL_TOKEN", "USER_SERVICE_URL"]);
    }
}
