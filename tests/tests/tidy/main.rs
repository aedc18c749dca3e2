//! The tidy test: what the layout promises and no compiler checks.
//!
//! `cargo metadata` tells the crate graph, the files tell the rest. Each failure names the rule and every place that
//! breaks it.

#![expect(clippy::unwrap_used, reason = "tests")]

mod documents;
mod graph;
mod openapi;
mod sources;

use std::path::{Path, PathBuf};

use mlctl_tests::repository;

/// Returns the files below a folder of the repository that end like that, in order, as relative paths.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path.strip_prefix(repository()).unwrap().to_path_buf());
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository().join(folder), ending, &mut found);
    found.sort();
    found
}

/// Returns a file of the repository.
fn read(path: &Path) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Asserts that nothing breaks a rule.
#[track_caller]
fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}
