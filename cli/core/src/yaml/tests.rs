//! Reading, overlaying and completing, on small shapes of the tests' own.

use serde_json::json;

use super::shape::{Choice, Key, Struct, TEXT, default, empty, keys, optional, required, word};
use super::*;

static COLOURS: &[Choice] = &[word("red", "warm"), word("blue", "cold")];
const NAME: Key = required("name", Kind::Text(&TEXT), "What it is called.");
static PART: Struct = keys(
    "part",
    "A part.",
    &[
        NAME,
        default("count", Kind::Int { min: 1, max: 9 }, "1", "How many there are."),
        default("colour", Kind::Choice(COLOURS), "red", "How it looks."),
        optional("extra", Kind::Json, "Anything."),
        empty("tags", Kind::List { of: &Kind::Text(&TEXT), min: 0 }, "Words for it."),
    ],
);
static THING: Struct = keys(
    "thing",
    "A thing of parts.",
    &[
        required("parts", Kind::Map { key: &TEXT, of: &Kind::Struct(&PART) }, "Its parts."),
        default("heavy", Kind::Bool, "false", "Whether it is."),
    ],
);
const KIND: Kind = Kind::Struct(&THING);

fn node(text: &str) -> Node {
    read("t.yaml", text.as_bytes()).unwrap_or_else(|problems| panic!("{problems}"))
}

fn json_of(text: &str) -> serde_json::Value {
    to_json(&node(text), &Kind::Json)
}

#[test]
fn scalars_follow_yaml_1_2() {
    let text = "
yes_is_text: yes
off_is_text: off
truth: true
quoted: 'true'
number: 12
float: 1.50
version: 1.10.0
octal_is_text: 0o17
plus: +5
infinite_is_text: .inf
nothing:
tilde: ~
date_is_text: 2026-11-24
block: |
  a
  b
folded: >-
  a
  b
flow: [1, {a: b}]
\"quoted key\": x
";
    assert_eq!(
        json_of(text),
        json!({
            "yes_is_text": "yes", "off_is_text": "off", "truth": true, "quoted": "true", "number": 12,
            "float": 1.5, "version": "1.10.0", "octal_is_text": "0o17", "plus": 5, "infinite_is_text": ".inf",
            "nothing": null, "tilde": null, "date_is_text": "2026-11-24", "block": "a\nb\n", "folded": "a b",
            "flow": [1, {"a": "b"}], "quoted key": "x",
        })
    );
}

#[test]
fn places_are_lines_and_columns_from_one_in_characters() {
    let root = node("é: [x,\n  yy]\nb:\n  c: d\n");
    let list = root.get("é").unwrap();
    assert_eq!((list.line, list.column), (1, 4));
    let second = list.items().get(1).unwrap();
    assert_eq!((second.line, second.column), (2, 3));
    let c = root.get("b").unwrap().entry("c").unwrap();
    assert_eq!((c.line, c.column, c.node.line, c.node.column), (4, 3, 4, 6));
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_fine() {
    assert_eq!(json_of("\u{feff}a: 1\r\nb: 2\r\n"), json!({"a": 1, "b": 2}));
}

#[test]
fn what_is_not_data_is_refused() {
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    let large = format!("a: {}", "x".repeat(2 << 20));
    for (text, expected) in [
        ("", "found an empty file"),
        ("---\n", "found nothing"),
        ("a: *b", "t.yaml:1:4: "),
        ("a: b: c", "t.yaml:1:5: found a second `: ` in one value"),
        ("a: \"open", "t.yaml:1:4: found a quote (\") that is never closed"),
        ("a:\n  b: 1\n c: 2\n", "t.yaml:3:2: found an indentation of 1"),
        ("a: 1\na: 2\n", "t.yaml:2:1: found the key `a` again"),
        ("a: !!str 1", "found a tag"),
        ("? [a]\n: b\n", "found a list as a key"),
        (deep.as_str(), "levels"),
        (large.as_str(), "expected at most"),
    ] {
        // A lone null is YAML, but no shape accepts it.
        let problems = match read("t.yaml", text.as_bytes()) {
            Ok(node) => check("t.yaml", &node, &KIND, Placeholders::Filled),
            Err(problems) => problems,
        };
        let told = problems.to_string();
        assert!(told.contains(expected), "{:?}: {told}", text.get(..20.min(text.len())));
    }
}

#[test]
fn defaults_are_filled_in_and_known_as_such() {
    let written = node("parts: {a: {name: A, colour: blue}}");
    let full = complete(&written, &KIND);
    assert_eq!(
        to_json(&full, &KIND),
        json!({"parts": {"a": {"name": "A", "count": 1, "colour": "blue", "tags": []}}, "heavy": false})
    );
    let part = full.get("parts").unwrap().get("a").unwrap();
    assert_eq!(part.get("colour").unwrap().origin, Origin::File);
    assert_eq!(part.get("count").unwrap().origin, Origin::Default);
    assert_eq!(complete(&full, &KIND), full, "completing twice changes nothing");
}

#[test]
fn an_overlay_merges_maps_and_replaces_the_rest() {
    let base = node("parts: {a: {name: A, tags: [x, y], extra: {k: 1, l: 2}}, b: {name: B}}");
    let over = node("parts: {a: {count: 3, tags: [z], extra: {k: 9}}}");
    let merged = overlay(&base, &over, &KIND);
    assert_eq!(
        to_json(&merged, &KIND),
        // What nobody knows the shape of is one value, not two halves.
        json!({"parts": {"a": {"name": "A", "tags": ["z"], "extra": {"k": 9}, "count": 3}, "b": {"name": "B"}}})
    );
    assert_eq!(overlay(&base, &node("parts: {}"), &KIND), base);
}

#[test]
fn placeholders_are_let_through_only_while_open() {
    let written = node("parts: {a: {name: A, count: \"{{n}}\", colour: \"{{c}}\"}}");
    assert!(check("t", &written, &KIND, Placeholders::Open).is_empty());
    assert_eq!(check("t", &written, &KIND, Placeholders::Filled).iter().count(), 2);
}

#[test]
fn suggestions_are_near_or_absent() {
    let known = ["services", "stores", "minReady", "TERM", "cpu"];
    for (found, expected) in [
        ("sevices", Some("services")),
        ("Stores", Some("stores")),
        ("min_ready", Some("minReady")),
        ("SIGTERM", Some("TERM")),
        ("cpus", Some("cpu")),
        ("banana", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(did_you_mean(found, known).as_deref(), expected, "{found}");
    }
}

#[test]
fn problems_come_in_the_order_of_the_file_and_once() {
    let text = "heavy: maybe\nparts: {b: {nam: x}, a: {count: 10}}\n";
    let mut problems = check("t.yaml", &node(text), &KIND, Placeholders::Filled);
    problems.extend(problems.clone());
    assert_eq!(
        problems.to_string(),
        "t.yaml:1:8: heavy: found `maybe`, expected true or false\n\
         t.yaml:2:13: parts.b.nam: unknown key `nam`, expected `name`, `count`, `colour`, `extra` or `tags`; did you mean `name`?\n\
         t.yaml:2:25: parts.a: the key `name` is missing: what it is called\n\
         t.yaml:2:33: parts.a.count: found `10`, expected a whole number from 1 to 9"
    );
}

#[test]
fn the_schema_and_the_list_of_keys_say_the_same() {
    let schema = json_schema(&THING, "thing.json");
    assert_eq!(schema["$defs"]["part"]["required"], json!(["name"]));
    assert_eq!(schema["$defs"]["part"]["properties"]["count"]["default"], json!(1));
    assert_eq!(schema["properties"]["parts"]["additionalProperties"], json!({"$ref": "#/$defs/part"}));
    let list = reference(&THING);
    assert!(list.contains("| `parts.NAME.colour` | `red`, `blue` | `red` | How it looks. |"), "{list}");
    assert!(list.contains("| `heavy` | true or false | `false` | Whether it is. |"), "{list}");
}
