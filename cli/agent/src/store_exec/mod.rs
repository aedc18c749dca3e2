//! Becomes the server of a store, after making what it stands on: its data folder, its databases, its configuration.
//!
//! Runs under a shim like any program, so whatever it says is in the replica's log. Everything it does is done again at
//! each start and changes nothing the second time. The servers refuse to run as root, or need not: started by root it
//! becomes [`SERVER_USER`] before it writes anything. That user may not enter the state folder; so the server finds its
//! data through an open descriptor, and nothing of the state folder has to be opened to others for it.

mod postgresql;
mod redis;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{self, Gid, Pid, Uid};

use crate::{AgentError, disk};

/// User and group of servers that root starts: the ones that own nothing, `nobody` and `nogroup` on Debian.
const SERVER_USER: u32 = 65_534;
/// Where the descriptors begin that the server inherits: those below are its own standard ones, or a library's.
const FIRST_INHERITED: i32 = 20;
/// The variable that names the file of the password.
const PASSWORD: &str = "PASSWORD_FILE";

/// What to become.
#[derive(Debug)]
struct Orders {
    kind: Kind,
    /// The folder of the server's programs.
    programs: PathBuf,
    /// Where its data is.
    home: PathBuf,
    port: u16,
    /// A file with settings in the server's own words.
    settings: PathBuf,
    /// The database and its owner; Redis has neither.
    database: String,
    /// What the server is called in lists of processes.
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgresql,
    Redis,
}

/// What was read before the privileges to do so were given up.
struct Given {
    password: String,
    settings: String,
}

/// Becomes the server; returns only when that cannot be.
///
/// # Errors
/// The orders make no sense, a file cannot be had, or the data cannot be made.
pub(crate) fn run(options: &mut crate::verb::Options) -> Result<(), AgentError> {
    let orders = Orders::read(options)?;
    let parent = unistd::getppid();
    let given = Given { password: password()?, settings: read(&orders.settings)? };
    disk::make_private_folder(&orders.home)?;
    let lock = lock(&orders.home)?;
    let folder = File::open(&orders.home).map_err(AgentError::file("open", &orders.home))?;
    if Uid::effective().is_root() {
        become_server_user(&orders.home)?;
    }
    die_with(parent)?;
    umask(Mode::from_bits_truncate(0o077));
    let home = PathBuf::from(format!("/proc/self/fd/{}", inherited(&folder, &orders.home)?));
    // Held by the server and all it starts, until the last of them has ended.
    inherited(&lock, &orders.home)?;
    let mut command = match orders.kind {
        Kind::Postgresql => postgresql::prepare(&orders, &given, &home)?,
        Kind::Redis => redis::prepare(&orders, &given, &home)?,
    };
    command.env_remove(PASSWORD);
    let subject = command.get_program().to_string_lossy().into_owned();
    Err(AgentError::Process { operation: "start", subject, source: command.exec() })
}

impl Orders {
    fn read(options: &mut crate::verb::Options) -> Result<Self, AgentError> {
        let usage = |reason: &str| AgentError::Usage { verb: "store-exec", reason: reason.to_owned() };
        let kind = match options.text("--kind")?.as_str() {
            "postgresql" => Kind::Postgresql,
            "redis" => Kind::Redis,
            _ => return Err(usage("--kind is neither postgresql nor redis")),
        };
        Ok(Self {
            kind,
            programs: options.folder("--programs")?,
            home: options.folder("--home")?,
            port: options.text("--port")?.parse().map_err(|_| usage("--port is no port"))?,
            settings: options.folder("--settings")?,
            database: options.text("--database")?,
            name: options.text("--name")?,
        })
    }
}

fn password() -> Result<String, AgentError> {
    let path = std::env::var_os(PASSWORD)
        .ok_or_else(|| AgentError::Usage { verb: "store-exec", reason: format!("{PASSWORD} is not set") })?;
    Ok(read(Path::new(&path))?.trim_end_matches('\n').to_owned())
}

fn read(path: &Path) -> Result<String, AgentError> {
    fs::read_to_string(path).map_err(AgentError::file("read", path))
}

/// Waits until nothing of an earlier server has the data any more.
fn lock(home: &Path) -> Result<File, AgentError> {
    let path = home.with_extension("lock");
    let failed = |operation| AgentError::file(operation, &path);
    let mut options = OpenOptions::new();
    let file =
        options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            say("waits for what an earlier run has left to end");
            file.lock().map_err(failed("lock"))?;
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed("lock")(error)),
    }
    Ok(file)
}

/// Gives the data folder to the server's user and becomes that user, for good.
fn become_server_user(home: &Path) -> Result<(), AgentError> {
    let (user, group) = (Uid::from_raw(SERVER_USER), Gid::from_raw(SERVER_USER));
    let metadata = fs::symlink_metadata(home).map_err(AgentError::file("look at", home))?;
    if metadata.uid() != SERVER_USER {
        unistd::chown(home, Some(user), Some(group))
            .map_err(|errno| AgentError::file("give away", home)(errno.into()))?;
    }
    let failed = |errno: nix::Error| AgentError::process("become", format!("user {SERVER_USER}"))(errno);
    unistd::setgroups(&[]).map_err(failed)?;
    unistd::setgid(group).map_err(failed)?;
    unistd::setuid(user).map_err(failed)
}

/// Dies with the shim. Asked for anew: a change of user takes it back.
fn die_with(parent: Pid) -> Result<(), AgentError> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(AgentError::process("set the death signal of", "the server"))?;
    if unistd::getppid() == parent {
        return Ok(());
    }
    Err(AgentError::process("start", "the server")(io::Error::other("its shim has died")))
}

/// Returns a copy of a descriptor that the server inherits.
fn inherited(file: &File, home: &Path) -> Result<i32, AgentError> {
    fcntl(file, FcntlArg::F_DUPFD(FIRST_INHERITED))
        .map_err(|errno| AgentError::file("pass on", home)(errno.into()))
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, content: &str) -> Result<(), AgentError> {
    fs::write(path, content).map_err(AgentError::file("write", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(AgentError::file("close", path))
}

/// Runs a program that has to succeed.
fn succeed(command: &mut Command, input: &str) -> Result<(), AgentError> {
    use std::io::Write as _;
    let subject = command.get_program().to_string_lossy().into_owned();
    let failed = |source| AgentError::Process { operation: "run", subject: subject.clone(), source };
    command.env_remove(PASSWORD).current_dir("/").stdin(std::process::Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // One that ends before it has read everything says why by its status.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(io::Error::other(status.to_string()))) }
}

/// Says a sentence to the log of the replica; one that cannot be written is lost.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(io::stderr(), "mlctl: {text}");
}

/// Refuses a value that would end its line in a configuration or a statement.
fn one_line(what: &str, text: &str) -> Result<(), AgentError> {
    if text.chars().any(char::is_control) {
        let reason = format!("{what} holds a line break or another control character");
        return Err(AgentError::Usage { verb: "store-exec", reason });
    }
    Ok(())
}

/// Returns the words of an order line, for tests of both servers.
#[cfg(test)]
fn orders(kind: Kind) -> Orders {
    Orders {
        kind,
        programs: "/usr/bin".into(),
        home: "/state/data/store".into(),
        port: 12_345,
        settings: "/state/settings".into(),
        database: "shop".to_owned(),
        name: "store".to_owned(),
    }
}
