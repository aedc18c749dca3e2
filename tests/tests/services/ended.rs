//! However `stores run` ends, its servers end.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mlctl_tests::{alive, family, pause};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time for servers to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Runs `stores run` with two servers and a command.
fn run(script: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stores"));
    command.args(["run", "--only", "postgresql,redis", "--", "bash", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Runs it until its command says that it has begun; returns it with all its processes.
fn begun() -> (Child, Vec<i32>) {
    let mut child = run("echo begun; exec sleep 600");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let own = i32::try_from(child.id()).unwrap();
    let others: Vec<i32> = family(own).into_iter().filter(|pid| *pid != own).collect();
    // PostgreSQL alone is several.
    assert!(others.len() > 4, "{others:?}");
    (child, others)
}

#[track_caller]
fn are_gone(processes: &[i32]) {
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let left: Vec<&i32> = processes.iter().filter(|pid| alive(**pid)).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "{left:?} are left");
        pause(Duration::from_millis(20));
    }
}

#[test]
fn the_command_sees_the_addresses_and_its_code_is_the_end() {
    let script = "psql -XAtqc 'select 40 + 2' \"$MLCTL_TEST_POSTGRESQL_URL\" && redis-cli -u \"$MLCTL_TEST_REDIS_URL\" ping \
                  && [[ -z ${MLCTL_TEST_KAFKA_BROKERS:-} && -z ${DATABASE_URL:-} ]] && exit 7";
    let output = run(script).wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "42\nPONG\n");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_signal_ends_the_command_and_the_servers() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (mut child, others) = begun();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        are_gone(&others);
    }
}

#[test]
fn whoever_kills_it_kills_the_servers() {
    let (mut child, others) = begun();
    let command = others.iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep")
    });
    let command = *command.unwrap();
    let own = child.id();
    child.kill().unwrap();
    child.wait().unwrap();
    // The command itself is the caller's: it fails by itself without its servers.
    let servers: Vec<i32> = others.into_iter().filter(|pid| *pid != command).collect();
    are_gone(&servers);
    mlctl_tests::kill(command);

    // It had no time to remove its folders: whoever starts a server next does.
    let is_left = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        name.starts_with(&format!("mlctl-stores-{own}-"))
    };
    let left = || std::fs::read_dir(std::env::temp_dir()).unwrap().map(is_left).filter(|left| *left).count();
    assert_eq!(left(), 2, "PostgreSQL's and Redis's");
    mlctl_tests::stores::sweep();
    assert_eq!(left(), 0);
}

#[test]
fn it_ends_with_its_parent() {
    let mut parent = Command::new("bash");
    parent.args(["-c", "\"$0\" run --only redis -- bash -c 'echo $PPID; exec sleep 600'; true"]);
    parent.arg(env!("CARGO_BIN_EXE_stores")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut parent = parent.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let all = family(line.trim().parse().unwrap());
    assert!(all.len() >= 3, "{all:?}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    are_gone(&all);
    mlctl_tests::stores::sweep();
}

#[test]
fn what_is_asked_wrongly_is_told() {
    for words in [&["run"][..], &["up", "--only", "oracle"], &["dance"], &[]] {
        let output = Command::new(env!("CARGO_BIN_EXE_stores")).args(words).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains("Kinds: postgresql"), "{words:?}: {told}");
    }
}
