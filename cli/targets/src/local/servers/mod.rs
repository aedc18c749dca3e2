//! Servers of stores that this machine runs itself: what each is started with, and where it answers.

mod find;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use indexmap::IndexMap;
use mlctl_core::item::{Digest, Item, ItemId, ItemKind};
use mlctl_core::local_protocol::{
    EnvSource, FileSpec, HealthSpec, Layout, Limits, ProbeProtocol, SocketMode, UpdateSpec, WorkloadSpec,
};
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};
use mlctl_core::system::{Store, StoreKind, System};
use serde::{Deserialize, Serialize};

use super::items;

pub(super) use find::find;

/// Where the servers listen, once chosen for good: below the ports of replicas, above what others are used to take.
const PORTS: std::ops::Range<u16> = 12_000..20_000;
/// The file of a server's settings.
const SETTINGS: &str = "settings.conf";
/// For the whole of a start: the recovery of a large database takes minutes.
const PROGRESS_MS: u64 = 300_000;
/// From the stop signal to SIGKILL: a checkpoint of a full cache takes its time.
const STOP_MS: u64 = 60_000;

/// A server of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// The folder of its programs.
    pub(super) programs: PathBuf,
    /// Where it listens.
    pub(super) port: u16,
}

/// The servers of a system, by store.
pub(super) type Servers = BTreeMap<String, Server>;

/// The payload of a store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LocalStore {
    pub(super) kind: StoreKind,
    /// Its address where it is a file.
    pub(super) embedded: Option<String>,
    /// Its server, where this machine runs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<WorkloadSpec>,
}

impl LocalStore {
    /// Reads the payload of a store.
    pub(super) fn of(item: &Item, operation: &'static str) -> Result<Self> {
        Self::deserialize(&item.payload).map_err(|error| {
            let reason = format!("it was not made by this target ({error}): deploy again");
            OrchestratorError::new(ErrorKind::Invalid, operation, item.id.to_string(), reason)
        })
    }
}

/// Returns the word of a kind whose server this machine can run.
pub(super) const fn kind_word(kind: StoreKind) -> Option<&'static str> {
    match kind {
        StoreKind::Postgresql => Some("postgresql"),
        StoreKind::Redis => Some("redis"),
        StoreKind::Mongodb | StoreKind::Kafka => None,
    }
}

/// Returns the secret that holds the password of a store's server. No secret of `mlctl.yaml` can be called so.
pub(super) fn password(store: &str) -> String {
    format!("{store}.password")
}

/// Returns the database of a system, which is its owner's name too.
fn database(system: &System) -> String {
    system.name.replace('-', "_")
}

/// Returns the address of a store's server; `{secret}` in it is its password.
pub(super) fn url(system: &System, kind: StoreKind, server: &Server) -> String {
    address(system, kind, server, ":{secret}")
}

/// Returns the address of a store's server as people may read it.
pub(super) fn shown_url(system: &System, kind: StoreKind, server: &Server) -> String {
    address(system, kind, server, "")
}

fn address(system: &System, kind: StoreKind, server: &Server, password: &str) -> String {
    let (database, port) = (database(system), server.port);
    match kind {
        StoreKind::Redis if password.is_empty() => format!("redis://127.0.0.1:{port}"),
        StoreKind::Redis => format!("redis://{password}@127.0.0.1:{port}"),
        _ => format!("postgresql://{database}{password}@127.0.0.1:{port}/{database}"),
    }
}

/// Returns what a server is started with.
pub(super) fn spec(
    system: &System,
    name: &str,
    store: &Store,
    server: &Server,
) -> Result<Option<WorkloadSpec>> {
    let Some(kind) = kind_word(store.kind) else { return Ok(None) };
    let (protocol, stop_signal, content) = match store.kind {
        StoreKind::Redis => (ProbeProtocol::Redis, "TERM", redis_settings(name, &store.settings)?),
        // Fast shutdown: TERM would wait for every client to leave.
        _ => (ProbeProtocol::Postgresql, "INT", postgresql_settings(name, &store.settings)?),
    };
    let programs = server.programs.display().to_string();
    let argv = ["/proc/self/exe", "store-exec", "--kind", kind, "--programs", &programs];
    let rest = ["--port", "{port}", "--settings", "{file:settings.conf}", "--name", name];
    let mut argv: Vec<String> = argv.iter().chain(&rest).map(|word| (*word).to_owned()).collect();
    argv.extend(["--home".to_owned(), format!("{{data}}/{name}"), "--database".to_owned(), database(system)]);
    Ok(Some(WorkloadSpec {
        name: name.to_owned(),
        argv,
        artifact: None,
        directory: Some("/".to_owned()),
        env: BTreeMap::from([("PASSWORD_FILE".to_owned(), EnvSource::SecretFile(password(name)))]),
        files: vec![FileSpec { name: SETTINGS.to_owned(), content, live: false, later: Vec::new() }],
        port: Some(server.port),
        socket: SocketMode::Own,
        metrics_path: None,
        health: HealthSpec {
            protocol,
            startup: None,
            live: None,
            ready: None,
            period_ms: 1_000,
            timeout_ms: 2_000,
            failures: 3,
            grace_ms: 10_000,
        },
        update: UpdateSpec {
            // Two processes must never have the same data.
            surge: 0,
            unavailable: 1,
            min_ready_ms: 500,
            // Whoever stands on it is gone by then; none at all would mean to kill it.
            drain_ms: 1,
            stop_grace_ms: STOP_MS,
            stop_signal: stop_signal.to_owned(),
            progress_deadline_ms: PROGRESS_MS,
        },
        limits: Limits::default(),
        needs: Vec::new(),
        while_needed: false,
    }))
}

fn postgresql_settings(store: &str, settings: &IndexMap<String, String>) -> Result<String> {
    lines(store, settings, |name, value| format!("{name} = '{}'\n", value.replace('\'', "''")))
}

fn redis_settings(store: &str, settings: &IndexMap<String, String>) -> Result<String> {
    lines(store, settings, |name, value| {
        let words: Vec<&str> = value.split_whitespace().collect();
        match (name, &words[..]) {
            (_, []) => format!("{name} \"\"\n"),
            // Older servers take one pair a line.
            ("save", pairs) => pairs.chunks(2).map(|pair| format!("save {}\n", pair.join(" "))).collect(),
            (_, words) => format!("{name} {}\n", words.join(" ")),
        }
    })
}

fn lines(
    store: &str,
    settings: &IndexMap<String, String>,
    line: impl Fn(&str, &str) -> String,
) -> Result<String> {
    let mut text = String::new();
    for (name, value) in settings {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(plain) || value.chars().any(char::is_control) {
            let subject = format!("stores.{store}.settings");
            let reason = format!("{name:?} is no setting of a server: a plain name and a value of one line");
            return Err(OrchestratorError::new(ErrorKind::Invalid, "read", subject, reason));
        }
        text.push_str(&line(name, value));
    }
    Ok(text)
}

/// Returns where a store's server listens: where it did so far, else at a free port that is the same whenever the
/// state folder is.
fn port(layout: &Layout, name: &str, taken: &BTreeSet<u16>) -> Result<u16> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let record = items::find(layout, &ItemId::new(ItemKind::Store, name))?;
    if let Some(record) = record {
        let known = LocalStore::of(&record.item, "read")?.server.and_then(|spec| spec.port);
        // Its own server may have it; once that was removed, anybody else.
        let usable = |port: &u16| !taken.contains(port) && (!record.removed || is_free(*port));
        if let Some(port) = known.filter(usable) {
            return Ok(port);
        }
    }
    let seed = Digest::of(format!("{} {name}", layout.root().display()).as_bytes());
    let seed = u16::from_str_radix(seed.short().get(..4).unwrap_or_default(), 16).unwrap_or_default();
    let count = PORTS.end - PORTS.start;
    (0..count)
        .map(|step| PORTS.start + (seed % count + step) % count)
        .find(|port| !taken.contains(port) && is_free(*port))
        .ok_or_else(|| {
            let reason = format!("no port is free from {} to {}", PORTS.start, PORTS.end);
            OrchestratorError::new(ErrorKind::Unavailable, "find a port for", format!("store {name}"), reason)
        })
}

#[cfg(test)]
mod tests;
