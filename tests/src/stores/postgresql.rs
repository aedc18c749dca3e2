//! A PostgreSQL of one's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::program::{Program, give_away, wrapped};
use super::redis::asked;
use super::{POSTGRESQL_URL, Store, cache, folder};
use crate::free_ports;

/// Time to answer after its start; recovery after a kill is part of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The only user, who may do everything; no password is asked for.
const USER: &str = "postgres";

/// PostgreSQL with 300 connections, without fsync: what a test kills is a process, not the machine.
pub struct Postgresql {
    program: Program,
    port: u16,
    data: PathBuf,
    folder: TempDir,
}

impl Postgresql {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// No PostgreSQL on this machine, or it does not answer.
    pub fn start() -> Result<Self, String> {
        let bin = installed()?;
        let folder = folder::new("postgresql")?;
        give_away(folder.path())?;
        let data = folder.path().join("data");
        init(&bin, &data, &folder.path().join("initdb.log"), None)?;
        let port = free_ports(1)[0];
        let mut settings = settings(port);
        if extension_is_there(&bin, "pg_stat_statements") {
            settings.push("shared_preload_libraries=pg_stat_statements".to_owned());
        }
        let mut program = program("PostgreSQL", &bin, &data, folder.path(), port, &settings, None);
        program.start()?;
        Ok(Self { program, port, data, folder })
    }

    /// Returns its address; the user may make databases.
    #[must_use]
    pub fn url(&self) -> String {
        self.database("postgres")
    }

    /// Returns the address of one of its databases.
    #[must_use]
    pub fn database(&self, name: &str) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/{name}", self.port)
    }
}

impl Store for Postgresql {
    fn name(&self) -> String {
        "PostgreSQL".to_owned()
    }

    fn programs(&mut self) -> Vec<&mut Program> {
        vec![&mut self.program]
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec![self.folder.path().to_path_buf()]
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![(POSTGRESQL_URL, self.url()), ("DATABASE_URL", self.url())]
    }
}

impl Drop for Postgresql {
    fn drop(&mut self) {
        self.program.quit();
        remove_shared_memory(&self.data);
    }
}

/// Returns the program of a cluster. It ends without a trace when told to quit: its shared memory goes with it.
pub(crate) fn program(
    name: &str,
    bin: &Path,
    data: &Path,
    folder: &Path,
    port: u16,
    settings: &[String],
    chroot: Option<&Path>,
) -> Program {
    let mut line = wrapped(&bin.join("postgres"), true, chroot);
    line.extend(["-D".into(), data.into()]);
    for setting in settings {
        line.extend(["-c".into(), setting.into()]);
    }
    Program::new(name, line, folder, PATIENCE, move || answers(port))
        .ending_by(Signal::SIGINT, Signal::SIGQUIT)
}

/// Settings of every cluster here.
pub(crate) fn settings(port: u16) -> Vec<String> {
    [
        &format!("port={port}"),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=300",
        "fsync=off",
        // In its folder, which goes with it, whoever kills it.
        "dynamic_shared_memory_type=mmap",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Makes the cluster.
pub(crate) fn init(bin: &Path, data: &Path, log: &Path, chroot: Option<&Path>) -> Result<(), String> {
    let mut line = wrapped(&bin.join("initdb"), true, chroot);
    line.extend(["-D".into(), data.into()]);
    line.extend(["-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"].map(Into::into));
    let mut command = Command::new(&line[0]);
    // A folder that everybody may be in: nobody may not be where root was.
    command.args(&line[1..]).current_dir("/");
    cache::run(command, "making a cluster of PostgreSQL", log)
}

/// Removes the segment that a killed server leaves behind for good; one that ended by itself has none.
pub(crate) fn remove_shared_memory(data: &Path) {
    let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    // Its seventh line is the segment's key and id.
    if let Some(id) = file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["-m", id]).output();
    }
}

/// Returns the folder of the newest PostgreSQL of this machine.
fn installed() -> Result<PathBuf, String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let folders = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").is_file());
    let number = |bin: &PathBuf| -> Option<u32> { bin.parent()?.file_name()?.to_str()?.parse().ok() };
    if let Some(newest) = folders.max_by_key(number) {
        return Ok(newest);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .ok_or_else(|| "PostgreSQL: no server on this machine; make requirements installs it".to_owned())
}

/// Says whether the server brings an extension along.
fn extension_is_there(bin: &Path, name: &str) -> bool {
    bin.parent().is_some_and(|version| version.join(format!("lib/{name}.so")).is_file())
}

/// A start-up message, which a server that takes connections answers with a request for authentication or its end.
fn answers(port: u16) -> Result<(), String> {
    let mut words = Vec::new();
    for word in ["user", USER, "database", "postgres", ""] {
        words.extend_from_slice(word.as_bytes());
        words.push(0);
    }
    let length = u32::try_from(words.len() + 8).unwrap();
    let message = [&length.to_be_bytes()[..], &196_608u32.to_be_bytes(), &words].concat();
    match asked(port, &message, 1)?[0] {
        b'R' => Ok(()),
        other => Err(format!("127.0.0.1:{port}: it answers {:?}", char::from(other))),
    }
}
