//! The keys of KPIs and alerts.

use super::rules::{BOUND, CONDITION, INDICATOR, NAME, TIME_SPAN};
use crate::yaml::shape::{Choice, Group, Kind, Struct, TEXT, TextRule, keys, optional, required, word};

/// A KPI.
pub(super) static KPI: Struct = keys(
    "kpi",
    "A key performance indicator with its target.",
    &[
        optional("title", Kind::Text(&TEXT), "One sentence for people."),
        required("sli", Kind::Unit(&INDICATOR), "How it is computed from metrics."),
        required("target", Kind::Unit(&BOUND), "What it has to be."),
        optional(
            "load",
            Kind::Choice(LOAD_MEASURES),
            "Figure of a load result that stands for it in a deploy.",
        ),
    ],
);

pub(in crate::system) static LOAD_MEASURES: &[Choice] = &[
    word("p50", "median latency"),
    word("p95", "95th percentile of the latency"),
    word("p99", "99th percentile of the latency"),
    word("errors", "share of requests that failed"),
    word("success", "share of requests that did not fail"),
    word("rate", "good answers per time"),
];

/// An alert.
pub(super) static ALERT: Struct = keys(
    "alert",
    "A condition that calls somebody.",
    &[
        optional("title", Kind::Text(&TEXT), "One sentence for people."),
        required("when", Kind::Unit(&CONDITION), "What has to be true."),
        required("for", Kind::Unit(&TIME_SPAN), "For how long without a break."),
        required("notify", Kind::List { of: &Kind::Text(&NAME), min: 1 }, "Channels that are told."),
        optional("run", Kind::Struct(&ALERT_ACTION), "What is done besides."),
    ],
);

static ALERT_ACTION: Struct = Struct {
    name: "alert action",
    doc: "What an alert does besides calling somebody.",
    keys: &[
        optional("scale", Kind::Text(&NAME), "Service or store that gets more."),
        optional("playbook", Kind::Text(&PLAYBOOK_NAME), "Playbook that is run."),
    ],
    one_of: Some(&Group { noun: "action", keys: &["scale", "playbook"] }),
    refused: &[],
};

/// Name of a playbook: its path below `playbooks/` without the ending.
static PLAYBOOK_NAME: TextRule = TextRule {
    expected: "the name of a playbook such as emergency/rate-limit",
    pattern: Some("^[a-z][a-z0-9-]*(/[a-z][a-z0-9-]*)*$"),
    accepts: |text| text.split('/').all(NAME.accepts),
};
