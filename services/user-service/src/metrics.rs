//! The counters that this service owns. Every series exists at 0 from the start, so `rate()` and `absent()` work;
//! traffic of the probe tenant is left out.

use service_kit::metrics::Counters;

/// How a registration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationOutcome {
    /// A new user.
    Created,
    /// The e-mail was known.
    EmailTaken,
    /// A field was not acceptable.
    Invalid,
    /// Too many failures before.
    Throttled,
    /// The hashing queue was full.
    Overloaded,
    /// Anything of ours.
    Error,
}

impl RegistrationOutcome {
    const ALL: [Self; 6] =
        [Self::Created, Self::EmailTaken, Self::Invalid, Self::Throttled, Self::Overloaded, Self::Error];

    const fn label(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::EmailTaken => "email_taken",
            Self::Invalid => "invalid",
            Self::Throttled => "throttled",
            Self::Overloaded => "overloaded",
            Self::Error => "error",
        }
    }
}

/// How a MercadoLibre connection went. `connected / started` is the completion rate of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionOutcome {
    /// A user was sent to MercadoLibre.
    Started,
    /// The account is connected.
    Connected,
    /// The user said no at MercadoLibre.
    Denied,
    /// The state was unknown, used, late, or of a revoked session, or came from another browser.
    InvalidState,
    /// The account belongs to somebody else, or MercadoLibre refused the code.
    Refused,
    /// integration-service could not be asked, or failed.
    Failed,
    /// A user disconnected the account.
    Disconnected,
}

impl ConnectionOutcome {
    const ALL: [Self; 7] = [
        Self::Started,
        Self::Connected,
        Self::Denied,
        Self::InvalidState,
        Self::Refused,
        Self::Failed,
        Self::Disconnected,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Connected => "connected",
            Self::Denied => "denied",
            Self::InvalidState => "invalid_state",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What became of a request for a password hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOutcome {
    /// One argon2id hash was computed.
    Computed,
    /// The queue was full.
    Refused,
}

impl HashOutcome {
    const ALL: [Self; 2] = [Self::Computed, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Computed => "computed",
            Self::Refused => "refused",
        }
    }
}

/// The service's counters; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registrations: Counters,
    connections: Counters,
    hashes: Counters,
    throttle_fallbacks: Counters,
}

impl Metrics {
    /// Creates the counters on a metrics page, which adds `_total` to each name.
    #[must_use]
    pub fn new(page: &service_kit::Metrics) -> Self {
        let by_outcome = |name, help, outcomes: &[&str]| {
            let series: Vec<&[&str]> = outcomes.iter().map(std::slice::from_ref).collect();
            page.counter(name, help, &["outcome"], &series)
        };
        Self {
            registrations: by_outcome(
                "user_registrations",
                "Registrations by outcome",
                &RegistrationOutcome::ALL.map(RegistrationOutcome::label),
            ),
            connections: by_outcome(
                "oauth_connections",
                "Steps of connecting a MercadoLibre account, by outcome",
                &ConnectionOutcome::ALL.map(ConnectionOutcome::label),
            ),
            hashes: by_outcome(
                "password_hashes",
                "Password hashes computed or refused",
                &HashOutcome::ALL.map(HashOutcome::label),
            ),
            throttle_fallbacks: page.counter(
                "login_throttle_fallbacks",
                "Questions about login failures that each process answered alone because their store did not",
                &["operation"],
                &[&["read"], &["count"], &["forget"]],
            ),
        }
    }

    /// Counts a registration.
    pub fn registration(&self, outcome: RegistrationOutcome) {
        self.registrations.inc(&[outcome.label()]);
    }

    /// Counts a step of a connection.
    pub fn connection(&self, outcome: ConnectionOutcome) {
        self.connections.inc(&[outcome.label()]);
    }

    /// Counts a password hash.
    pub fn password_hash(&self, outcome: HashOutcome) {
        self.hashes.inc(&[outcome.label()]);
    }

    /// Counts a question that the throttle's store did not answer.
    pub fn throttle_fallback(&self, operation: &'static str) {
        self.throttle_fallbacks.inc(&[operation]);
    }

    /// Questions that the throttle's store did not answer so far.
    #[must_use]
    pub fn throttle_fallbacks(&self, operation: &'static str) -> u64 {
        self.throttle_fallbacks.get(&[operation])
    }

    /// Password hashes counted so far.
    #[must_use]
    pub fn password_hashes(&self, outcome: HashOutcome) -> u64 {
        self.hashes.get(&[outcome.label()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_under_the_plans_names() {
        let page = service_kit::Metrics::new();
        let _metrics = Metrics::new(&page);
        let page = page.encode();
        for line in [
            r#"user_registrations_total{outcome="created"} 0"#,
            r#"user_registrations_total{outcome="email_taken"} 0"#,
            r#"oauth_connections_total{outcome="started"} 0"#,
            r#"oauth_connections_total{outcome="connected"} 0"#,
            r#"oauth_connections_total{outcome="invalid_state"} 0"#,
            r#"password_hashes_total{outcome="refused"} 0"#,
        ] {
            assert!(page.contains(line), "{line} is missing from\n{page}");
        }
    }
}
