//! The keys of a load profile.

use super::rules::{
    EXPECT, HEADER, JSON_POINTER, NAME, REQUEST_PATH, SOME_RATE, SOME_TIME, THRESHOLD, TIME_SPAN, VARIABLE,
};
use crate::yaml::shape::{ANY_TEXT, Group, Key, Kind, Struct, default, empty, keys, optional, required};

/// A load profile.
pub(super) static LOAD: Struct = keys(
    "load profile",
    "Requests sent at a fixed rate, with what comes before and after.",
    &[
        required("rate", Kind::Unit(&SOME_RATE), "Requests started per time, whatever the answers do."),
        required("duration", Kind::Unit(&SOME_TIME), "Time that is measured."),
        default("warmup", Kind::Unit(&TIME_SPAN), "2s", "Time before it that is not measured."),
        default("connections", Kind::Int { min: 1, max: 10_000 }, "64", "Connections kept open at most."),
        default("timeout", Kind::Unit(&SOME_TIME), "10s", "Time after which a request counts as an error."),
        empty("headers", HEADERS, "Headers of every request of the mix and of the teardown."),
        empty(
            "setup",
            Kind::List { of: &Kind::Struct(&REQUEST), min: 0 },
            "Requests sent once before the load, in order; one that fails ends it.",
        ),
        required(
            "mix",
            Kind::List { of: &Kind::Struct(&MIX), min: 1 },
            "What is sent, each entry by its weight.",
        ),
        empty(
            "teardown",
            Kind::List { of: &Kind::Struct(&REQUEST), min: 0 },
            "Requests sent once after the load, in order, whatever it said.",
        ),
        empty(
            "thresholds",
            Kind::List { of: &Kind::Unit(&THRESHOLD), min: 0 },
            "What has to hold besides the KPIs.",
        ),
    ],
);

const HEADERS: Kind = Kind::Map { key: &HEADER, of: &Kind::Text(&ANY_TEXT) };

const REQUEST_NAME: Key = required("name", Kind::Text(&NAME), "Name in reports and thresholds.");
const GET: Key = optional("get", Kind::Text(&REQUEST_PATH), "Sends GET to this path.");
const POST: Key = optional("post", Kind::Text(&REQUEST_PATH), "Sends POST to this path.");
const PUT: Key = optional("put", Kind::Text(&REQUEST_PATH), "Sends PUT to this path.");
const PATCH: Key = optional("patch", Kind::Text(&REQUEST_PATH), "Sends PATCH to this path.");
const DELETE: Key = optional("delete", Kind::Text(&REQUEST_PATH), "Sends DELETE to this path.");
const BODY: Key = optional("body", Kind::Json, "JSON body; texts in it may hold templates.");
const OWN_HEADERS: Key = empty("headers", HEADERS, "Headers of this request; values may hold templates.");
const GOOD: Key = default("expect", Kind::Unit(&EXPECT), "2xx", "Statuses that count as good.");

static CALL: Group = Group { noun: "method with a path", keys: &["get", "post", "put", "patch", "delete"] };

static REQUEST: Struct = Struct {
    name: "request",
    doc: "A request of setup or teardown.",
    keys: &[
        REQUEST_NAME,
        GET,
        POST,
        PUT,
        PATCH,
        DELETE,
        BODY,
        OWN_HEADERS,
        GOOD,
        empty(
            "save",
            Kind::Map { key: &VARIABLE, of: &Kind::Text(&JSON_POINTER) },
            "What to keep of the answer: variable name to JSON pointer.",
        ),
    ],
    one_of: Some(&CALL),
    refused: &[],
};

static MIX: Struct = Struct {
    name: "mix entry",
    doc: "One kind of request of the mix.",
    keys: &[
        REQUEST_NAME,
        required(
            "weight",
            Kind::Int { min: 1, max: 10_000 },
            "Share of the requests, relative to the other weights.",
        ),
        GET,
        POST,
        PUT,
        PATCH,
        DELETE,
        BODY,
        OWN_HEADERS,
        GOOD,
    ],
    one_of: Some(&CALL),
    refused: &[],
};
