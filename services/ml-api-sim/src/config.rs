//! The simulator's environment.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use service_kit::client::HttpUrl;
use service_kit::{Base, Configuration, Reader};

use crate::clock::Clock;
use crate::simulator::{Simulator, Switches};
use crate::world::{Application, Seed};

/// What the environment says.
#[derive(Debug)]
pub struct Config {
    /// What every service has.
    pub base: Base,
    /// `SIM_SEED`: start of every random choice; absent = another one at each start.
    pub seed: Option<u64>,
    /// `SIM_ITEMS`: items of each new test seller.
    pub items: u32,
    /// `SIM_TOKEN_SECONDS`: life of an access token.
    pub token_seconds: u32,
    /// `SIM_RATE_LIMIT_PER_MINUTE`: requests per minute and seller; 0 = no limit.
    pub per_minute: u32,
    /// `SIM_CLIENT_ID`, `SIM_CLIENT_SECRET`, `SIM_REDIRECT_URI`: the registered application. Without them an
    /// application is registered by its first use.
    pub application: Option<(String, SecretString, String)>,
    /// `SIM_NOTIFY_URL`: where notifications go.
    pub notify: Option<HttpUrl>,
    /// `SIM_CLOCK`: an instant to stand at; absent = the system's time.
    pub clock: Option<Timestamp>,
    /// `SIM_LEGACY_MULTIGET`, `SIM_FOREIGN_ITEMS_PUBLIC`.
    pub switches: Switches,
}

impl Configuration for Config {
    fn read(base: Base, env: &mut Reader<'_>) -> Option<Self> {
        let seed = env.optional("SIM_SEED", "a whole number", |text| text.parse().ok());
        let items = env.number_or("SIM_ITEMS", 25, 0..=10_000);
        let token_seconds = env.number_or("SIM_TOKEN_SECONDS", 21_600, 1..=86_400);
        let per_minute = env.number_or("SIM_RATE_LIMIT_PER_MINUTE", 1_500, 0..=1_000_000);
        let application = application(env);
        let notify = env.optional_url("SIM_NOTIFY_URL");
        let clock = env.optional("SIM_CLOCK", "an RFC 3339 instant", |text| text.parse().ok());
        let legacy_multiget = env.boolean_or("SIM_LEGACY_MULTIGET", false);
        let foreign_items_public = env.boolean_or("SIM_FOREIGN_ITEMS_PUBLIC", false);
        Some(Self {
            base,
            seed: seed?,
            items: u32::try_from(items?).ok()?,
            token_seconds: u32::try_from(token_seconds?).ok()?,
            per_minute: u32::try_from(per_minute?).ok()?,
            application: application?,
            notify: notify?,
            clock: clock?,
            switches: Switches {
                legacy_multiget: legacy_multiget?,
                foreign_items_public: foreign_items_public?,
            },
        })
    }

    fn base(&self) -> &Base {
        &self.base
    }
}

/// All three or none: half an application would be registered by its first use and refuse the real one.
fn application(env: &mut Reader<'_>) -> Option<Option<(String, SecretString, String)>> {
    let text = |text: &str| Some(text.to_owned());
    let id = env.optional("SIM_CLIENT_ID", "text", text);
    let secret = env.optional_secret("SIM_CLIENT_SECRET");
    let redirect = env.optional("SIM_REDIRECT_URI", "an address", text);
    match (id?, secret?, redirect?) {
        (None, None, None) => Some(None),
        (Some(id), Some(secret), Some(redirect)) => Some(Some((id, secret, redirect))),
        _ => {
            env.problem(
                "SIM_CLIENT_ID",
                "set it together with SIM_CLIENT_SECRET and SIM_REDIRECT_URI, or none of them",
            );
            None
        }
    }
}

impl Config {
    /// The simulator that this configuration describes.
    pub fn simulator(&self) -> Arc<Simulator> {
        let application = self.application.as_ref().map(|(id, secret, redirect)| Application {
            client_id: id.clone(),
            client_secret: Some(secret.expose_secret().to_owned()),
            redirect_uri: redirect.clone(),
        });
        let clock = self.clock.map_or_else(Clock::system, Clock::fixed);
        let seed = Seed {
            // A restarted marketplace is another one: with the same seed it would give a new seller an old one's id.
            seed: self.seed.unwrap_or_else(|| clock.now_ms().unsigned_abs()),
            items: self.items,
            token_seconds: self.token_seconds,
            per_minute: self.per_minute,
            application,
        };
        Simulator::new(clock, seed, self.switches, self.notify.as_ref().map(HttpUrl::to_string))
    }
}

#[cfg(test)]
mod tests {
    use service_kit::Environment;

    use super::*;
    use crate::IDENTITY;

    #[test]
    fn half_an_application_is_refused_with_all_other_problems() {
        let environment =
            Environment::of([("SIM_CLIENT_ID", "app"), ("SIM_ITEMS", "many"), ("SIM_CLOCK", "noon")]);
        let error = Config::from_environment(IDENTITY, &environment).unwrap_err().to_string();
        for variable in ["SIM_CLIENT_ID", "SIM_ITEMS", "SIM_CLOCK"] {
            assert!(error.contains(variable), "{error}");
        }
    }

    #[test]
    fn nothing_set_is_a_working_simulator() {
        let config = Config::from_environment(IDENTITY, &Environment::default()).unwrap();
        assert_eq!((config.items, config.base.port), (25, 3900));
    }
}
