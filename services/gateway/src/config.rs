//! What the environment says.

use std::path::PathBuf;

use secrecy::SecretString;
use service_kit::{Base, Configuration, Reader};

/// Configuration of the gateway.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `ROUTES_FILE`: the table of routes, as [`crate::table`] describes it.
    pub routes_file: PathBuf,
    /// `OPERATOR_TOKEN`: who holds it may read `/metrics` through the gateway, and is let through while maintenance is
    /// on; without it nobody may and nobody is.
    pub operator_token: Option<SecretString>,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let routes_file = env.path("ROUTES_FILE");
        let operator_token = env.optional_secret("OPERATOR_TOKEN");
        Some(Self { base, routes_file: routes_file?, operator_token: operator_token? })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}
