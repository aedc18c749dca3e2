//! Becomes a program after setting what only a process can set for itself.
//!
//! A process of its own in place of a hook between fork and exec: such hooks need unsafe code and may not allocate.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd;

use crate::{AgentError, disk};

/// The descriptor at which a program looks for its listening socket: the first of `LISTEN_FDS`, sd_listen_fds(3).
const FIRST_PASSED: i32 = 3;

#[derive(Debug, Default)]
struct Orders {
    /// Lead a session of its own.
    session: bool,
    /// Die with this process, which must be the parent still.
    parent: Option<i32>,
    /// Standard input is a listening socket, to be passed on as descriptor 3.
    listen: bool,
    /// Join this control group.
    cgroup: Option<PathBuf>,
    /// Where to say why the program could not be started.
    report: Option<PathBuf>,
    program: Vec<OsString>,
}

/// Becomes the program after `--`; returns only when that cannot be.
///
/// # Errors
/// The orders make no sense, or the system refuses one of them. The reason is also left in `--report FILE`.
pub fn run(args: &[OsString]) -> Result<(), AgentError> {
    let orders = parse(args)?;
    let error = become_program(&orders);
    if let Some(report) = &orders.report {
        let reason = match &error {
            AgentError::Process { source, subject, operation } => {
                format!("cannot {operation} {subject}: {source}")
            }
            other => other.to_string(),
        };
        disk::write(report, reason.as_bytes(), disk::Durability::Process)?;
    }
    Err(error)
}

fn parse(args: &[OsString]) -> Result<Orders, AgentError> {
    let usage = |reason: String| AgentError::Usage { verb: "shim-exec", reason };
    let mut orders = Orders::default();
    let mut rest = args.iter();
    while let Some(name) = rest.next() {
        let name = name.to_string_lossy();
        let mut value = || rest.next().ok_or_else(|| usage(format!("{name} lacks a value")));
        match name.as_ref() {
            "--session" => orders.session = true,
            "--listen" => orders.listen = true,
            "--parent" => {
                let pid = value()?.to_string_lossy().parse();
                orders.parent = Some(pid.map_err(|_| usage("--parent is not a number".to_owned()))?);
            }
            "--cgroup" => orders.cgroup = Some(value()?.into()),
            "--report" => orders.report = Some(value()?.into()),
            "--" => {
                orders.program = rest.cloned().collect();
                break;
            }
            _ => return Err(usage(format!("{name} is not known"))),
        }
    }
    if orders.program.is_empty() {
        return Err(usage("no program after `--`".to_owned()));
    }
    Ok(orders)
}

/// Sets everything up and execs; returns what went wrong.
fn become_program(orders: &Orders) -> AgentError {
    match prepare(orders) {
        Err(error) => error,
        Ok(()) => {
            let Some((program, arguments)) = orders.program.split_first() else {
                return AgentError::Usage { verb: "shim-exec", reason: "no program".to_owned() };
            };
            let mut command = Command::new(program);
            command.args(arguments);
            if program == "/proc/self/exe" {
                // A process list should say who it is, not how it was found.
                command.arg0("mlctl");
            }
            if orders.listen {
                command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
            }
            let source = command.exec();
            AgentError::Process {
                operation: "start",
                subject: program.to_string_lossy().into_owned(),
                source,
            }
        }
    }
}

fn prepare(orders: &Orders) -> Result<(), AgentError> {
    let failed = |operation| move |errno: nix::Error| AgentError::process(operation, "this process")(errno);
    if let Some(parent) = orders.parent {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("set the death signal of"))?;
        // The parent may have died before the signal was set: then nobody would send it.
        if unistd::getppid().as_raw() != parent {
            let source = io::Error::other("its shim has died");
            return Err(AgentError::process("start", "the program")(source));
        }
    }
    if orders.session {
        // Fails only for the leader of a group, which a process just spawned is not unless asked to be.
        let _ = unistd::setsid();
    }
    close_strangers();
    if let Some(cgroup) = &orders.cgroup {
        let members = cgroup.join("cgroup.procs");
        fs::write(&members, std::process::id().to_string())
            .map_err(AgentError::file("join the control group", &members))?;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("read the limits of"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed("raise the open files of"))?;
    // A core file of a crash loop fills a disk.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("switch off core files of"))?;
    if orders.listen {
        let copy =
            fcntl(io::stdin(), FcntlArg::F_DUPFD(FIRST_PASSED)).map_err(failed("pass the socket to"))?;
        if copy != FIRST_PASSED {
            let source = io::Error::other(format!("descriptor {FIRST_PASSED} is in use"));
            return Err(AgentError::process("pass the socket to", "this process")(source));
        }
        let null = File::open("/dev/null").map_err(AgentError::file("open", "/dev/null".as_ref()))?;
        unistd::dup2_stdin(&null).map_err(failed("close standard input of"))?;
    }
    Ok(())
}

/// Closes what was inherited by accident: the lock of a script, the job server of make. A process that lives on for
/// days must not hold them.
fn close_strangers() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|d| *d > 2) {
        // The descriptor of the listing itself is closed already: an error there is expected.
        let _ = unistd::close(descriptor);
    }
}
