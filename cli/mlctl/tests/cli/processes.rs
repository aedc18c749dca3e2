//! What only a process has: signals, pipes that close, variables that flags read.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::seal::Seal;

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_signal_in_a_run_ends_it_and_its_last_event_has_the_exit_code() {
    for (number, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143), (Signal::SIGHUP, 143)] {
        if number == Signal::SIGHUP && ignores_hangup() {
            // The tests themselves were started so, as by nohup, and what they start is as deaf.
            continue;
        }
        let seal = Seal::new("healthy.toml");
        seal.patient();
        let mut child = seal.process(&["deploy", "-o", "json"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("run_started"));
        signal(&child, number);
        let last: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
        let mut warned = String::new();
        child.stderr.take().unwrap().read_to_string(&mut warned).unwrap();
        assert_eq!(
            (&last["outcome"], &last["exit"]),
            (&"interrupted".into(), &code.into()),
            "{number} {warned}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(code), "{number}");
        assert!(warned.contains("deploy --resume"), "{warned}");
        let listed = seal.process(&["runs"]).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("interrupted"));
    }
}

#[test]
fn a_signal_during_the_build_ends_it_before_anything_is_changed() {
    let seal = Seal::new("healthy.toml");
    seal.edit("    command: [web]", "    build: {run: [sh, -c, \"echo begun; sleep 600\"], artifact: web}");
    let mut child = seal.process(&["deploy"]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("begun")));
    signal(&child, Signal::SIGTERM);
    assert!(said.any(|line| line.contains("stopped before anything was changed")));
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let listed = seal.process(&["runs", "-o", "json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn whoever_watches_ends_quietly_with_its_reader() {
    let seal = Seal::new("healthy.toml");
    let mut child = seal.process(&["status", "--watch", "-o", "json"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let answer: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(answer["system"], "shop", "one document a line");
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn variables_answer_for_flags_and_an_empty_one_says_nothing() {
    let seal = Seal::new("healthy.toml");
    assert_eq!(seal.process(&["deploy"]).env("MLCTL_QUIET", "1").output().unwrap().stderr, b"");
    for value in ["", "0", "1", "yes"] {
        let told = seal.process(&["status", "-v"]).env("MLCTL_VERBOSE", value).output().unwrap();
        assert!(told.status.success(), "{value:?}: {}", String::from_utf8_lossy(&told.stderr));
    }
    for (value, code) in [("", 40), ("0", 40), ("1", 0)] {
        let told =
            seal.process(&["down"]).env("MLCTL_YES", value).env("MLCTL_NO_INPUT", "1").output().unwrap();
        assert_eq!(told.status.code(), Some(code), "{value:?}: {}", String::from_utf8_lossy(&told.stderr));
    }
    let mut version = seal.process(&["version"]);
    assert!(version.env("OTHER", OsStr::from_bytes(b"\xff")).output().unwrap().status.success());
}
