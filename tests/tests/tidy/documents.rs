//! Rules about documents: they name what the code has, and their links lead somewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use mlctl_tests::{mlctl, repository};

use crate::{assert_none, files, read};

/// Returns the variants of an enum in a source file, with the text between one and the next.
fn variants(path: &str, name: &str) -> Vec<(String, String)> {
    let text = read(Path::new(path));
    let begin = text.find(&format!("enum {name} {{")).unwrap_or_else(|| panic!("{path} has no enum {name}"));
    let body = &text[begin..];
    let body = &body[..body.find("\n}").unwrap()];
    let lines = body.lines().skip(1);
    let variant = |line: &str| {
        let rest = line.strip_prefix("    ")?;
        rest.starts_with(|c: char| c.is_ascii_uppercase()).then(|| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            (rest[..end].to_owned(), rest[end..].to_owned())
        })
    };
    let found: Vec<_> = lines.filter_map(variant).collect();
    assert!(found.len() > 3, "{path}: only {found:?} in {name}");
    found
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[test]
fn the_event_page_names_every_kind() {
    let page = read(Path::new("docs/events.md"));
    let kinds = variants("cli/core/src/event.rs", "EventKind");
    // Each kind has a section; kinds that belong together share one.
    let headings = page.lines().filter(|line| line.starts_with("### "));
    let told: Vec<&str> =
        headings.flat_map(|line| line.split(|c: char| !c.is_ascii_lowercase() && c != '_')).collect();
    let kinds = kinds.iter().map(|(name, _)| snake(name));
    let missing: Vec<String> = kinds.filter(|kind| !told.contains(&kind.as_str())).collect();
    assert_none("docs/events.md documents every event kind", &missing);
}

#[test]
fn the_exit_code_page_names_every_code() {
    let page = read(Path::new("docs/exit-codes.md"));
    let codes = variants("cli/mlctl/src/error.rs", "ExitStatus");
    let number = |rest: &str| rest.trim_start_matches(" = ").trim_end_matches(',').to_owned();
    let in_table = |code: &String| {
        page.lines().any(|line| {
            let first = line.trim_start_matches('|').split('|').next().unwrap_or_default();
            first.split(|c: char| !c.is_ascii_digit()).any(|word| word == code)
        })
    };
    let codes = codes.iter().map(|(_, rest)| number(rest));
    let missing: Vec<String> = codes.filter(|code| !in_table(code)).collect();
    assert_none("docs/exit-codes.md has a row for every code", &missing);
}

#[test]
fn links_of_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let pages = files("docs", ".md").into_iter().chain(["README.md", "CHANGELOG.md"].map(PathBuf::from));
    for page in pages {
        let text = read(&page);
        let folder = page.parent().unwrap();
        for (at, _) in text.match_indices("](") {
            let Some(target) = text[at + 2..].split(')').next() else { continue };
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = path.is_empty() || path.contains("://") || path.starts_with("mailto:");
            if !elsewhere && !repository().join(folder).join(path).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert_none("a link of a document leads to a file", &broken);
}

#[test]
fn every_example_and_playbook_passes_the_validator() {
    let system = ["mlctl.yaml", "tests/fixtures/knobs/mlctl.yaml", "tests/fixtures/foreign/mlctl.yaml"];
    let mut broken = Vec::new();
    for file in system {
        let mut command = Command::new(mlctl());
        command.current_dir(repository()).args(["config", "validate", "--file", file]);
        let output = command.output().unwrap();
        if !output.status.success() {
            broken.push(format!("{file}: {}", String::from_utf8_lossy(&output.stderr)));
        } else if file == "mlctl.yaml" {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            let unread = files("playbooks", ".yaml").into_iter().map(|path| path.display().to_string());
            broken.extend(
                unread
                    .filter(|path| !told.contains(path.as_str()))
                    .map(|path| format!("{path}: not checked")),
            );
        }
    }
    assert_none("what we ship is valid", &broken);
}
