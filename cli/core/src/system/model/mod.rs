//! The system in typed form: what `mlctl.yaml` says once it is checked, completed with defaults and
//! overlaid with a profile.
//!
//! Nothing here knows a default: those stand once, in the shape tables beside the parser, so that a value
//! built by hand in a test has to say everything. Serialised, each type reads back as itself.

mod load;
mod observe;
mod service;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use load::{Call, LoadProfile, LoadRequest, MixEntry};
pub use observe::{Alert, AlertAction, Kpi, LoadMeasure};
pub use service::{
    Amounts, Build, EnvValue, Health, MatchKind, Method, Metrics, Replicas, Resources, Route, ScaleTrigger,
    SecretForm, Service, ServicePhase, Signal, Socket, Stop, Update,
};

/// A system: everything one deploy concerns, under one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// Name of the system; a DNS label. Namespace and stack names default to it.
    #[serde(rename = "system")]
    pub name: String,
    /// Profile overlaid on the file, if one was.
    pub profile: Option<String>,
    /// Enabled services in the order of the file.
    pub services: IndexMap<String, Service>,
    /// Stores that services refer to.
    pub stores: IndexMap<String, Store>,
    /// Secrets that enabled services and load profiles refer to; others of the file are left out.
    pub secrets: IndexMap<String, Secret>,
    /// Promotion criteria and service level objectives.
    pub kpis: IndexMap<String, Kpi>,
    /// Conditions that call somebody.
    pub alerts: IndexMap<String, Alert>,
    /// Load profiles for `loadtest` and for `load` steps.
    pub load: IndexMap<String, LoadProfile>,
    /// Places this system can be deployed to.
    pub targets: IndexMap<String, Target>,
}

impl System {
    /// Returns the name and definition of the public front, when the system has one.
    pub fn gateway(&self) -> Option<(&str, &Service)> {
        self.services
            .iter()
            .find(|(_, service)| service.gateway)
            .map(|(name, service)| (name.as_str(), service))
    }

    /// Returns the services of one phase, in the order of the file.
    pub fn services_in(&self, phase: ServicePhase) -> impl Iterator<Item = (&str, &Service)> {
        self.services
            .iter()
            .filter(move |(_, service)| service.phase == phase)
            .map(|(name, service)| (name.as_str(), service))
    }
}

/// A store that services keep their state in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Software behind it.
    pub kind: StoreKind,
    /// Version wanted, such as `>=14`, as written.
    pub version: Option<String>,
    /// Server settings as written, by name.
    pub settings: IndexMap<String, String>,
}

/// Software a store runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// PostgreSQL.
    Postgresql,
    /// Redis.
    Redis,
    /// MongoDB.
    Mongodb,
    /// Apache Kafka.
    Kafka,
}

/// A secret: where its value comes from. The value itself never is in a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// How a target makes a value when none is given.
    pub generate: Generate,
    /// Variable of mlctl's own environment whose value is taken at deploy time when it is set.
    pub env: Option<String>,
}

/// How the value of a secret is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generate {
    /// PKCS#8 PEM private key for Ed25519.
    Ed25519Pem,
    /// 256 random bits, URL-safe.
    Token,
    /// 32 random bytes in base64.
    #[serde(rename = "base64-32")]
    Base64Of32,
    /// Never made: somebody has to give it.
    None,
}

/// A place a system is deployed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Orchestrator behind it.
    pub kind: TargetKind,
    /// Profile overlaid for it.
    pub profile: Option<String>,
    /// Kubernetes: context of the kubeconfig.
    pub context: Option<String>,
    /// Kubernetes: namespace; the system's name when absent.
    pub namespace: Option<String>,
    /// Kubernetes: overlay folder under `k8s/`.
    pub overlay: Option<String>,
    /// Swarm: address of the Docker endpoint.
    pub host: Option<String>,
    /// Swarm: name of the stack; the system's name when absent.
    pub stack: Option<String>,
    /// Base address the public front answers on, when it is not the target's own.
    pub url: Option<String>,
    /// Whether changes need a confirmation that names the target.
    pub protect: bool,
}

/// Orchestrator behind a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Processes on this machine, under mlctl's own agent.
    Local,
    /// A Kubernetes cluster.
    Kubernetes,
    /// A Docker Swarm.
    Swarm,
}
