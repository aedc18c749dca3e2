//! The keys of a service.

use super::rules::{
    BYTE_SIZE, CPU, ENV_NAME, IMAGE, METRIC, NAME, QUANTITY, RELATIVE_PATH, SOME_TIME, TIME_SPAN, URL_PATH,
};
use crate::yaml::shape::{
    ANY_TEXT, Choice, Key, Kind, OneOf, Struct, default, empty, keys, optional, required, word,
};

const PORT: Kind = Kind::Int { min: 1, max: 65_535 };
const COUNT: Kind = Kind::Int { min: 0, max: 1_000 };

/// A service.
pub(super) static SERVICE: Struct = keys(
    "service",
    "A service: how it is built, run, proven healthy, updated and reached.",
    &[
        default(
            "enabled",
            Kind::Bool,
            "true",
            "Whether it is deployed; profiles switch services on and off.",
        ),
        default("phase", Kind::Choice(PHASES), "applications", "Phase of a deploy it belongs to."),
        default("gateway", Kind::Bool, "false", "Whether it is the public front; at most one service is."),
        default(
            "socket",
            Kind::Choice(SOCKETS),
            "relay",
            "How its address is served by a target that owns sockets.",
        ),
        optional("build", Kind::Struct(&BUILD), "How its artifact is made from source."),
        optional("image", Kind::Text(&IMAGE), "Image for clusters, without tag."),
        empty("command", ARGV, "Program and arguments, where the artifact is not itself the program."),
        required("port", PORT, "Stable port others reach it on; replicas get their own as {port}."),
        optional("metrics", Kind::Struct(&METRICS), "Its Prometheus endpoint."),
        empty("health", Kind::Struct(&HEALTH), "How its state is asked."),
        empty("replicas", Kind::Struct(&REPLICAS), "Bounds of its replica count."),
        empty("resources", Kind::Struct(&RESOURCES), "What a replica is given."),
        empty("update", Kind::Struct(&UPDATE), "How replicas are replaced."),
        empty("stop", Kind::Struct(&STOP), "How a replica is asked to end."),
        empty(
            "scale",
            Kind::List { of: &Kind::Struct(&TRIGGER), min: 0 },
            "Conditions that ask for one more replica.",
        ),
        empty(
            "needs",
            Kind::List { of: &Kind::Text(&NAME), min: 0 },
            "Services and stores that have to be there before it.",
        ),
        empty("env", ENV, "Environment by variable name."),
        optional(
            "migrations",
            Kind::Text(&RELATIVE_PATH),
            "Folder of its migrations, one folder per kind of store.",
        ),
        empty("routes", Kind::List { of: &Kind::Struct(&ROUTE), min: 0 }, "Public paths that lead to it."),
    ],
);

const ARGV: Kind = Kind::List { of: &Kind::Text(&ANY_TEXT), min: 0 };

static PHASES: &[Choice] = &[
    word("infrastructure", "what applications stand on; never rolled back by itself"),
    word("applications", "the applications"),
];

static SOCKETS: &[Choice] = &[
    word("relay", "a relay listens and passes connections on to ready replicas"),
    word("passed", "the listening socket itself is handed over as descriptor 3 (LISTEN_FDS=1)"),
];

static BUILD: Struct = keys(
    "build",
    "How an artifact is made from source.",
    &[
        empty(
            "run",
            ARGV,
            "Program and arguments, run in the folder of the file; empty when nothing is compiled.",
        ),
        required("artifact", Kind::Text(&RELATIVE_PATH), "File or folder that results."),
        empty(
            "sources",
            Kind::List { of: &Kind::Text(&RELATIVE_PATH), min: 0 },
            "Globs of what it is made of; without them the command itself knows what is stale.",
        ),
    ],
);

static METRICS: Struct = keys(
    "metrics",
    "A Prometheus endpoint.",
    &[
        required("port", PORT, "Stable port of the endpoint; replicas get their own as {metrics_port}."),
        default("path", Kind::Text(&URL_PATH), "/metrics", "Path of the exposition."),
        empty(
            "expect",
            Kind::List { of: &Kind::Text(&METRIC), min: 0 },
            "Series that verification must see.",
        ),
    ],
);

pub(super) static HEALTH: Struct = keys(
    "health",
    "How the state of a replica is asked; without a ready path an accepted connection counts as ready.",
    &[
        optional("startup", Kind::Text(&URL_PATH), "Path that answers 2xx once the replica has started."),
        optional("live", Kind::Text(&URL_PATH), "Path that answers 2xx as long as a restart would not help."),
        optional(
            "ready",
            Kind::Text(&URL_PATH),
            "Path that answers 2xx when the replica may receive requests.",
        ),
        optional("check", Kind::Text(&URL_PATH), "Path of the deep answer that verification asks for."),
        default("period", Kind::Unit(&SOME_TIME), "2s", "Time between two questions."),
        default("timeout", Kind::Unit(&SOME_TIME), "1s", "Time one answer may take."),
        default(
            "failures",
            Kind::Int { min: 1, max: 100 },
            "3",
            "Bad answers in a row that change a verdict.",
        ),
        default(
            "grace",
            Kind::Unit(&TIME_SPAN),
            "20s",
            "Time after start in which bad answers do not count.",
        ),
    ],
);

pub(super) static REPLICAS: Struct = keys(
    "replicas",
    "Bounds of a replica count; inside them the live count wins.",
    &[
        default("min", COUNT, "1", "Count at create and lower bound afterwards."),
        default("max", Kind::Int { min: 1, max: 1_000 }, "10", "Upper bound."),
    ],
);

pub(super) static RESOURCES: Struct = keys(
    "resources",
    "What a replica is given.",
    &[
        empty("requests", Kind::Struct(&AMOUNTS), "What is reserved for it."),
        empty("limits", Kind::Struct(&AMOUNTS), "What it never exceeds."),
    ],
);

static AMOUNTS: Struct = keys(
    "amounts",
    "Amounts of the machine.",
    &[
        optional("cpu", Kind::Unit(&CPU), "Processor time, in cores or thousandths (m)."),
        optional("memory", Kind::Unit(&BYTE_SIZE), "Memory."),
    ],
);

pub(super) static UPDATE: Struct = keys(
    "update",
    "How replicas are replaced.",
    &[
        default("surge", COUNT, "1", "Replicas above the wanted count while updating."),
        default("unavailable", COUNT, "0", "Replicas below the wanted count while updating."),
        default(
            "minReady",
            Kind::Unit(&TIME_SPAN),
            "5s",
            "Time a new replica has to stay ready before it counts.",
        ),
        default(
            "drain",
            Kind::Unit(&TIME_SPAN),
            "20s",
            "Time in-flight requests get before a replica is asked to end.",
        ),
        default(
            "progressDeadline",
            Kind::Unit(&SOME_TIME),
            "2m",
            "Time without progress after which the update has failed.",
        ),
    ],
);

pub(super) static STOP: Struct = keys(
    "stop",
    "How a replica is asked to end.",
    &[
        default("signal", Kind::Choice(SIGNALS), "TERM", "Signal that asks."),
        default("grace", Kind::Unit(&TIME_SPAN), "10s", "Time until it is killed."),
    ],
);

static SIGNALS: &[Choice] =
    &[word("TERM", "SIGTERM"), word("INT", "SIGINT"), word("QUIT", "SIGQUIT"), word("HUP", "SIGHUP")];

static TRIGGER: Struct = keys(
    "scale trigger",
    "A condition that asks for one more replica.",
    &[
        required("metric", Kind::Text(&METRIC), "Name of the metric, per replica."),
        required("above", Kind::Unit(&QUANTITY), "Value above which a replica is added."),
    ],
);

/// Environment variables by name.
pub(super) const ENV: Kind = Kind::Map { key: &ENV_NAME, of: &Kind::OneOf(&ENV_VALUE) };

static ENV_VALUE: OneOf = OneOf {
    expected: "a text (with braces in quotes), {store: NAME} or {secret: NAME}",
    forms: &[Kind::Text(&ANY_TEXT), Kind::Struct(&FROM_STORE), Kind::Struct(&FROM_SECRET)],
};

static FROM_STORE: Struct = keys(
    "store address",
    "The address of a store, as the target serves it; left out where the store has none.",
    &[required("store", Kind::Text(&NAME), "Name of the store.")],
);

static FROM_SECRET: Struct = keys(
    "secret value",
    "The value of a secret.",
    &[
        required("secret", Kind::Text(&NAME), "Name of the secret."),
        default("as", Kind::Choice(SECRET_FORMS), "file", "How the service receives it."),
    ],
);

static SECRET_FORMS: &[Choice] = &[
    word("file", "in a file whose path is in the variable NAME_FILE"),
    word("env", "in the variable itself"),
];

static ROUTE: Struct = keys(
    "route",
    "A public path that leads to the service.",
    &[
        required("path", Kind::Text(&URL_PATH), "Public path."),
        optional(
            "to",
            Kind::Text(&URL_PATH),
            "Path on the service that replaces it; the same path when absent.",
        ),
        default("match", Kind::Choice(MATCHES), "prefix", "Whether longer paths match too."),
        empty(
            "methods",
            Kind::List { of: &Kind::Choice(METHODS), min: 0 },
            "Methods let through; all when empty.",
        ),
        TIMEOUT,
    ],
);

const TIMEOUT: Key = optional(
    "timeout",
    Kind::Unit(&SOME_TIME),
    "Time an answer may take; the gateway's own limit when absent.",
);

static MATCHES: &[Choice] =
    &[word("prefix", "this path and everything below it; the longest wins"), word("exact", "this path only")];

static METHODS: &[Choice] = &[
    word("GET", "read"),
    word("HEAD", "read without a body"),
    word("POST", "create or act"),
    word("PUT", "replace"),
    word("PATCH", "change"),
    word("DELETE", "remove"),
    word("OPTIONS", "ask what is allowed"),
];
