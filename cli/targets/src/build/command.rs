//! One build command as a process: its environment, its output, its end.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use mlctl_core::ports::BuildLine;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::timeout;

/// Lines of a failed build that are told with its error.
pub(super) const TAIL_LINES: usize = 40;
/// Bytes of one line; a longer one is cut into several.
const LINE_BYTES: u64 = 16 << 10;
/// How long the output of a command that has ended is still read: what it left in the pipe, not what a compiler's
/// server or daemon that it started may write for hours.
const LAST_OUTPUT: Duration = Duration::from_millis(500);
/// Variables a build may see, and beginnings of such: what compilers and package managers need, no tokens of a CI.
const PASSED: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TERM",
    "TMPDIR",
    "TZ",
    "CC",
    "CXX",
    "AR",
    "LD",
    "CFLAGS",
    "CXXFLAGS",
    "MAKEFLAGS",
];
const PASSED_BEGINNINGS: [&str; 6] = ["CARGO_", "RUST", "LC_", "SSL_CERT_", "PKG_CONFIG", "SCCACHE_"];
/// Of the beginnings above, names that hold credentials all the same.
const WITHHELD: [&str; 2] = ["_TOKEN", "_PASSWORD"];

/// Why a command did not do its work.
pub(super) struct Failure {
    /// One sentence.
    pub(super) reason: String,
    /// The last lines it printed.
    pub(super) tail: Vec<String>,
}

/// Runs a command in a folder to its end, telling what it prints. Dropped before, it is killed with all it started.
pub(super) async fn run(
    argv: &[String],
    folder: &Path,
    tell: &(dyn Fn(BuildLine) + Send + Sync),
) -> Result<(), Failure> {
    let mut tail = VecDeque::new();
    let mut keep = |text: String| {
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text.clone());
        tell(BuildLine::Output(text));
    };
    match run_telling(argv, folder, &mut keep).await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let reason = format!("`{}` {}", argv.join(" "), ended_words(status));
            Err(Failure { reason, tail: tail.into() })
        }
        Err(reason) => Err(Failure { reason, tail: tail.into() }),
    }
}

async fn run_telling(
    argv: &[String],
    folder: &Path,
    tell: &mut (dyn FnMut(String) + Send),
) -> Result<ExitStatus, String> {
    let cannot = |what: &str, error: io::Error| format!("cannot {what} `{}`: {error}", argv.join(" "));
    let Some((program, arguments)) = argv.split_first() else {
        return Err("there is no command to run".to_owned());
    };
    let (reader, writer) = io::pipe().map_err(|e| cannot("start", e))?;
    let again = writer.try_clone().map_err(|e| cannot("start", e))?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| passes(&name.to_string_lossy())));
    command.stdin(Stdio::null()).stdout(writer).stderr(again).process_group(0);
    let mut child = command.spawn().map_err(|e| cannot("start", e))?;
    // It holds the writing ends; with them open the output would never end.
    drop(command);
    let mut group = Group(child.id());
    let output = pipe::Receiver::from_owned_fd(reader.into()).map_err(|e| cannot("read the output of", e))?;
    let reading = read_lines(BufReader::new(output), tell);
    tokio::pin!(reading);
    let status = tokio::select! {
        biased;
        read = &mut reading => {
            read.map_err(|e| cannot("read the output of", e))?;
            child.wait().await
        }
        status = child.wait() => {
            // Somebody it started may hold the pipe open for ever.
            let _ = timeout(LAST_OUTPUT, reading).await;
            status
        }
    };
    group.0 = None;
    status.map_err(|e| cannot("wait for", e))
}

async fn read_lines(
    mut output: BufReader<pipe::Receiver>,
    tell: &mut (dyn FnMut(String) + Send),
) -> io::Result<()> {
    let mut line = Vec::new();
    while (&mut output).take(LINE_BYTES).read_until(b'\n', &mut line).await? > 0 {
        tell(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    Ok(())
}

/// Kills what a build has started when it is given up: a compiler must not go on behind a command that has ended.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn passes(name: &str) -> bool {
    let known = PASSED.contains(&name) || PASSED_BEGINNINGS.iter().any(|b| name.starts_with(b));
    known && !WITHHELD.iter().any(|end| name.ends_with(end))
}

fn ended_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn tokens_are_not_for_builds() {
        for (name, expected) in [
            ("PATH", true),
            ("CARGO_HOME", true),
            ("RUSTFLAGS", true),
            ("CARGO_REGISTRY_TOKEN", false),
            ("GITHUB_TOKEN", false),
            ("AWS_SECRET_ACCESS_KEY", false),
        ] {
            assert_eq!(passes(name), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_output_open_keeps_no_build_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let argv = ["sh", "-c", "sleep 600 & echo $!"].map(ToOwned::to_owned);
        let lines = Mutex::new(Vec::new());
        let tell = |line| lines.lock().unwrap().push(line);
        let done = timeout(Duration::from_secs(10), run(&argv, folder.path(), &tell)).await;
        let lines = lines.into_inner().unwrap();
        let [BuildLine::Output(pid)] = &lines[..] else { panic!("{lines:?}") };
        nix::sys::signal::kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        assert!(done.is_ok_and(|ended| ended.is_ok()));
    }

    #[tokio::test]
    async fn an_endless_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let argv = ["sh", "-c", "head -c 40000 /dev/zero"].map(ToOwned::to_owned);
        let count = Mutex::new(0);
        assert!(run(&argv, folder.path(), &|_| *count.lock().unwrap() += 1).await.is_ok());
        assert_eq!(count.into_inner().unwrap(), 3);
    }
}
