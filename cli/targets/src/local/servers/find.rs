//! Finds the programs of servers on this machine, before anything is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mlctl_core::local_protocol::Layout;
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};
use mlctl_core::system::{Store, StoreKind, System};
use tokio::process::Command;
use tokio::time::timeout;

use super::version::{Requirement, told};
use super::{Server, Servers, kind_word, port};

/// Where Debian keeps the programs of each version, outside of PATH.
const POSTGRESQL: &str = "/usr/lib/postgresql";
/// For a program to tell its version.
const VERSION_WAIT: Duration = Duration::from_secs(10);

/// What there is to know of a server before it is found.
struct Wanted {
    /// The server itself.
    program: &'static str,
    /// What it needs beside it.
    beside: &'static [&'static str],
    /// The Debian package.
    package: &'static str,
    /// The least that we can start.
    least: &'static str,
}

const fn wanted(kind: StoreKind) -> Option<Wanted> {
    match kind {
        StoreKind::Postgresql => {
            Some(Wanted { program: "postgres", beside: &["initdb"], package: "postgresql", least: ">=10" })
        }
        // Earlier ones know no users, and so none that may only say PING.
        StoreKind::Redis => {
            Some(Wanted { program: "redis-server", beside: &[], package: "redis-server", least: ">=6" })
        }
        StoreKind::Mongodb | StoreKind::Kafka => None,
    }
}

/// Finds the server of every store that this machine can run one for. `path` is PATH.
///
/// # Errors
/// `Unavailable` for a program that is not there or of a version that is not wanted, with where it was looked for and
/// the Debian package that has it; `Invalid` for a version that is none.
pub(in crate::local) async fn find(layout: &Layout, system: &System, path: &str) -> Result<Servers> {
    let mut taken: BTreeSet<u16> = system
        .services
        .values()
        .flat_map(|service| [Some(service.port), service.metrics.as_ref().map(|metrics| metrics.port)])
        .flatten()
        .collect();
    let mut servers = Servers::new();
    for (name, store) in &system.stores {
        let Some(wanted) = wanted(store.kind) else { continue };
        let folders = folders(store.kind, path);
        let programs = choose(layout, name, store, &wanted, &folders).await?;
        let port = port(layout, name, &taken)?;
        taken.insert(port);
        servers.insert(name.clone(), Server { programs, port });
    }
    Ok(servers)
}

/// Returns where the programs of a kind may be, in the order in which they are looked for.
fn folders(kind: StoreKind, path: &str) -> Vec<PathBuf> {
    let listed = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    // One folder has one name here, whoever deploys: another name would be another command line.
    let mut folders: Vec<PathBuf> = listed.map(|folder| folder.canonicalize().unwrap_or(folder)).collect();
    let mut seen = BTreeSet::new();
    folders.retain(|folder| seen.insert(folder.clone()));
    if kind == StoreKind::Postgresql {
        let versions = std::fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
        let mut versions: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
        versions.sort();
        folders.extend(versions);
    }
    folders
}

/// Returns the folder of the newest server that is as wanted; where there is data already, the one that can read it.
async fn choose(
    layout: &Layout,
    name: &str,
    store: &Store,
    wanted: &Wanted,
    folders: &[PathBuf],
) -> Result<PathBuf> {
    let failed = |kind, reason: String| {
        let subject = format!("the server of store {name}");
        OrchestratorError::new(kind, "find", subject, reason)
    };
    let text = store.version.as_deref().unwrap_or_default();
    let requirement = Requirement::read(text).ok_or_else(|| {
        let reason = format!("stores.{name}.version `{text}` is no version: expected one such as `>=14`");
        failed(ErrorKind::Invalid, reason)
    })?;
    let least = Requirement::read(wanted.least).unwrap_or_default();
    let made_by = made_by(layout, name, store.kind);
    let (mut found, mut unfit): (Vec<(Vec<u32>, &PathBuf)>, Vec<String>) = (Vec::new(), Vec::new());
    for folder in folders {
        let program = folder.join(wanted.program);
        if !program.is_file() {
            continue;
        }
        if let Some(missing) = wanted.beside.iter().find(|other| !folder.join(other).is_file()) {
            unfit.push(format!("{} has no {missing} beside it", program.display()));
            continue;
        }
        match version_of(&program).await {
            Err(reason) => unfit.push(format!("{} {reason}", program.display())),
            Ok(version) if !(requirement.holds(&version) && least.holds(&version)) => {
                unfit.push(format!("{} is {}", program.display(), dotted(&version)));
            }
            Ok(version) if made_by.is_some_and(|major| version.first() != Some(&major)) => {
                unfit.push(format!("{} is {}", program.display(), dotted(&version)));
            }
            Ok(version) => found.push((version, folder)),
        }
    }
    if let Some((_, folder)) = found.into_iter().rev().max_by(|one, other| one.0.cmp(&other.0)) {
        return Ok(folder.clone());
    }
    let (program, package) = (wanted.program, wanted.package);
    let versions = if text.is_empty() { wanted.least } else { text };
    let asked = made_by.map_or_else(
        || format!("of version {versions}"),
        |major| format!("of version {major}, which made its data"),
    );
    let seen = if unfit.is_empty() { String::new() } else { format!(" ({})", unfit.join("; ")) };
    let places = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    let reason = format!(
        "no {program} {asked} in {places}{seen}: install the Debian package {package}, or deploy with `--stores embedded`"
    );
    Err(failed(ErrorKind::Unavailable, reason))
}

/// Returns the version of PostgreSQL that made the data there is; no other one can read it.
fn made_by(layout: &Layout, name: &str, kind: StoreKind) -> Option<u32> {
    let file = layout.server_data(name).join("data/PG_VERSION");
    std::fs::read_to_string(file).ok().filter(|_| kind_word(kind) == Some("postgresql"))?.trim().parse().ok()
}

async fn version_of(program: &Path) -> std::result::Result<Vec<u32>, String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(VERSION_WAIT, command.output()).await {
        Ok(output) => output.map_err(|error| format!("cannot be started ({error})"))?,
        Err(_) => return Err("does not tell its version".to_owned()),
    };
    told(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| "does not tell its version".to_owned())
}

fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}
