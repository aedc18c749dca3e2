//! One service: how it is built, run, proven healthy, updated and reached.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::system::units::{ByteSize, Cpu, Quantity, TimeSpan};

/// A service and all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Whether it is deployed at all. A [`System`](super::System) holds enabled services only.
    pub enabled: bool,
    /// Phase of a deploy it belongs to.
    pub phase: ServicePhase,
    /// Whether it is the public front; at most one service is.
    pub gateway: bool,
    /// How its listening address is served.
    pub socket: Socket,
    /// How its artifact is made from source.
    pub build: Option<Build>,
    /// Image without tag; the release adds tag and digest.
    pub image: Option<String>,
    /// Program and arguments; empty means that the artifact itself is the program.
    pub command: Vec<String>,
    /// Stable port others reach it on.
    pub port: u16,
    /// Its metrics endpoint, when it has one.
    pub metrics: Option<Metrics>,
    /// How its state is asked.
    pub health: Health,
    /// Bounds of its replica count.
    pub replicas: Replicas,
    /// What a replica is given.
    pub resources: Resources,
    /// How replicas are replaced.
    pub update: Update,
    /// How a replica is asked to end.
    pub stop: Stop,
    /// Conditions that ask for one more replica.
    pub scale: Vec<ScaleTrigger>,
    /// Services and stores that have to be there before it.
    pub needs: Vec<String>,
    /// Environment by variable name.
    pub env: IndexMap<String, EnvValue>,
    /// Folder of its migrations, relative to the file.
    pub migrations: Option<String>,
    /// Public paths that lead to it.
    pub routes: Vec<Route>,
}

/// Phase of a deploy that a service belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServicePhase {
    /// What applications stand on; never rolled back by itself.
    Infrastructure,
    /// The applications.
    Applications,
}

/// How the stable address of a service is served on targets that own the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Socket {
    /// A relay listens and passes connections on to ready replicas.
    Relay,
    /// The bound socket itself is handed to each replica as descriptor 3 (`LISTEN_FDS=1`).
    Passed,
}

/// How an artifact is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Program and arguments, run in the folder of the file; empty when the artifact is a source itself.
    pub run: Vec<String>,
    /// File or folder that results, relative to the file.
    pub artifact: String,
    /// Globs of what the artifact is made of; empty means that the command itself knows what is stale.
    pub sources: Vec<String>,
}

/// A Prometheus endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Stable port; replicas get their own as `{metrics_port}`.
    pub port: u16,
    /// Path of the exposition.
    pub path: String,
    /// Series that verification must see.
    pub expect: Vec<String>,
}

/// How a replica's state is asked. Without `ready`, an accepted TCP connection counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Path that answers 2xx once the replica has started.
    pub startup: Option<String>,
    /// Path that answers 2xx as long as a restart would not help.
    pub live: Option<String>,
    /// Path that answers 2xx when the replica may receive requests.
    pub ready: Option<String>,
    /// Path of the deep answer that verification asks for.
    pub check: Option<String>,
    /// Time between two questions.
    pub period: TimeSpan,
    /// Time one answer may take.
    pub timeout: TimeSpan,
    /// Bad answers in a row that change a verdict; at least 1.
    pub failures: u32,
    /// Time after start in which bad answers do not count.
    pub grace: TimeSpan,
}

/// Bounds of a replica count: `min <= max`, `max >= 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Count at create and lower bound afterwards.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
}

/// What a replica asks for and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Reserved for it.
    pub requests: Amounts,
    /// Never exceeded.
    pub limits: Amounts,
}

/// Amounts of the machine; absent means unsaid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<ByteSize>,
}

/// How replicas are replaced; surge and unavailable are never both 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// Replicas above the wanted count while updating.
    pub surge: u32,
    /// Replicas below the wanted count while updating.
    pub unavailable: u32,
    /// Time a new replica has to stay ready before it counts.
    pub min_ready: TimeSpan,
    /// Time in-flight requests get after a replica left the routes, before it is asked to end.
    pub drain: TimeSpan,
    /// Time without progress after which the update has failed.
    pub progress_deadline: TimeSpan,
}

/// How a replica is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Signal that asks.
    pub signal: Signal,
    /// Time until it is killed.
    pub grace: TimeSpan,
}

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
}

/// A condition that asks for one more replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleTrigger {
    /// Name of the metric, per replica.
    pub metric: String,
    /// Value above which a replica is added.
    pub above: Quantity,
}

/// The value of one environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// Address of a store, as the target serves it.
    Store {
        /// Name under `stores`.
        store: String,
    },
    /// Value of a secret.
    Secret {
        /// Name under `secrets`.
        secret: String,
        /// How the service receives it.
        #[serde(rename = "as")]
        form: SecretForm,
    },
    /// Text, possibly with placeholders (see [`template`](crate::system::template)).
    Text(String),
}

/// How a service receives a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    /// The value is in a file, whose path is in the variable `NAME_FILE`.
    File,
    /// The value is in the variable itself.
    Env,
}

/// A public path that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Public path.
    pub path: String,
    /// Path on the service that replaces it; the same path when absent.
    pub to: Option<String>,
    /// Whether longer paths match too.
    #[serde(rename = "match")]
    pub kind: MatchKind,
    /// Methods let through; empty means all.
    pub methods: Vec<Method>,
    /// Time an answer may take; the gateway's own limit when absent.
    pub timeout: Option<TimeSpan>,
}

/// How a route's path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchKind {
    /// This path and everything below it, by whole segments; the longest wins.
    Prefix,
    /// This path only.
    Exact,
}

/// An HTTP method a route may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
}

impl Method {
    /// Returns the method as it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}
