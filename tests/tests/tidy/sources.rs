//! Rules about source files: length, names, what may not be said in them.

use std::path::{Path, PathBuf};

use crate::{assert_none, files, read};

/// Lines after which a file has to be split by noun.
const MOST_LINES: usize = 500;

/// Returns the sources that are shipped: what lies in a `src` folder under cli/ or services/.
fn shipped(folder: &str) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = files(folder, ".rs");
    let in_src = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "src");
    let found: Vec<PathBuf> = found.into_iter().filter(in_src).collect();
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn both() -> Vec<PathBuf> {
    shipped("cli").into_iter().chain(shipped("services")).collect()
}

/// Returns the lines of a file that are no test: up to its test module, and nothing of a file of tests.
fn lines_outside_tests(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let of_tests = ["tests.rs", "contract.rs", "agent-under-test.rs"].contains(&name.as_str())
        || path
            .components()
            .any(|part| ["tests", "testing", "contract"].contains(&part.as_os_str().to_str().unwrap()));
    if of_tests {
        return Vec::new();
    }
    let text = read(path);
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().map(|(at, line)| (at + 1, line.to_owned())).collect()
}

#[test]
fn files_are_short_enough_to_read() {
    let length = |path: &PathBuf| (path.display().to_string(), read(path).lines().count());
    let long = both().into_iter().map(|path| length(&path)).filter(|(_, lines)| *lines > MOST_LINES);
    let long: Vec<String> = long.map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    assert_none("no source has more than 500 lines: split it by noun", &long);
}

#[test]
fn files_are_named_after_what_they_hold() {
    let empty = ["util", "utils", "helper", "helpers", "manager", "common", "misc", "shared"];
    let named = |path: &PathBuf| {
        let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        parts.any(|part| part.trim_end_matches(".rs").split(['_', '-']).any(|word| empty.contains(&word)))
    };
    let sources = both().into_iter().chain(files("tests", ".rs")).chain(files("cli/mlctl/tests", ".rs"));
    let broken: Vec<String> = sources.filter(named).map(|path| path.display().to_string()).collect();
    assert_none("a name says what is inside, not that something is", &broken);
}

#[test]
fn the_tool_names_none_of_the_services_it_deploys() {
    let names = [
        "user-service",
        "integration-service",
        "catalog-service",
        "analytics-service",
        "ml-api-sim",
        "mercadolibre",
    ];
    let mut broken = Vec::new();
    for path in shipped("cli") {
        for (number, line) in read(&path).lines().enumerate() {
            let lower = line.to_lowercase().replace('_', "-");
            if names.iter().any(|name| lower.contains(name)) {
                broken.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("mlctl deploys any system: nothing in cli/ names a service of this one", &broken);
}

#[test]
fn nothing_shipped_prints_or_unwraps_by_itself() {
    let banned =
        ["println!(", "eprintln!(", "print!(", "eprint!(", ".unwrap()", "dbg!(", "todo!(", "unimplemented!("];
    // Doubled colons so that a build script's own lines, which are for cargo, are told apart.
    let mut broken = Vec::new();
    for path in both() {
        for (number, line) in lines_outside_tests(&path) {
            let code = line.split("//").next().unwrap_or_default();
            if banned.iter().any(|word| code.contains(word)) {
                broken.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none("mlctl prints by its output module, services log; what can fail is an error", &broken);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let mut broken = Vec::new();
    for path in both().into_iter().chain(files("tests", ".rs")).chain(files("fuzz/src", ".rs")) {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let place = || format!("{}:{}: {}", path.display(), number + 1, line.trim());
            let opens = |word: &str| {
                ["#[", "#!["].iter().any(|hash| line.trim_start().starts_with(&format!("{hash}{word}(")))
            };
            if opens("allow") {
                broken.push(place());
            }
            let until = lines[number..].iter().take(8).take_while(|line| !line.contains(")]")).count();
            let attribute = lines[number..].iter().take(until + 1).any(|line| line.contains("reason"));
            if opens("expect") && !attribute {
                broken.push(place());
            }
        }
    }
    assert_none("#[expect(lint, reason = \"...\")] instead of allow", &broken);
}

#[test]
fn nothing_tells_where_it_was_written() {
    // Pieced together, so that this file passes too.
    let places = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let mut broken = Vec::new();
    // Of fuzz/ only what is committed: its build and what it has found lie there too.
    let everything = [
        "cli",
        "services",
        "tests",
        "docs",
        "playbooks",
        ".github",
        ".ci",
        "fuzz/src",
        "fuzz/fuzz_targets",
        "fuzz/seeds",
    ];
    let texts = everything.iter().flat_map(|folder| files(folder, ""));
    for path in texts
        .chain(["Makefile", "mlctl.yaml", "README.md", "fuzz/run.sh", "fuzz/Cargo.toml"].map(PathBuf::from))
    {
        let Ok(text) = std::fs::read_to_string(mlctl_tests::repository().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                broken.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("no file names a path of somebody's machine", &broken);
}
