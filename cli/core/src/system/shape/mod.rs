//! The keys of `mlctl.yaml`: one table per noun, each key with its kind, default and sentence.

mod load;
mod observe;
mod rules;
mod service;

pub(crate) use rules::{ENV_NAME, NAME, SOME_TIME, TIME_SPAN, URL_PATH};

use crate::yaml::shape::{Choice, Kind, Struct, TEXT, default, empty, keys, optional, required, word};
use load::LOAD;
pub(super) use observe::LOAD_MEASURES;
use observe::{ALERT, KPI};
use rules::{RELATIVE_PATH, SETTING, SETTING_NAME};
use service::{ENV, HEALTH, REPLICAS, RESOURCES, SERVICE, STOP, UPDATE};

/// The file as a whole.
pub(super) static ROOT: Struct = Struct {
    name: "system",
    doc: "A system that mlctl deploys: its services, stores, secrets, targets and what counts as good.",
    keys: &[
        required("apiVersion", Kind::Choice(API_VERSIONS), "Version of this format."),
        required(
            "system",
            Kind::Text(&NAME),
            "Name of the system; namespaces and stacks are named after it.",
        ),
        required("services", Kind::Map { key: &NAME, of: &Kind::Struct(&SERVICE) }, "Services by name."),
        empty("stores", Kind::Map { key: &NAME, of: &Kind::Struct(&STORE) }, "Stores by name."),
        empty("secrets", Kind::Map { key: &NAME, of: &Kind::Struct(&SECRET) }, "Secrets by name."),
        empty("kpis", Kind::Map { key: &NAME, of: &Kind::Struct(&KPI) }, "KPIs by name."),
        empty("alerts", Kind::Map { key: &NAME, of: &Kind::Struct(&ALERT) }, "Alerts by name."),
        empty("load", Kind::Map { key: &NAME, of: &Kind::Struct(&LOAD) }, "Load profiles by name."),
        empty(
            "profiles",
            Kind::Map { key: &NAME, of: &Kind::Struct(&PROFILE) },
            "Profiles by name: what is different on some targets.",
        ),
        empty("targets", Kind::Map { key: &NAME, of: &Kind::Struct(&TARGET) }, "Targets by name."),
    ],
    one_of: None,
    refused: &[
        ("playbook", "found a playbook, expected a system: playbooks stand below playbooks/"),
        ("phases", "found phases, expected a system: phases are a playbook's"),
    ],
};

static API_VERSIONS: &[Choice] = &[word("mlctl/v1", "The only version so far.")];

static STORE: Struct = keys(
    "store",
    "A store that services keep their state in.",
    &[
        required("kind", Kind::Choice(STORE_KINDS), "Software behind it."),
        optional("version", Kind::Text(&TEXT), "Version wanted, such as \">=14\"."),
        empty(
            "settings",
            Kind::Map { key: &SETTING_NAME, of: &Kind::Text(&SETTING) },
            "Server settings by the server's own names.",
        ),
    ],
);

static STORE_KINDS: &[Choice] = &[
    word("postgresql", "PostgreSQL"),
    word("redis", "Redis"),
    word("mongodb", "MongoDB"),
    word("kafka", "Apache Kafka"),
];

static SECRET: Struct = keys(
    "secret",
    "A secret: where its value comes from.",
    &[
        default("generate", Kind::Choice(GENERATORS), "none", "How a value is made when none is given."),
        optional(
            "env",
            Kind::Text(&ENV_NAME),
            "Variable of mlctl's own environment that gives the value at deploy time when it is set.",
        ),
    ],
);

static GENERATORS: &[Choice] = &[
    word("ed25519-pem", "a PKCS#8 PEM private key for Ed25519"),
    word("token", "256 random bits, URL-safe"),
    word("base64-32", "32 random bytes in base64"),
    word("none", "never made: somebody has to give it"),
];

/// What a profile may say. Its keys win over what the services say themselves.
pub(super) static PROFILE: Struct = keys(
    "profile",
    "What is different on some targets; it wins over what the services say themselves.",
    &[
        optional("replicas", Kind::Partial(&REPLICAS), "Replica bounds of every service."),
        optional("resources", Kind::Partial(&RESOURCES), "Resources of every service."),
        optional("update", Kind::Partial(&UPDATE), "Update rules of every service."),
        optional("health", Kind::Partial(&HEALTH), "Health rules of every service."),
        optional("stop", Kind::Partial(&STOP), "Stop rules of every service."),
        optional("env", ENV, "Variables of every service."),
        optional(
            "services",
            Kind::Map { key: &NAME, of: &Kind::Partial(&SERVICE) },
            "Keys of single services; they win over the profile's own.",
        ),
        optional("stores", Kind::Map { key: &NAME, of: &Kind::Partial(&STORE) }, "Keys of single stores."),
        optional("kpis", Kind::Map { key: &NAME, of: &Kind::Partial(&KPI) }, "Keys of single KPIs."),
        optional(
            "load",
            Kind::Map { key: &NAME, of: &Kind::Partial(&LOAD) },
            "Keys of single load profiles.",
        ),
    ],
);

static TARGET: Struct = keys(
    "target",
    "A place the system is deployed to.",
    &[
        optional(
            "kind",
            Kind::Choice(TARGET_KINDS),
            "Orchestrator; the target's name when that is one of the kinds.",
        ),
        optional("profile", Kind::Text(&NAME), "Profile laid over the file for this target."),
        optional("context", Kind::Text(&TEXT), "Kubernetes: context of the kubeconfig."),
        optional("namespace", Kind::Text(&NAME), "Kubernetes: namespace; the system's name when absent."),
        optional("overlay", Kind::Text(&RELATIVE_PATH), "Kubernetes: overlay folder under k8s/."),
        optional("host", Kind::Text(&TEXT), "Swarm: address of the Docker endpoint."),
        optional("stack", Kind::Text(&NAME), "Swarm: name of the stack; the system's name when absent."),
        optional(
            "url",
            Kind::Text(&TEXT),
            "Base address of the public front, when it is not the target's own.",
        ),
        default("protect", Kind::Bool, "false", "Whether changes need a confirmation that names the target."),
    ],
);

pub(super) static TARGET_KINDS: &[Choice] = &[
    word("local", "processes on this machine"),
    word("kubernetes", "a Kubernetes cluster"),
    word("swarm", "a Docker Swarm"),
];
