//! The keys of a format as a list for people, in Markdown.

use std::fmt::Write as _;

use super::shape::{Kind, Presence, Struct};

/// Returns every key of a format: its path, what it may be, its default, its sentence.
pub fn reference(root: &'static Struct) -> String {
    let mut lines = String::from("| key | value | default | says |\n|---|---|---|---|\n");
    let mut seen = Vec::new();
    structure(root, "", &mut seen, &mut lines);
    lines
}

fn structure(shape: &'static Struct, path: &str, seen: &mut Vec<&'static str>, lines: &mut String) {
    for key in shape.keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        let default = match key.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional | Presence::Empty => "-".to_owned(),
            Presence::Default(text) => format!("`{text}`"),
        };
        // A bar would end the cell.
        let cell = |text: &str| text.replace('|', "\\|");
        // Writing to a String cannot fail.
        let _ =
            writeln!(lines, "| `{path}` | {} | {default} | {} |", cell(&describe(&key.kind)), cell(key.doc));
        below(&key.kind, &path, seen, lines);
    }
}

/// Lists the keys inside a value; a struct met before is not listed again.
fn below(kind: &Kind, path: &str, seen: &mut Vec<&'static str>, lines: &mut String) {
    match kind {
        Kind::Struct(shape) if !seen.contains(&shape.name) => {
            seen.push(shape.name);
            structure(shape, path, seen, lines);
        }
        Kind::Map { of, .. } => below(of, &format!("{path}.NAME"), seen, lines),
        Kind::List { of, .. } => below(of, &format!("{path}[]"), seen, lines),
        Kind::OneOf(one_of) => one_of.forms.iter().for_each(|form| below(form, path, seen, lines)),
        _ => {}
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Int { min, max } if *max >= i64::from(u32::MAX) => format!("whole number from {min}"),
        Kind::Int { min, max } => format!("whole number {min} to {max}"),
        Kind::Text(rule) => rule.expected.to_owned(),
        Kind::Unit(rule) => rule.expected.to_owned(),
        Kind::Choice(choices) => {
            choices.iter().map(|choice| format!("`{}`", choice.word)).collect::<Vec<_>>().join(", ")
        }
        Kind::List { of, .. } => format!("list: {}", describe(of)),
        Kind::Map { of, .. } => format!("map: {}", describe(of)),
        Kind::Struct(shape) => shape.name.to_owned(),
        Kind::Partial(shape) => format!("part of a {}", shape.name),
        Kind::OneOf(one_of) => one_of.expected.to_owned(),
        Kind::Json => "any data".to_owned(),
    }
}
