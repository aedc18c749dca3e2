//! What needs no target touches nothing: no socket, no file below any folder of ours, whatever lies there.

use std::process::Command;

use mlctl_tests::{Seal, end, through};

/// Where the loader and the standard library look.
const ALLOWED: [&str; 8] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/lib/",
    "/lib64/",
    "/usr/lib/",
    "/proc/self/",
    "/dev/null",
    "/usr/lib64/",
];

fn commands(seal: &Seal) -> Vec<(&'static str, Command)> {
    [
        ("version", &["version"][..]),
        ("version as JSON", &["version", "-o", "json"]),
        ("--version", &["--version"]),
        ("--help", &["--help"]),
        ("help of a verb", &["deploy", "--help"]),
        ("completion", &["completion", "bash"]),
        ("a verb of a later version", &["dash"]),
        ("no verb", &["deplyo"]),
        ("a wrong flag", &["deploy", "--nonsense"]),
    ]
    .into_iter()
    .map(|(name, args)| (name, seal.plain(args)))
    .collect()
}

#[test]
fn what_needs_no_target_opens_no_socket_and_reads_nothing_of_ours() {
    let seal = Seal::new("healthy.toml");
    // Broken, so that whoever reads it shows.
    std::fs::write(seal.path("mlctl.yaml"), "\t: no YAML").unwrap();
    for (name, command) in commands(&seal) {
        for homeless in [false, true] {
            let mut command = through(&[], &command);
            if homeless {
                // Who has no variables is looked for among the accounts; not by these.
                command.env_clear().current_dir(seal.path("."));
            }
            let log = seal.path("strace.log");
            let calls =
                ["-e", "trace=%network,%file,openat,memfd_create,epoll_create1,clone3,clone,vfork,fork"];
            let wrapper = [&["strace", "-f", "-qq", "-o", log.to_str().unwrap()], &calls[..]].concat();
            let told = end(through(&wrapper, &command));
            assert!(matches!(told.code, Some(0 | 2 | 40)), "{}", told.told());
            let trace = std::fs::read_to_string(log).unwrap();
            let mut opened = 0;
            for line in trace.lines() {
                let call = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
                let word = call.split('(').next().unwrap();
                let touches = match word {
                    // Itself, by its own path; where it lies and stands.
                    "execve" | "readlink" | "getcwd" => false,
                    "openat" | "open" | "access" | "stat" | "newfstatat" | "statx" | "readlinkat" => {
                        let path = call.split('"').nth(1).unwrap_or_default();
                        opened += usize::from(word == "openat");
                        // An empty path is about a descriptor that is open already.
                        !path.is_empty() && !ALLOWED.iter().any(|allowed| path.starts_with(allowed))
                    }
                    _ => true,
                };
                assert!(!touches, "{name}: {line}\n{trace}");
            }
            assert!(opened > 0, "the trace shows not even the loader:\n{trace}");
        }
    }
}

#[test]
fn what_needs_a_target_is_seen_by_the_same_trace() {
    // Otherwise the test above could pass by tracing nothing.
    let seal = Seal::new("healthy.toml");
    let log = seal.path("strace.log");
    let wrapper = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", "trace=%network,openat"];
    let _ = end(through(&wrapper, &seal.command(&["status"]))).ends(0);
    let trace = std::fs::read_to_string(log).unwrap();
    assert!(trace.contains("socketpair(") && trace.contains("mlctl.yaml"), "{trace}");
}
