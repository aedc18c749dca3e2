//! Every exit code, each reached by the real binary, by the shortest honest way there.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use mlctl_tests::{Finished, Seal, begin, documented_codes, repository};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn one(scenario: &str, args: &[&str]) -> Finished {
    Seal::new(scenario).mlctl(args).is_clear()
}

/// Deploys, then deploys another release, which that scenario's target does not take well.
fn update(scenario: &str) -> Finished {
    let seal = Seal::new(scenario);
    let _ = seal.mlctl(&["deploy"]).ends(0);
    seal.edit("LEVEL: info", "LEVEL: loud");
    seal.mlctl(&["deploy"]).is_clear()
}

#[test]
fn code_0_done() {
    let _ = one("healthy.toml", &["deploy"]).ends(0);
}

#[test]
fn code_1_a_failure_that_no_other_code_names() {
    let seal = Seal::new("healthy.toml");
    let told = seal.mlctl(&["deploy", "--dry-run", "--out", "nowhere/plan.json"]);
    let _ = told.is_clear().ends(1).says("save the plan to nowhere/plan.json");
}

#[test]
fn code_2_wrong_arguments() {
    let _ = one("healthy.toml", &["deplyo"]).ends(2).says("did you mean");
}

#[test]
fn code_3_an_invalid_file() {
    let seal = Seal::new("healthy.toml");
    seal.edit("port: 4001", "port: everywhere");
    let _ = seal.mlctl(&["deploy"]).ends(3).says("mlctl.yaml:7:");
}

#[test]
fn code_4_an_unreachable_target() {
    let _ = one("unreachable.toml", &["status"]).ends(4);
}

#[test]
fn code_5_a_taken_lock() {
    let _ = one("locked.toml", &["deploy"]).ends(5);
}

#[test]
fn code_6_nothing_of_that_name() {
    let _ = one("healthy.toml", &["status", "nobody"]).ends(6);
}

#[test]
fn code_10_changes_are_pending() {
    let _ = one("healthy.toml", &["deploy", "--dry-run", "--exit-code"]).ends(10);
}

#[test]
fn code_20_failed_and_kept() {
    let _ = one("first-crash.toml", &["deploy"]).ends(20);
}

#[test]
fn code_21_rolled_back() {
    let _ = update("crash.toml").ends(21);
}

#[test]
fn code_22_the_rollback_failed_too() {
    let _ = update("no-way-back.toml").ends(22);
}

#[test]
fn code_23_a_deadline_without_a_way_back() {
    let _ = one("stuck-store.toml", &["deploy"]).ends(23);
}

#[test]
fn code_30_a_gate_said_no() {
    let _ = one("slow-page.toml", &["deploy", "--on-failure", "stop"]).ends(30);
}

#[test]
fn code_31_a_gate_could_not_tell() {
    let _ = one("late-client.toml", &["deploy"]).ends(31);
}

#[test]
fn code_40_refused() {
    let _ = one("healthy.toml", &["rollback"]).ends(40);
}

/// Ends a deploy under way by a signal.
fn ended_by(signal: Signal) -> Option<i32> {
    let seal = Seal::new("healthy.toml").patient();
    let mut child = begin(seal.command(&["deploy", "-o", "json"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("run_started"));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    assert!(lines.last().unwrap().unwrap().contains("run_finished"));
    let code = child.wait().unwrap().code();
    let _ = seal.mlctl(&["deploy", "--resume"]).ends(0);
    code
}

#[test]
fn code_130_interrupted() {
    assert_eq!(ended_by(Signal::SIGINT), Some(130));
}

#[test]
fn code_143_terminated() {
    assert_eq!(ended_by(Signal::SIGTERM), Some(143));
    assert_eq!(ended_by(Signal::SIGHUP), Some(143));
}

/// Returns the numbers that follow a text in a file.
fn numbers_after(path: &str, mark: &str) -> BTreeSet<i32> {
    let text = std::fs::read_to_string(repository().join(Path::new(path))).unwrap();
    let number = |rest: &str| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    text.split(mark).skip(1).filter_map(number).collect()
}

#[test]
fn page_enum_and_tests_have_the_same_codes() {
    let page: BTreeSet<i32> = documented_codes().into_iter().collect();
    let text = std::fs::read_to_string(repository().join("cli/mlctl/src/error.rs")).unwrap();
    let body = text.split("pub enum ExitStatus {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let of_enum: BTreeSet<i32> = body
        .lines()
        .filter_map(|line| line.trim_end_matches(',').split(" = ").nth(1)?.parse().ok())
        .collect();
    let tested = numbers_after("tests/tests/fire/codes.rs", "\nfn code_");
    assert_eq!(page.len(), 17, "{page:?}");
    assert_eq!(page, of_enum, "docs/exit-codes.md and the enum");
    assert_eq!(page, tested, "docs/exit-codes.md and the tests of this file");
}
