//! Our own bugs: what a person sees of one, and that it never hangs.

use mlctl_tests::{Seal, end, through};

/// Runs a deploy under strace with one injected fault, in all its threads.
fn injected(seal: &Seal, inject: &str) -> mlctl_tests::Finished {
    let log = seal.path("strace.log");
    let wrapper = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", inject];
    let finished = end(through(&wrapper, &seal.command(&["deploy"])));
    let trace = std::fs::read_to_string(log).unwrap();
    assert!(trace.contains("INJECTED"), "nothing was injected by {inject}:\n{trace}");
    finished
}

#[test]
fn no_thread_and_no_descriptor_for_the_runtime_is_an_error_like_any_other() {
    for (inject, reason) in [
        ("inject=clone3,clone:error=EAGAIN", "Resource temporarily unavailable"),
        ("inject=epoll_create1:error=EMFILE", "Too many open files"),
        ("inject=eventfd2:error=EMFILE", "Too many open files"),
        ("inject=socketpair:error=EMFILE", "Too many open files"),
    ] {
        let seal = Seal::new("healthy.toml");
        let _ = injected(&seal, inject).is_clear().ends(1).says("start the async runtime").says(reason);
        seal.deploys_well();
    }
}

#[test]
fn a_bug_ends_with_one_line_and_where_to_report_it_in_whatever_thread_it_is() {
    // The kernel never answers so; the runtime panics at it, in the thread that waits for events.
    let seal = Seal::new("healthy.toml");
    let told = injected(&seal, "inject=epoll_wait,epoll_pwait:error=EBADF:when=4").ends(1);
    let told = told.says("error: mlctl has a bug: ").says("mlctl runs").says("--resume").says("report");
    assert!(
        !told.stderr.contains("panicked at") && !told.stderr.contains("RUST_BACKTRACE=full"),
        "{}",
        told.told()
    );
    let lines = told.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(lines, 1, "{}", told.told());
    // A simulated target forgets what was not finished; its next deploy begins anew.
    seal.deploys_well();
}

#[test]
fn a_bug_while_the_process_ends_does_not_keep_it_from_ending() {
    // Waking a thread of the runtime fails for good, so that whoever waits for that thread waits for ever.
    let seal = Seal::new("healthy.toml");
    let log = seal.path("strace.log");
    let inject = "inject=write:error=ENOSPC:when=1+";
    let eventfd = ["-P", "anon_inode:[eventfd]"];
    let wrapper = [&["strace", "-qq", "-o", log.to_str().unwrap(), "-e", inject][..], &eventfd].concat();
    let told = end(through(&wrapper, &seal.command(&["deploy"])));
    let trace = std::fs::read_to_string(log).unwrap();
    assert!(trace.contains("INJECTED"), "nothing was injected:\n{trace}");
    let _ = told.ends(1).says("error: mlctl has a bug: ");
    // The lock is the target's to free: the embedded one sees that its owner is dead, the simulated one cannot.
    let _ = seal.mlctl(&["status"]).ends(0);
}
