//! The environment of this service.

use std::path::PathBuf;

use service_kit::auth::{SharedToken, Verifier};
use service_kit::{Base, Clock, Configuration, Reader};

/// Everything that the environment decides.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `EMBEDDED_DIR`: the folder that all replicas of all services share.
    pub embedded: PathBuf,
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
        let embedded_only = env.embedded_only(&["MONGODB_URL", "KAFKA_BROKERS"]);
        let embedded = env.path("EMBEDDED_DIR");
        let internal = env.secret("INTERNAL_TOKEN").map(SharedToken::new);
        let verifier = env.verifier(&clock);
        embedded_only?;
        Some(Self { base, embedded: embedded?, internal: internal?, verifier: verifier?, clock })
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
        assert_eq!(config.embedded, PathBuf::from("/nowhere"));
        assert_eq!(config.base.port, 3003);
        let with_secret =
            Environment::of([("EMBEDDED_DIR", "/nowhere"), ("INTERNAL_TOKEN", "i"), ("JWT_SECRET", "s")]);
        Config::from_environment(IDENTITY, &with_secret).unwrap();
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let environment = Environment::of([
            ("MONGODB_URL", "mongodb://m"),
            ("KAFKA_BROKERS", "k:9092"),
            ("USER_SERVICE_URL", "no"),
        ]);
        let error = Config::from_environment(IDENTITY, &environment).unwrap_err();
        let variables: Vec<_> = error.problems.iter().map(|problem| problem.variable.as_str()).collect();
        assert_eq!(
            variables,
            ["MONGODB_URL", "KAFKA_BROKERS", "EMBEDDED_DIR", "INTERNAL_TOKEN", "USER_SERVICE_URL"]
        );
    }
}
