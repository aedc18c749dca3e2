//! Reading variables one by one while noting every problem.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::{ConfigError, DatabaseUrl, Environment, Place, Problem};
use crate::auth::Verifier;
use crate::client::HttpUrl;
use crate::clock::Clock;
use crate::kafka;

/// Reads variables and remembers what is wrong. Every method answers `None` only after it noted a problem.
#[derive(Debug)]
pub struct Reader<'a> {
    environment: &'a Environment,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader over one environment.
    #[must_use]
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: Vec::new() }
    }

    /// The built value, or every problem that was met.
    ///
    /// # Errors
    /// [`ConfigError`] when any variable was wrong.
    pub fn finish<T>(self, built: Option<T>) -> Result<T, ConfigError> {
        match built {
            Some(value) if self.problems.is_empty() => Ok(value),
            _ => Err(ConfigError { problems: self.problems }),
        }
    }

    /// Notes a problem that a service found itself, for example two variables that exclude each other.
    pub fn problem(&mut self, variable: &str, text: impl Into<String>) {
        self.problems.push(Problem { variable: variable.to_owned(), text: text.into() });
    }

    /// A variable that may be absent. `expected` completes "expected ...".
    pub fn optional<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(text) = self.raw(name)? else { return Some(None) };
        match parse(&text) {
            Some(value) => Some(Some(value)),
            None => {
                self.problem(name, format!("expected {expected}"));
                None
            }
        }
    }

    /// A variable that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.optional(name, expected, parse)? {
            Some(value) => Some(value),
            None => {
                self.problem(name, format!("is not set; expected {expected} (or {name}_FILE naming a file)"));
                None
            }
        }
    }

    /// A variable with a default.
    pub fn or<T>(
        &mut self,
        name: &str,
        expected: &str,
        default: T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        Some(self.optional(name, expected, parse)?.unwrap_or(default))
    }

    /// Text that must be there.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.required(name, "text", |text| Some(text.to_owned()))
    }

    /// A secret that must be there.
    pub fn secret(&mut self, name: &str) -> Option<SecretString> {
        self.required(name, "a secret", |text| Some(SecretString::from(text.to_owned())))
    }

    /// A secret that may be absent.
    pub fn optional_secret(&mut self, name: &str) -> Option<Option<SecretString>> {
        self.optional(name, "a secret", |text| Some(SecretString::from(text.to_owned())))
    }

    /// A whole number within `range`.
    pub fn number_or(&mut self, name: &str, default: u64, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.or(name, &expected, default, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    /// A span in whole seconds within `range`.
    pub fn seconds_or(&mut self, name: &str, default: u64, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number_or(name, default, range).map(Duration::from_secs)
    }

    /// A span in whole milliseconds within `range`.
    pub fn millis_or(&mut self, name: &str, default: u64, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number_or(name, default, range).map(Duration::from_millis)
    }

    /// `true` or `false`.
    pub fn boolean_or(&mut self, name: &str, default: bool) -> Option<bool> {
        self.or(name, "true or false", default, |text| text.parse().ok())
    }

    /// One word of a closed list.
    pub fn one_of<T: Copy>(&mut self, name: &str, default: T, words: &[(&str, T)]) -> Option<T> {
        let expected = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" or ");
        self.or(name, &expected, default, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// A path that must be given; whether it exists is for its user to find out.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.required(name, "a path", |text| Some(PathBuf::from(text)))
    }

    /// The address of another service, `http://HOST:PORT[/PATH]`.
    pub fn url(&mut self, name: &str) -> Option<HttpUrl> {
        self.required(name, "http://HOST:PORT[/PATH]", |text| text.parse().ok())
    }

    /// The address of another service that may be absent.
    pub fn optional_url(&mut self, name: &str) -> Option<Option<HttpUrl>> {
        self.optional(name, "http://HOST:PORT[/PATH]", |text| text.parse().ok())
    }

    /// What checks access tokens: the keys that `USER_SERVICE_URL` publishes, or `JWT_SECRET` where that is set.
    pub fn verifier(&mut self, clock: &Clock) -> Option<Verifier> {
        match self.optional_secret("JWT_SECRET")? {
            None => self.url("USER_SERVICE_URL").map(|url| Verifier::fetching(url, clock.clone())),
            Some(secret) => Some(Verifier::with_secret(&secret, clock.clone())),
        }
    }

    /// The service's database: `postgresql://USER[:PASSWORD]@HOST[:PORT]/NAME`, or `sqlite:PATH` for the embedded one.
    pub fn database(&mut self, name: &str) -> Option<DatabaseUrl> {
        self.required(name, "postgresql://USER@HOST:PORT/NAME or sqlite:PATH", |text| {
            match text.strip_prefix("sqlite:") {
                Some(path) => (!path.is_empty()).then(|| DatabaseUrl::Sqlite(PathBuf::from(path))),
                None => server(text, &["postgresql://", "postgres://"]).map(DatabaseUrl::Postgres),
            }
        })
    }

    /// Connections to the database at most, for `DATABASE_POOL_SIZE`. What all replicas of all services may open
    /// together, those of a rollout included, has to fit into the server's `max_connections`.
    pub fn pool_size(&mut self) -> Option<u32> {
        self.number_or("DATABASE_POOL_SIZE", 10, 1..=500).and_then(|size| u32::try_from(size).ok())
    }

    /// Where what all replicas share and nobody may evict is: `REDIS_STATE_URL`, else `REDIS_URL`.
    pub fn state_store(&mut self) -> Option<Place<SecretString>> {
        match self.redis("REDIS_STATE_URL")? {
            Some(url) => Some(Place::Server(url)),
            None => self.cache_store(),
        }
    }

    /// Where the cache is: `REDIS_URL`.
    pub fn cache_store(&mut self) -> Option<Place<SecretString>> {
        let url = self.redis("REDIS_URL");
        self.place(url)
    }

    /// Where documents are: `MONGODB_URL`, `mongodb://[USER:PASSWORD@]HOST[:PORT][,HOST...][/NAME]`.
    pub fn document_store(&mut self) -> Option<Place<SecretString>> {
        let url = self.optional("MONGODB_URL", "mongodb://HOST:PORT", |text| server(text, &["mongodb://"]));
        self.place(url)
    }

    /// Where the event log is: `KAFKA_BROKERS`, `HOST:PORT[,HOST:PORT...]`.
    /// `KAFKA_TOPIC_PREFIX` stands before the names of topics and groups.
    /// `KAFKA_CREATE_TOPICS` (false) lets a service make missing topics, with `KAFKA_TOPIC_PARTITIONS` (6) partitions.
    pub fn event_log(&mut self) -> Option<Place<kafka::Settings>> {
        let brokers = self.optional("KAFKA_BROKERS", "HOST:PORT[,HOST:PORT...]", |text| {
            let broker = |one: &str| {
                one.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
                })
            };
            text.split(',').all(broker).then(|| text.to_owned())
        });
        let create_topics = self.boolean_or("KAFKA_CREATE_TOPICS", false);
        let partitions = self.number_or("KAFKA_TOPIC_PARTITIONS", 6, 1..=1_000);
        let prefix = self.or("KAFKA_TOPIC_PREFIX", "letters, digits, - _ and .", String::new(), |text| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            (text.len() <= 100 && text.bytes().all(allowed)).then(|| text.to_owned())
        });
        let place = self.place(brokers);
        let prefix = prefix?;
        let partitions = u16::try_from(partitions?).ok()?;
        let create_topics = create_topics?;
        match place? {
            Place::Server(brokers) => {
                Some(Place::Server(kafka::Settings { brokers, prefix, create_topics, partitions }))
            }
            Place::Embedded(folder) => Some(Place::Embedded(folder)),
        }
    }

    fn redis(&mut self, name: &str) -> Option<Option<SecretString>> {
        self.optional(name, "redis://HOST:PORT", |text| server(text, &["redis://", "rediss://"]))
    }

    /// The server that was named, else the folder of the embedded stores.
    fn place<T>(&mut self, server: Option<Option<T>>) -> Option<Place<T>> {
        match server? {
            Some(server) => Some(Place::Server(server)),
            None => self.embedded_dir().map(Place::Embedded),
        }
    }

    /// `EMBEDDED_DIR`; that it is missing is said once, whichever store asked for it.
    fn embedded_dir(&mut self) -> Option<PathBuf> {
        const NAME: &str = "EMBEDDED_DIR";
        if self.problems.iter().any(|problem| problem.variable.starts_with(NAME)) {
            return None;
        }
        self.required(NAME, "a path, for the stores that no server is named for", |text| {
            Some(PathBuf::from(text))
        })
    }

    /// The value of `name` or of the file that `name_FILE` names; the outer `None` means a noted problem.
    fn raw(&mut self, name: &str) -> Option<Option<String>> {
        let file_name = format!("{name}_FILE");
        let direct = self.value(name)?;
        let file = self.value(&file_name)?;
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.problem(name, format!("both it and {file_name} are set; keep one"));
                None
            }
            (Some(value), None) => Some(Some(value)),
            (None, None) => Some(None),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    let text = text.strip_suffix('\r').unwrap_or(text);
                    Some(Some(text.to_owned()).filter(|text| !text.is_empty()))
                }
                Err(error) => {
                    self.problem(&file_name, format!("cannot read the file {path}: {error}"));
                    None
                }
            },
        }
    }

    fn value(&mut self, name: &str) -> Option<Option<String>> {
        match self.environment.variables.get(name) {
            None => Some(None),
            Some(Some(text)) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(None) => {
                self.problem(name, "expected UTF-8 text");
                None
            }
        }
    }
}

/// An address with one of these beginnings and something behind it.
fn server(text: &str, schemes: &[&str]) -> Option<SecretString> {
    let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme))?;
    (!rest.is_empty() && !rest.starts_with('/')).then(|| SecretString::from(text.to_owned()))
}
