//! The life of one run: start, signals, limits, end.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use mlctl_core::local_protocol::{EnvSource, Layout};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::cgroup::Cgroup;
use super::limit::MemoryWatch;
use super::log::{LogFile, keep_log};
use super::remains::{adopt_orphans, end_all, reap_adopted};
use crate::process::{Process, boot};
use crate::record::{ExitRecord, ReplicaFolder, ShimSpec, ShimStatus};
use crate::{AgentError, disk, relay};

/// How long the log of an ended program is still read: what it left in the pipe, not what its orphans may write.
const LOG_TAIL: Duration = Duration::from_millis(500);
/// How long a relay that is just starting is waited for.
const SOCKET_WAIT: Duration = Duration::from_secs(5);
/// From one start to the next of a program that the shim itself starts again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Runs the program to its end and records both; again and again where it is to be started again.
pub(super) async fn hold(folder: &ReplicaFolder) -> Result<(), AgentError> {
    let spec: ShimSpec = disk::read_json(&folder.shim_spec())?.ok_or_else(|| AgentError::File {
        operation: "read",
        path: folder.shim_spec(),
        source: io::ErrorKind::NotFound.into(),
    })?;
    let mut orders = Orders::hear()?;
    adopt_orphans().map_err(AgentError::process("adopt the orphans of", "the program"))?;
    loop {
        let begun = Instant::now();
        let ended = run(folder, &spec, &mut orders).await?;
        if !spec.restart || ended == Ended::AsAsked {
            return Ok(());
        }
        // One that lasted is started again at once: addresses are closed meanwhile.
        tokio::select! {
            () = sleep_until(begun + RESTART_PAUSE) => {}
            _ = orders.terminate.recv() => return Ok(()),
            _ = orders.quit.recv() => return Ok(()),
        }
    }
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The shim was asked to end it.
    AsAsked,
    /// It ended, or could not be started.
    ByItself,
}

/// The signals a shim obeys.
struct Orders {
    terminate: Signals,
    quit: Signals,
    /// A process below us has ended: the program, or what came to us as an orphan.
    child_ended: Signals,
    /// Watched, not ignored: an ignored signal would stay ignored in the program.
    _deaf: [Signals; 2],
}

impl Orders {
    fn hear() -> Result<Self, AgentError> {
        let watch = |kind| signal(kind).map_err(AgentError::process("watch the signals of", "the shim"));
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            quit: watch(SignalKind::quit())?,
            child_ended: watch(SignalKind::child())?,
            _deaf: [watch(SignalKind::hangup())?, watch(SignalKind::interrupt())?],
        })
    }
}

/// One run from start to end.
async fn run(folder: &ReplicaFolder, spec: &ShimSpec, orders: &mut Orders) -> Result<Ended, AgentError> {
    for old in [folder.status(), folder.exit(), folder.exec_error()] {
        disk::remove(&old)?;
    }
    let started_at = Timestamp::now();
    let started = Instant::now();
    let cgroup = Cgroup::create(&spec.limits);
    let Running { mut child, log, keeper } = match start(folder, spec, cgroup.as_ref()).await {
        Ok(running) => running,
        Err(reason) => {
            disk::write_json(&folder.exit(), &ExitRecord::not_started(reason), disk::Durability::Process)?;
            return Ok(Ended::ByItself);
        }
    };
    let pid = child.id().unwrap_or_default();
    let program = Process::of_child(pid);
    let status = ShimStatus {
        shim: Process::own(),
        program,
        started_at,
        approximate: cgroup.is_none().then(|| approximate(spec)).flatten(),
        ports: Some(spec.ports),
        boot: Some(boot().to_owned()),
    };
    let group = Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
    if let Err(error) = disk::write_json(&folder.status(), &status, disk::Durability::Process) {
        // Nobody would ever know of it: it must not run on.
        kill(group, Signal::SIGKILL);
        let _ = child.wait().await;
        end_all(group).await;
        let _ = timeout(LOG_TAIL, log).await;
        if let Some(keeper) = keeper {
            keeper.abort();
        }
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let reason = format!("{error}{}", source.unwrap_or_default());
        // The disk that was full a moment ago may take this; if not, the agent sees a run without a word.
        let record = ExitRecord::not_started(reason);
        let _ = disk::write_json(&folder.exit(), &record, disk::Durability::Process);
        return Ok(Ended::ByItself);
    }

    let mut memory = MemoryWatch::new(if cgroup.is_some() { None } else { spec.limits.memory_bytes }, pid);
    let course = follow(&mut child, program, group, spec, orders, &mut memory).await;
    let exit = child.wait().await.map_err(AgentError::process("wait for", "the program"))?;
    let ran = started.elapsed();
    // Whatever it left behind ends with it; the log then has an end too.
    let outlived = end_all(group).await;
    let _ = timeout(LOG_TAIL, log).await;
    if let Some(keeper) = keeper {
        keeper.abort();
    }
    let note = match memory.excess() {
        Some(excess) => Some(excess.words()),
        None if course.unwilling => {
            let (signal, grace) = (stop_signal(&spec.stop_signal), Duration::from_millis(spec.grace_ms));
            Some(format!("it did not end within {:.1} s of {signal} and was killed", grace.as_secs_f64()))
        }
        None => None,
    };
    let record = ExitRecord {
        code: exit.code(),
        signal: exit.signal(),
        oom: memory.excess().is_some() || cgroup.as_ref().is_some_and(Cgroup::was_exceeded),
        exec_error: exec_error(folder)?,
        at: Timestamp::now(),
        ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
        left: u32::try_from(outlived).unwrap_or(u32::MAX),
        note,
        sick: None,
    };
    disk::write_json(&folder.exit(), &record, disk::Durability::Process)?;
    Ok(course.ended)
}

/// How a run went.
#[derive(Debug, Clone, Copy)]
struct Course {
    ended: Ended,
    /// It did not end when it was asked to.
    unwilling: bool,
}

/// Obeys orders and watches limits until the program has ended; it is left a zombie.
async fn follow(
    child: &mut Child,
    program: Process,
    group: Pid,
    spec: &ShimSpec,
    orders: &mut Orders,
    memory: &mut MemoryWatch,
) -> Course {
    let grace = Duration::from_millis(spec.grace_ms);
    let mut deadline: Option<Instant> = None;
    let mut end_of = Course { ended: Ended::ByItself, unwilling: false };
    let end = async {
        if program.start == 0 {
            // It could not be looked at: waited for, it is at least known to have ended.
            let _ = child.wait().await;
        } else {
            program.ended().await;
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return end_of,
            _ = orders.terminate.recv() => {
                end_of.ended = Ended::AsAsked;
                if deadline.is_some() {
                    kill(group, Signal::SIGKILL);
                } else {
                    deadline = Some(Instant::now() + grace);
                    kill(group, stop_signal(&spec.stop_signal));
                }
            }
            _ = orders.quit.recv() => {
                end_of.ended = Ended::AsAsked;
                kill(group, Signal::SIGKILL);
            }
            _ = orders.child_ended.recv() => reap_adopted(group),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                end_of.unwilling = true;
                kill(group, Signal::SIGKILL);
                deadline = Some(Instant::now() + Duration::from_secs(1));
            }
            () = memory.exceeded() => kill(group, Signal::SIGKILL),
        }
    }
}

/// Reads why the program could not be started at all, if that is so.
fn exec_error(folder: &ReplicaFolder) -> Result<Option<String>, AgentError> {
    let path = folder.exec_error();
    match std::fs::read_to_string(&path) {
        Ok(reason) => Ok(Some(reason)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AgentError::file("read", &path)(error)),
    }
}

/// A program that was started.
struct Running {
    child: Child,
    log: JoinHandle<()>,
    /// Gives its listening socket to relays that come after.
    keeper: Option<JoinHandle<()>>,
}

/// Starts the program; the error is a sentence for people.
async fn start(folder: &ReplicaFolder, spec: &ShimSpec, cgroup: Option<&Cgroup>) -> Result<Running, String> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("mlctl").arg("shim-exec").arg("--parent").arg(std::process::id().to_string());
    command.arg("--report").arg(folder.exec_error());
    if let Some(cgroup) = cgroup {
        command.arg("--cgroup").arg(cgroup.path());
    }
    let mut keeper = None;
    match &spec.passed {
        Some(passed) => {
            let socket = relay::await_socket(passed, SOCKET_WAIT)
                .await
                .map_err(|e| format!("cannot get the listening socket of {}: {e}", passed.service))?;
            let copy = socket.try_clone().map_err(|e| format!("cannot copy its listening socket: {e}"))?;
            keeper = Some((passed.clone(), copy));
            command.arg("--listen").stdin(Stdio::from(socket));
        }
        None => {
            command.stdin(Stdio::null());
        }
    }
    command.arg("--").args(&spec.argv).env_clear().current_dir(&spec.directory).process_group(0);
    let layout = Layout::new(&spec.root);
    for (name, source) in &spec.env {
        match source {
            EnvSource::Text(text) => command.env(name, text),
            EnvSource::SecretFile(secret) => command.env(name, layout.secret_value(secret)),
            EnvSource::SecretValue(secret) => {
                let path = layout.secret_value(secret);
                let value = std::fs::read_to_string(&path)
                    .map_err(|e| format!("cannot read secret {secret} from {}: {e}", path.display()))?;
                command.env(name, value.trim_end_matches('\n'))
            }
            EnvSource::SecretText { secret, text } => {
                let path = layout.secret_value(secret);
                let value = std::fs::read_to_string(&path)
                    .map_err(|e| format!("cannot read secret {secret} from {}: {e}", path.display()))?;
                let text = text.replace("{secret}", &percent_encoded(value.trim_end_matches('\n')));
                let file = folder.filled(name);
                disk::write(&file, text.as_bytes(), disk::Durability::Process)
                    .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
                command.env(name, file)
            }
        };
    }
    let file = LogFile::open(folder.path()).map_err(|e| format!("cannot open the log: {e}"))?;
    let (reader, writer) = io::pipe().map_err(|e| format!("cannot make a pipe for the log: {e}"))?;
    let again = writer.try_clone().map_err(|e| format!("cannot make a pipe for the log: {e}"))?;
    command.stdout(writer).stderr(again);
    let child = command
        .spawn()
        .map_err(|e| format!("cannot start {} in {}: {e}", spec.argv.join(" "), spec.directory.display()))?;
    // The command holds the writing ends; with them open the log would never end.
    drop(command);
    let log = tokio::spawn(keep_log(reader.into(), file));
    let keeper = keeper.map(|(passed, socket)| tokio::spawn(relay::keep_socket(passed, socket)));
    Ok(Running { child, log, keeper })
}

/// Writes a value as it stands in a URL: everything but letters, digits and `-._~` as its bytes.
fn percent_encoded(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::with_capacity(value.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Signals the whole group; it may be gone already.
fn kill(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

fn stop_signal(name: &str) -> Signal {
    format!("SIG{}", name.trim_start_matches("SIG")).parse().unwrap_or(Signal::SIGTERM)
}

fn approximate(spec: &ShimSpec) -> Option<String> {
    let mut words = Vec::new();
    if spec.limits.memory_bytes.is_some() {
        words.push("memory is looked at four times a second");
    }
    if spec.limits.cpu_millis.is_some() {
        words.push("processor time is not limited");
    }
    (!words.is_empty()).then(|| format!("no control group can be made here: {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_url_ends_no_part_of_it() {
        assert_eq!(percent_encoded("aZ9-._~"), "aZ9-._~");
        assert_eq!(percent_encoded("p@ss:/w?#%é"), "p%40ss%3A%2Fw%3F%23%25%C3%A9");
    }

    #[test]
    fn the_stop_signal_is_named_with_or_without_its_prefix() {
        for (name, expected) in [
            ("TERM", Signal::SIGTERM),
            ("SIGINT", Signal::SIGINT),
            ("QUIT", Signal::SIGQUIT),
            ("?", Signal::SIGTERM),
        ] {
            assert_eq!(stop_signal(name), expected, "{name}");
        }
    }
}
