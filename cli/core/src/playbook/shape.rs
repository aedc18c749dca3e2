//! The keys of a playbook.

use crate::system::{ENV_NAME, NAME, SOME_TIME, TIME_SPAN, URL_PATH};
use crate::yaml::shape::{
    ANY_TEXT, Choice, Group, Kind, OneOf, Struct, TEXT, TextRule, default, empty, keys, optional, required,
    word,
};

/// The file as a whole.
pub(super) static ROOT: Struct = Struct {
    name: "playbook",
    doc: "A playbook: phases of steps, each one action with its proof and its failure policy.",
    keys: &[
        required("apiVersion", Kind::Choice(API_VERSIONS), "Version of this format."),
        required(
            "playbook",
            Kind::Text(&PLAYBOOK_NAME),
            "Name: the file's path below playbooks/ without its ending.",
        ),
        required("title", Kind::Text(&TEXT), "One line that says what it does."),
        optional("when", Kind::Text(&TEXT), "When it is the right one."),
        empty(
            "params",
            Kind::Map { key: &PARAM_NAME, of: &Kind::Struct(&PARAM) },
            "Parameters by name; texts below refer to them as {{name}}.",
        ),
        empty("limits", Kind::Struct(&LIMITS), "What bounds its use."),
        empty(
            "guards",
            Kind::List { of: &Kind::Struct(&GUARD), min: 0 },
            "What has to hold before the first step.",
        ),
        required("phases", Kind::List { of: &Kind::Struct(&PHASE), min: 1 }, "Phases in order."),
        default("on_failure", Kind::Choice(ON_FAILURE), "stop", "What a failed step leads to."),
        empty(
            "rolls_back",
            Kind::List { of: &Kind::Text(&NAME), min: 0 },
            "Phases that a rollback takes back, toward the last verified release.",
        ),
    ],
    one_of: None,
    refused: &[
        ("system", "found a system, expected a playbook: a system stands in mlctl.yaml"),
        ("services", "found services, expected a playbook: services are a system's"),
    ],
};

static API_VERSIONS: &[Choice] = &[word("mlctl/v1", "The only version so far.")];

static PLAYBOOK_NAME: TextRule = TextRule {
    expected: "a name such as deploy or emergency/rate-limit",
    pattern: Some("^[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)*$"),
    accepts: |text| text.split('/').all(NAME.accepts),
};

static PARAM_NAME: TextRule = TextRule {
    expected: "a parameter name of small letters, digits and underscores",
    pattern: Some("^[a-z][a-z0-9_]*$"),
    accepts: |text| {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    },
};

static PARAM: Struct = keys(
    "param",
    "A parameter.",
    &[
        required("type", Kind::Choice(PARAM_TYPES), "What it may be."),
        optional("title", Kind::Text(&TEXT), "What it is for."),
        empty("values", Kind::List { of: &Kind::Text(&ANY_TEXT), min: 0 }, "Allowed values of an enum."),
        optional("default", Kind::Text(&ANY_TEXT), "Value when none is given; without one it is required."),
    ],
);

static PARAM_TYPES: &[Choice] = &[
    word("enum", "one of `values`"),
    word("string", "any text"),
    word("int", "a whole number"),
    word("duration", "a duration such as 30s"),
    word("service", "name of a service of the system"),
];

static LIMITS: Struct = keys(
    "limits",
    "What bounds the use of a playbook.",
    &[
        default("targets", Kind::Int { min: 1, max: 100 }, "1", "Targets one run may touch."),
        optional("cooldown", Kind::Unit(&TIME_SPAN), "Time between two runs on one target."),
        optional("deadline", Kind::Unit(&SOME_TIME), "Time a whole run may take."),
    ],
);

static GUARD: Struct = keys(
    "guard",
    "Something that has to hold before the first step.",
    &[
        required("health", Kind::Text(&NAME), "Service that is looked at."),
        required("is", Kind::Choice(GUARD_STATES), "What it has to be."),
    ],
);

static GUARD_STATES: &[Choice] = &[word("reachable", "it answers at all"), word("ready", "it is ready")];

static PHASE: Struct = keys(
    "phase",
    "Steps that belong together; the next phase starts when all of them have passed.",
    &[
        required("name", Kind::Text(&NAME), "Name, for --phase and in events."),
        optional("title", Kind::Text(&TEXT), "One line that says what it does."),
        optional("deadline", Kind::Unit(&SOME_TIME), "Time the phase may take."),
        required("steps", Kind::List { of: &Kind::Struct(&STEP), min: 1 }, "Steps in order."),
    ],
);

static STEP: Struct = Struct {
    name: "step",
    doc: "One action with its proof and its failure policy.",
    keys: &[
        required("id", Kind::Text(&NAME), "Name, unique in the playbook."),
        optional(
            "apply",
            Kind::Struct(&APPLY),
            "Makes the target run what the release says, and waits until that is true and stays true.",
        ),
        optional("migrate", Kind::Struct(&MIGRATE), "Runs pending migrations."),
        optional("gate", Kind::OneOf(&GATE), "Asks a question; a no, or no answer, fails the step."),
        optional(
            "load",
            Kind::Struct(&LOAD),
            "Sends a load profile of the system and keeps the result for a gate.",
        ),
        optional("mark", Kind::Choice(MARKS), "Marks the release."),
        optional("scale", Kind::Struct(&SCALE), "Sets a replica count."),
        optional("restart", Kind::Struct(&RESTART), "Replaces every replica of a service."),
        optional("env", Kind::Struct(&ENV), "Sets environment variables of a service."),
        optional("wait", Kind::Struct(&WAIT), "Lets time pass."),
        default("class", Kind::Choice(CLASSES), "change", "How far it reaches."),
        optional("verify", Kind::Struct(&HTTP_CHECK), "What has to be seen afterwards."),
        optional(
            "on_failure",
            Kind::Choice(STEP_FAILURE),
            "What its failure leads to; else as the playbook says.",
        ),
        optional("timeout", Kind::Unit(&SOME_TIME), "Time one attempt may take."),
        default(
            "retries",
            Kind::Int { min: 0, max: 20 },
            "0",
            "Attempts after the first when an error may pass.",
        ),
    ],
    one_of: Some(&Group { noun: "action", keys: ACTIONS }),
    refused: &[
        ("exec", "step kind `exec` is not available yet"),
        ("http", "step kind `http` is not available yet; a gate asks by `gate: {http: PATH}`"),
        ("approve", "step kind `approve` is not available yet"),
        ("notify", "step kind `notify` is not available yet"),
        ("pause", "step kind `pause` is not available yet"),
        ("evidence", "step kind `evidence` is not available yet"),
        ("include", "step kind `include` is not available yet"),
        ("rollback", "step kind `rollback` is not available yet; say `on_failure: rollback`"),
        ("maintenance", "step kind `maintenance` is not available yet"),
    ],
};

/// Keys of a step that say what it does.
pub(super) const ACTIONS: &[&str] =
    &["apply", "migrate", "gate", "load", "mark", "scale", "restart", "env", "wait"];

static CLASSES: &[Choice] = &[
    word("read", "looks only"),
    word("change", "changes what can be changed back"),
    word("destructive", "cannot be taken back"),
];

static ON_FAILURE: &[Choice] = &[
    word("rollback", "a plan toward the last verified release, over the phases of `rolls_back`"),
    word("stop", "everything is left as it is"),
];

static STEP_FAILURE: &[Choice] = &[
    word("rollback", "a plan toward the last verified release, over the phases of `rolls_back`"),
    word("stop", "everything is left as it is"),
    word("continue", "the failure is a warning and the run goes on"),
];

static APPLY: Struct = keys(
    "apply",
    "Makes the target run what the release says.",
    &[
        required("items", Kind::List { of: &Kind::Choice(ITEMS), min: 1 }, "Kinds of items, in this order."),
        default(
            "phase",
            Kind::Choice(SERVICE_PHASES),
            "applications",
            "Phase whose services `services` means.",
        ),
        default("order", Kind::Choice(ORDERS), "needs", "Order of workloads."),
        default(
            "width",
            Kind::Int { min: 1, max: 100 },
            "1",
            "Workloads updated at a time; the first healthy one admits the rest.",
        ),
        default("stable_for", Kind::Unit(&TIME_SPAN), "5s", "Time everything has to stay current."),
        optional("deadline", Kind::Unit(&SOME_TIME), "Time until all of it has to be current."),
    ],
);

static ITEMS: &[Choice] = &[
    word("namespace", "the namespace, stack or folder everything lives in"),
    word("secrets", "secrets"),
    word("config", "configuration that is not secret"),
    word("stores", "stores"),
    word("services", "services"),
];

static SERVICE_PHASES: &[Choice] =
    &[word("infrastructure", "what applications stand on"), word("applications", "the applications")];

static ORDERS: &[Choice] = &[
    word("needs", "what others need comes first; equals in the order of the file"),
    word("file", "the order of the file"),
];

static SELECTION: OneOf = OneOf {
    expected: "`all` or a list of names",
    forms: &[Kind::Choice(ALL), Kind::List { of: &Kind::Text(&NAME), min: 1 }],
};

static ALL: &[Choice] = &[word("all", "all there are")];

static MIGRATE: Struct = keys(
    "migrate",
    "Runs pending migrations.",
    &[required(
        "services",
        Kind::OneOf(&SELECTION),
        "Services whose migrations run; those without are passed over.",
    )],
);

static GATE: OneOf = OneOf {
    expected: "one of {health: ...}, {metrics: expected}, {kpis: ..., from: STEP} or {http: PATH}",
    forms: &[
        Kind::Struct(&HEALTH_GATE),
        Kind::Struct(&METRICS_GATE),
        Kind::Struct(&KPI_GATE),
        Kind::Struct(&HTTP_CHECK),
    ],
};

const WITHIN: &str = "Time until the answer has to be right.";

static HEALTH_GATE: Struct = keys(
    "health gate",
    "Asks the deep health of services.",
    &[
        required(
            "health",
            Kind::OneOf(&SELECTION),
            "Services that are asked; those without a check are passed over.",
        ),
        required("through", Kind::List { of: &Kind::Choice(WAYS), min: 1 }, "Ways they are asked on."),
        default("within", Kind::Unit(&SOME_TIME), "30s", WITHIN),
    ],
);

static WAYS: &[Choice] = &[
    word("gateway", "through the public front, as a client comes"),
    word("direct", "on the service's own address"),
];

static METRICS_GATE: Struct = keys(
    "metrics gate",
    "Looks for series.",
    &[
        required("metrics", Kind::Choice(WANTED), "Series that are looked for."),
        default("within", Kind::Unit(&SOME_TIME), "30s", WITHIN),
    ],
);

static WANTED: &[Choice] = &[word("expected", "`metrics.expect` of every service")];

static KPI_GATE: Struct = keys(
    "kpi gate",
    "Judges the result of a load step by the KPIs of the system.",
    &[
        required(
            "kpis",
            Kind::OneOf(&SELECTION),
            "KPIs that are judged; those a load cannot judge are passed over.",
        ),
        required("from", Kind::Text(&NAME), "Id of the load step whose result is judged."),
    ],
);

static HTTP_CHECK: Struct = keys(
    "http check",
    "Asks the public front and looks at the answer, which has to be a 2xx.",
    &[
        required("http", Kind::Text(&URL_PATH), "Public path that is asked."),
        optional("json", Kind::Text(&TEXT), "Top-level key or JSON pointer of the value that is looked at."),
        optional("equals", Kind::Text(&ANY_TEXT), "What that value has to be."),
        default("within", Kind::Unit(&SOME_TIME), "30s", WITHIN),
    ],
);

static LOAD: Struct = keys(
    "load step",
    "Sends a load profile of the system.",
    &[
        required("profile", Kind::Text(&NAME), "Load profile of the system."),
        default(
            "missing",
            Kind::Choice(MISSING),
            "fail",
            "What happens when the system has no such profile.",
        ),
    ],
);

static MISSING: &[Choice] = &[
    word("fail", "planning is refused"),
    word("skip", "the step is skipped, and so is a gate on its result"),
];

static MARKS: &[Choice] = &[word("verified", "the release passed: the default rollback target from now on")];

static SCALE: Struct = keys(
    "scale",
    "Sets a replica count.",
    &[
        required("service", Kind::Text(&NAME), "Service."),
        required("replicas", Kind::Int { min: 0, max: 1_000 }, "Replicas wanted."),
    ],
);

static RESTART: Struct = keys(
    "restart",
    "Replaces every replica of a service.",
    &[required("service", Kind::Text(&NAME), "Service.")],
);

static ENV: Struct = keys(
    "env",
    "Sets environment variables of a service.",
    &[
        required("service", Kind::Text(&NAME), "Service."),
        required(
            "set",
            Kind::Map { key: &ENV_NAME, of: &Kind::Text(&ANY_TEXT) },
            "Variables and their values.",
        ),
    ],
);

static WAIT: Struct =
    keys("wait", "Lets time pass.", &[required("seconds", Kind::Int { min: 1, max: 86_400 }, "Seconds.")]);
