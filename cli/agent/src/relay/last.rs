//! The table that was last in force, on disk for the relay that comes after a killed one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Front;
use crate::process::boot;
use crate::{AgentError, disk};

#[derive(Debug, Serialize, Deserialize)]
struct Last {
    /// The boot in which it was in force: replicas of another one are gone, and their ports are anybody's.
    boot: String,
    fronts: Vec<Front>,
}

/// Keeps a table.
pub(super) fn keep(path: &Path, fronts: &[Front]) -> Result<(), AgentError> {
    let last = Last { boot: boot().to_owned(), fronts: fronts.to_vec() };
    disk::write_json(path, &last, disk::Durability::Process)
}

/// Returns the table that was kept, if it still means anything.
pub(super) fn read(path: &Path) -> Vec<Front> {
    let last: Option<Last> = disk::read_volatile(path).ok().flatten();
    last.filter(|last| last.boot == boot()).map(|last| last.fronts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mlctl_core::local_protocol::SocketMode;

    use super::*;

    #[test]
    fn a_table_is_kept_for_this_boot_only_and_a_torn_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.json");
        assert!(read(&path).is_empty());
        let front =
            Front { service: "api".to_owned(), port: 4000, mode: SocketMode::Relay, backends: Vec::new() };
        keep(&path, std::slice::from_ref(&front)).unwrap();
        assert_eq!(read(&path), [front]);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(boot(), "another boot")).unwrap();
        assert!(read(&path).is_empty());
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert!(read(&path).is_empty());
    }
}
