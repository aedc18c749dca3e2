//! Standard streams: closed, full, unread, read slowly, made non-blocking by somebody else.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mlctl_tests::{Finished, Seal, end, pause, through};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs a command with its streams redirected as a shell does it.
fn redirected(seal: &Seal, args: &[&str], how: &str) -> Finished {
    let script = format!(r#""$@" {how}"#);
    end(through(&["bash", "-o", "pipefail", "-c", &script, "bash"], &seal.command(args)))
}

#[test]
fn closed_streams_change_neither_outcome_nor_records() {
    for how in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">&- 2>&-"] {
        let seal = Seal::new("healthy.toml");
        let _ = redirected(&seal, &["deploy"], how).ends(0);
        // What a closed stream would have said must not be in a file that got its number.
        seal.is_well();
        let _ = redirected(&seal, &["deploy", "-o", "json"], how).ends(0);
        let _ = redirected(&seal, &["status", "nobody"], how).ends(6);
    }
}

#[test]
fn a_reader_who_has_seen_enough_ends_a_question_quietly_and_no_deploy() {
    let seal = Seal::new("healthy.toml");
    let told = redirected(&seal, &["deploy", "-o", "json"], "| head -1").ends(0);
    assert_eq!((told.stdout.lines().count(), told.stderr.as_str()), (1, ""), "{}", told.told());
    seal.is_well();
    for args in [&["status"][..], &["config", "schema"], &["completion", "bash"], &["--help"], &["runs"]] {
        let told = redirected(&seal, args, "| head -c 1").ends(0);
        assert_eq!(told.stderr, "", "{}", told.told());
    }
    // Nobody reads what is said beside the data either.
    let _ = redirected(&seal, &["restart", "api"], "2>&1 >/dev/null | head -c 1").ends(0);
    seal.is_well();
}

#[test]
fn data_that_finds_no_room_is_a_failure_of_a_question_and_a_warning_of_a_change() {
    let seal = Seal::new("healthy.toml");
    let _ = redirected(&seal, &["deploy"], ">/dev/full")
        .ends(0)
        .says("warning: ")
        .says("No space left on device");
    seal.is_well();
    let _ = redirected(&seal, &["deploy", "-o", "json"], ">/dev/full").is_clear().ends(1);
    for args in [
        &["status"][..],
        &["status", "-o", "json"],
        &["config", "schema"],
        &["completion", "bash"],
        &["version"],
        &["--help"],
        &["deploy", "--dry-run"],
    ] {
        let told = redirected(&seal, args, ">/dev/full").is_clear().ends(1);
        let _ = told.says("write to stdout").says("No space left on device");
    }
    // A failure keeps its own code, and nobody is there to be told on stderr.
    let _ = redirected(&seal, &["status", "nobody"], ">/dev/full 2>/dev/full").ends(6);
    let _ = redirected(&seal, &["restart", "api"], ">/dev/full 2>/dev/full").ends(0);
}

/// Starts a deploy whose stdout is a pipe that holds one page, and returns its reading end.
fn unread(seal: &Seal, args: &[&str]) -> (std::process::Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = seal.command(args);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    (child, reader)
}

/// Waits until the target has the release, while whoever brought it is still there.
fn wait_until_deployed(seal: &Seal) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = seal.mlctl(&["status", "-o", "json"]).ends(0).json();
        if status["release_state"] == "verified" {
            return;
        }
        assert!(Instant::now() < until, "the deploy waits for its reader: {status:#}");
        pause(Duration::from_millis(100));
    }
}

#[test]
fn a_reader_who_pauses_does_not_hold_up_a_deploy() {
    let seal = Seal::new("healthy.toml");
    let (mut child, mut reader) = unread(&seal, &["deploy", "-o", "json"]);
    wait_until_deployed(&seal);
    assert!(child.try_wait().unwrap().is_none(), "the pipe held all of it: nothing was proven");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "run_finished");
    seal.is_well();
}

#[test]
fn ctrl_c_ends_the_wait_for_a_reader_who_never_comes_back() {
    let seal = Seal::new("healthy.toml");
    let (mut child, reader) = unread(&seal, &["deploy", "-o", "json"]);
    wait_until_deployed(&seal);
    pause(Duration::from_millis(300));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it waits on, and cannot be told to stop");
        pause(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0), "the deploy was over by then");
    drop(reader);
    seal.is_well();
}

#[test]
fn a_pipe_that_somebody_made_non_blocking_loses_nothing() {
    let seal = Seal::new("healthy.toml");
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    assert!(writer.as_raw_fd() > 2);
    for args in [&["deploy", "-o", "json"][..], &["config", "schema"]] {
        let mut command = seal.command(args);
        command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut reader = reader.try_clone().unwrap();
        let reading = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut part = [0; 512];
            // Slowly, so that the pipe is full most of the time; the end is the child's end.
            loop {
                pause(Duration::from_millis(2));
                let count = reader.read(&mut part).unwrap();
                text.extend_from_slice(&part[..count]);
                if text.ends_with(b"END\n") {
                    return String::from_utf8(text).unwrap();
                }
            }
        });
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
        let mut own = writer.try_clone().unwrap();
        while own.write(b"END\n").is_err() {
            pause(Duration::from_millis(5));
        }
        let text = reading.join().unwrap();
        let text = text.strip_suffix("END\n").unwrap();
        if args[0] == "deploy" {
            let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
            assert_eq!(last["kind"], "run_finished");
        } else {
            assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "cut: {} bytes", text.len());
        }
    }
}
