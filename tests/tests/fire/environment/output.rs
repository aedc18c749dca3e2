//! Output without end: of builds, of programs that fail, of probes. What is told stays short and harmless, and says
//! where the whole is.

use std::os::unix::fs::PermissionsExt as _;

use mlctl_tests::{Finished, Sandbox, Seal, assert_settled, item};

use crate::{deployed, knobs};

/// Bytes that one command may say about a failure, however much there is to say.
const MOST_BYTES: usize = 48 << 10;
/// Lines of the same.
const MOST_LINES: usize = 200;
/// Prints what a terminal obeys: a cleared screen, a new title, an answer-back, one-byte sequences, a turned line.
const GARBAGE: &str = r#"printf '\033[2J\033[1;31mred\033]0;owned\007\033[6n\233\061m\033P1$r\033\\\202\370\000\001\033[?25l\033[?1049h\342\200\256dlrow\n'"#;

#[track_caller]
fn is_short_and_harmless(finished: &Finished) {
    let (bytes, lines) = (
        finished.stdout.len() + finished.stderr.len(),
        finished.stdout.lines().count() + finished.stderr.lines().count(),
    );
    let begin = || finished.told().chars().take(4000).collect::<String>();
    assert!(bytes < MOST_BYTES && lines < MOST_LINES, "{bytes} bytes, {lines} lines: {}", begin());
    for stream in [&finished.stdout, &finished.stderr] {
        let bad = stream.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert!(bad.is_none(), "{bad:?} in {}", begin());
        assert!(!stream.contains('\u{202e}'), "{}", begin());
    }
}

/// Deploys a system one of whose builds runs that script.
fn built_by(script: &str) -> (Seal, Finished) {
    let seal = Seal::new("healthy.toml");
    std::fs::write(seal.path("make.sh"), script).unwrap();
    seal.edit("    command: [web]", "    build: {run: [sh, make.sh], artifact: web}");
    let finished =
        seal.mlctl(&["deploy"]).is_clear().ends(20).says("nothing was changed").says("exit code 7");
    is_short_and_harmless(&finished);
    (seal, finished)
}

/// Returns what the file holds that the error names.
#[track_caller]
fn whole(finished: &Finished) -> Vec<u8> {
    let (_, path) = finished.stderr.split_once("all that the build printed is in ").unwrap_or_else(|| {
        panic!("it names no file: {}", finished.told());
    });
    std::fs::read(path.lines().next().unwrap()).unwrap()
}

#[test]
fn a_build_that_prints_ten_thousand_lines_and_fails_is_told_by_its_end() {
    let (_seal, finished) = built_by("seq 1 10000 >&2; echo no rule to make web; exit 7");
    let finished = finished.says("no rule to make web").says("caused by: 10000").says_not("caused by: 9000");
    let text = String::from_utf8(whole(&finished)).unwrap();
    assert_eq!(text.lines().count(), 1 + 10_000 + 1, "the command, what it printed, and why");
}

#[test]
fn a_line_of_ten_megabytes_is_cut_and_kept() {
    let (_seal, finished) = built_by("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 7");
    let finished = finished.says("the end").says("more characters");
    assert_eq!(whole(&finished).iter().filter(|byte| **byte == b'x').count(), 10_000_000);
}

#[test]
fn binary_garbage_of_a_build_moves_no_cursor() {
    let script = format!("{GARBAGE}; head -c 300000 /dev/urandom; echo; {GARBAGE}; echo the end; exit 7");
    let (seal, finished) = built_by(&script);
    let _ = finished.says("red").says("the end").says_not("owned");
    let verbose = seal.mlctl(&["deploy", "-v"]).ends(20);
    let bad = verbose.stderr.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(bad.is_none(), "{bad:?}");
}

#[test]
fn a_file_with_nine_hundred_mistakes_is_told_by_the_first() {
    let seal = Seal::new("healthy.toml");
    let mistakes: String = (0..900).map(|number| format!("  api{number}: {{port: nowhere}}\n")).collect();
    let text = std::fs::read_to_string(seal.path("mlctl.yaml")).unwrap();
    std::fs::write(seal.path("mlctl.yaml"), text.replace("services:\n", &format!("services:\n{mistakes}")))
        .unwrap();
    let finished = seal.mlctl(&["deploy"]).ends(3).says("mlctl.yaml:").says("more lines");
    is_short_and_harmless(&finished);
}

/// Gives the service `back` a program of that text in the place of its own, as its second release.
fn second_release(sandbox: &Sandbox, name: &str, program: &str) {
    let path = sandbox.system_folder().join(name);
    std::fs::write(&path, program).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.edit_service("back", "artifact: knobs", &format!("artifact: {name}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_logs_without_end_before_it_fails_is_told_by_its_end() {
    let sandbox = deployed().await;
    let program = format!(
        "#!/bin/sh\nseq 1 10000\nhead -c 2000000 /dev/zero | tr '\\0' y; echo\n{GARBAGE}\n\
         head -c 100000 /dev/urandom; echo\n{GARBAGE}\necho out of luck\nexit 7\n"
    );
    second_release(&sandbox, "loud", &program);
    let finished = sandbox.mlctl(&["deploy"]).await.is_clear().ends(21).says("out of luck").says("code 7");
    is_short_and_harmless(&finished);
    // The whole is where the summary says.
    let _ = finished.says("mlctl logs back --previous").says_not("owned");
    let logs = sandbox.mlctl(&["logs", "back", "--previous"]).await.ends(0);
    assert!(logs.stdout.lines().any(|line| line.ends_with(" 1")) && logs.stdout.len() > 2_000_000);
    let bad = logs.stdout.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(bad.is_none(), "{bad:?}");
    for query in [&["status"][..], &["events"], &["history"], &["runs"]] {
        let told = sandbox.mlctl(query).await.ends(0);
        let bad = told.stdout.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        assert!(bad.is_none(), "{query:?}: {bad:?}");
    }
    sandbox.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_answers_with_ten_megabytes_is_told_by_its_beginning() {
    let sandbox = knobs();
    let program = r#"#!/usr/bin/env python3
import http.server, os
BODY = b"\033[2J\033]0;owned\007the disk of back is full \033[31m\n" + b"z" * 10_000_000

class Big(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if self.path in ("/readyz", "/health") else 200)
        self.send_header("content-length", str(len(BODY)))
        self.end_headers()
        try:
            self.wfile.write(BODY)
        except OSError:
            pass

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Big).serve_forever()
"#;
    second_release(&sandbox, "big", program);
    let finished = sandbox.mlctl(&["deploy"]).await.is_clear().says("the disk of back is full");
    is_short_and_harmless(&finished);
    assert!(matches!(finished.code, Some(20 | 23)), "{}", finished.told());
    let status = sandbox.mlctl(&["status"]).await.ends(0);
    is_short_and_harmless(&status);
    let answer = sandbox.query(&["status"]).await;
    assert!(item(&answer, "back")["cause"].as_str().unwrap().len() < 1000, "{answer:#}");
    let health = sandbox.mlctl(&["health"]).await.ends(30).says("503");
    is_short_and_harmless(&health);
    // What was kept is no obstacle.
    sandbox.edit_service("back", "artifact: big", "artifact: knobs");
    let _ = sandbox.mlctl(&["deploy"]).await.ends(0);
    assert_settled(&sandbox.query(&["status"]).await);
    sandbox.end().await;
}
