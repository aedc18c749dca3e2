//! A tree written down again, and places in a file.

use mlctl_core::yaml::{Node, Problems, Value};

/// Every problem has a place inside the file; the end of a line and the line after the last one count.
pub fn places_are_inside(bytes: &[u8], problems: &Problems) {
    assert!(!problems.is_empty(), "refused without a problem");
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<&str> = lines(text);
    for problem in problems {
        let line = lines.get(problem.line.wrapping_sub(1));
        let width = line.map(|line| line.chars().count());
        let inside = width.is_some_and(|width| (1..=width + 1).contains(&problem.column));
        assert!(inside, "{problem} is outside of a file of {} lines, width {width:?}", lines.len());
        let told = problem.to_string();
        assert!(!told.contains(['\n', '\r', '\0', '\u{1b}']), "{told:?} is not one line");
    }
}

/// Lines end with LF, CR LF or CR.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\r']) {
        lines.push(&rest[..at]);
        rest = rest[at..].strip_prefix("\r\n").unwrap_or_else(|| &rest[at + 1..]);
    }
    lines.push(rest);
    lines
}

/// Writes a tree as YAML on one line.
pub fn write(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        // Without quotes only what may be more than text, and is safe so.
        Value::Scalar { text, plain: true }
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') =>
        {
            text.clone()
        }
        Value::Scalar { text, .. } => quote(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let pairs = entries.iter().map(|entry| format!("{}: {}", quote(&entry.key), write(&entry.node)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
