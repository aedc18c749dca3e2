//! A playbook in typed form: phases of steps, each one action with its proof and its failure policy.
//!
//! Like the system's model it knows no default: those stand once, in the shape tables.

mod gate;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::system::ServicePhase;
use crate::system::units::TimeSpan;

pub use gate::{GateCheck, HealthGate, HttpCheck, KpiGate, MetricsGate, MetricsWanted, Through};

/// A playbook with its parameters filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Playbook {
    /// Name, such as `deploy` or `emergency/rate-limit`.
    #[serde(rename = "playbook")]
    pub name: String,
    /// One line for people.
    pub title: String,
    /// When it is the right one.
    pub when: Option<String>,
    /// Parameters it was declared with.
    pub params: IndexMap<String, Param>,
    /// What bounds its use.
    pub limits: Limits,
    /// What has to hold before the first step.
    pub guards: Vec<Guard>,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// What a failed step leads to.
    pub on_failure: OnFailure,
    /// Phases that a rollback takes back.
    pub rolls_back: Vec<String>,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// What it may be.
    #[serde(rename = "type")]
    pub kind: ParamKind,
    /// What it is for.
    pub title: Option<String>,
    /// Allowed values of an `enum`.
    pub values: Vec<String>,
    /// Value when none is given; without one the parameter is required.
    pub default: Option<String>,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamKind {
    /// One of `values`.
    Enum,
    /// Any text.
    String,
    /// A whole number.
    Int,
    /// A duration.
    Duration,
    /// Name of a service of the system.
    Service,
}

/// What bounds the use of a playbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Targets one run may touch; at least 1.
    pub targets: u32,
    /// Time between two runs on one target.
    pub cooldown: Option<TimeSpan>,
    /// Time a whole run may take.
    pub deadline: Option<TimeSpan>,
}

/// Something that has to hold before the first step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Service that is looked at.
    pub health: String,
    /// What it has to be.
    pub is: GuardState,
}

/// What a guard asks of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuardState {
    /// It answers at all.
    Reachable,
    /// It is ready.
    Ready,
}

/// Steps that belong together; the next phase starts when every one of them has passed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Name, for `--phase` and events.
    pub name: String,
    /// One line for people.
    pub title: Option<String>,
    /// Time the phase may take.
    pub deadline: Option<TimeSpan>,
    /// Steps in order.
    pub steps: Vec<Step>,
}

/// One action with its proof and its failure policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Name, unique in the playbook.
    pub id: String,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
    /// How far it reaches.
    pub class: Class,
    /// What has to be seen afterwards.
    pub verify: Option<HttpCheck>,
    /// What its failure leads to; the playbook's `on_failure` when absent.
    pub on_failure: Option<StepFailure>,
    /// Time one attempt may take.
    pub timeout: Option<TimeSpan>,
    /// Attempts after the first when the error may pass.
    pub retries: u32,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Makes the target run what the release says, and waits until it is true.
    Apply(Apply),
    /// Runs pending migrations.
    Migrate(Migrate),
    /// Asks, and says pass, fail or inconclusive.
    Gate(GateCheck),
    /// Sends load.
    Load(LoadStep),
    /// Marks the release.
    Mark(Mark),
    /// Sets a replica count.
    Scale(Scale),
    /// Replaces every replica of a service.
    Restart(Restart),
    /// Sets environment variables of a service.
    Env(EnvStep),
    /// Lets time pass.
    Wait(Wait),
}

impl Action {
    /// Returns the word that names the action in a playbook.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Apply(_) => "apply",
            Self::Migrate(_) => "migrate",
            Self::Gate(_) => "gate",
            Self::Load(_) => "load",
            Self::Mark(_) => "mark",
            Self::Scale(_) => "scale",
            Self::Restart(_) => "restart",
            Self::Env(_) => "env",
            Self::Wait(_) => "wait",
        }
    }
}

/// Parameters of `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Kinds of items, applied in this order.
    pub items: Vec<ItemKind>,
    /// Phase whose services are meant by `services`.
    pub phase: ServicePhase,
    /// Order within one kind.
    pub order: Order,
    /// Workloads updated at a time; the first healthy one admits the rest. At least 1.
    pub width: u32,
    /// Time everything has to stay current.
    pub stable_for: TimeSpan,
    /// Time until all of it is current; each workload has its own progress deadline besides.
    pub deadline: Option<TimeSpan>,
}

/// A kind of item a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemKind {
    /// The namespace, stack or folder everything lives in.
    Namespace,
    /// Secrets.
    Secrets,
    /// Configuration that is not secret.
    Config,
    /// Stores.
    Stores,
    /// Services.
    Services,
}

/// Order of workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// What others need comes first; equals in the order of the file.
    Needs,
    /// The order of the file.
    File,
}

/// Parameters of `migrate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrate {
    /// Services whose migrations run; those without a folder are passed over.
    pub services: Selection,
}

/// All of something, or some by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Selection {
    /// The word `all`.
    All(AllWord),
    /// Names.
    Named(Vec<String>),
}

impl Selection {
    /// Returns whether `name` is selected.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All(_) => true,
            Self::Named(names) => names.iter().any(|each| each == name),
        }
    }
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllWord {
    /// `all`
    All,
}

/// Parameters of `load`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadStep {
    /// Load profile of the system.
    pub profile: String,
    /// What happens when the system has no such profile.
    pub missing: Missing,
}

/// What happens when something a generic playbook names is not in the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// Planning is refused.
    Fail,
    /// The step is skipped and says so.
    Skip,
}

/// Parameter of `mark`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// The release passed verification: the default rollback target from now on.
    Verified,
}

/// Parameters of `scale`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Service.
    pub service: String,
    /// Replicas wanted.
    pub replicas: u32,
}

/// Parameters of `restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Service.
    pub service: String,
}

/// Parameters of `env`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvStep {
    /// Service.
    pub service: String,
    /// Variables and their values.
    pub set: IndexMap<String, String>,
}

/// Parameters of `wait`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Seconds.
    pub seconds: u32,
}

/// How far a step reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Looks only.
    Read,
    /// Changes what can be changed back.
    Change,
    /// Cannot be taken back.
    Destructive,
}

/// What a failed step of the playbook leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// A plan toward the last verified release, over the phases of `rolls_back`.
    Rollback,
    /// Everything is left as it is.
    Stop,
}

/// What the failure of one step leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepFailure {
    /// As in [`OnFailure`].
    Rollback,
    /// As in [`OnFailure`].
    Stop,
    /// The failure is a warning and the run goes on.
    Continue,
}
