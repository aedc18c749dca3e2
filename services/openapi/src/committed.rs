//! The document that a service commits and serves.

use std::path::Path;

use crate::document::Document;

/// Compares a document with `openapi.json` in the service's folder; writes it there when `OPENAPI=write` says so.
///
/// # Panics
/// When the two differ, with what to do about it; when the file cannot be written.
pub fn check(folder: &str, document: Document) {
    let path = Path::new(folder).join("openapi.json");
    let drawn = document.write();
    if std::env::var("OPENAPI").is_ok_and(|wish| wish == "write") {
        if let Err(error) = std::fs::write(&path, &drawn) {
            panic!("cannot write {}: {error}", path.display());
        }
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = drawn.lines().zip(committed.lines()).position(|(drawn, committed)| drawn != committed);
    let line = differing.unwrap_or_else(|| drawn.lines().count().min(committed.lines().count())) + 1;
    assert!(
        drawn == committed,
        "{} is not what the handlers say, from line {line} on: run `make openapi`, look at the difference and commit it",
        path.display()
    );
}
